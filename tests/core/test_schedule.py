import pytest
import torch
from accelerator import ACCELERATOR, There, accelerator
from diffusers import UniPCMultistepScheduler

from sdcorrect.core.plan import effective_steps, in_window
from sdcorrect.core.schedule import UniPC, add_noise, ddim_scheduler, inverse_of, timesteps_from


@pytest.mark.parametrize(
    ("steps", "strength", "expected"),
    [
        (20, 0.95, 19),
        (20, 0.9, 18),
        (20, 1.0, 20),
        (20, 0.3, 6),
        (10, 0.7, 7),
        (100, 0.29, 29),
        (3, 0.3, 0),
    ],
)
def test_effective_steps_are_rounded_down_without_floating_point_drops(
    steps: int, strength: float, expected: int
) -> None:
    assert effective_steps(steps, strength) == expected


def test_timesteps_are_leading_with_offset_one() -> None:
    assert timesteps_from(ddim_scheduler(), 20, 1.0).tolist() == list(range(951, 0, -50))
    assert timesteps_from(ddim_scheduler(), 20, 0.1).tolist() == [51, 1]


def test_windows_share_the_steps_without_overlap() -> None:
    first = [step for step in range(7) if in_window(step, 7, (0.0, 0.5))]
    second = [step for step in range(7) if in_window(step, 7, (0.5, 1.0))]
    assert first + second == list(range(7))


def test_an_inverse_step_undoes_a_step() -> None:
    scheduler = ddim_scheduler()
    scheduler.set_timesteps(20)
    inverse = inverse_of(scheduler, 20)
    latents, prediction = torch.randn(2, 1, 4, 8, 8).unbind()
    there = inverse.step(prediction, 501, latents).prev_sample
    back = scheduler.step(prediction, 501, there).prev_sample
    torch.testing.assert_close(back, latents, rtol=1e-5, atol=1e-5)


def test_noise_is_added_wherever_the_latents_are_by_a_schedule_that_stays() -> None:
    scheduler = ddim_scheduler()
    x0, noise = torch.randn(2, 1, 4, 8, 8).unbind()
    expected = scheduler.add_noise(x0, noise, torch.tensor([601]))
    assert torch.equal(add_noise(scheduler, x0, noise, 601), expected)
    with accelerator():
        noised = add_noise(scheduler, x0.to(ACCELERATOR), noise.to(ACCELERATOR), 601)
    assert isinstance(noised, There)
    assert torch.equal(noised.here, expected)
    assert scheduler.alphas_cumprod.device.type == "cpu"


@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_unipc_steps_as_diffusers_steps(order: int, prediction_type: str) -> None:
    options = {"solver_order": order, "prediction_type": prediction_type}
    ours, theirs = UniPC(**options), UniPCMultistepScheduler(**options)
    generator = torch.Generator().manual_seed(0)
    latents, *predictions = torch.randn(7, 2, 4, 8, 8, generator=generator)
    ends = []
    for solver in (ours, theirs):
        solver.set_timesteps(len(predictions))
        stepped = latents
        for t, prediction in zip(solver.timesteps.tolist(), predictions, strict=True):
            stepped = solver.step(prediction, t, stepped).prev_sample
        ends.append(stepped)
    torch.testing.assert_close(*ends, rtol=1e-5, atol=1e-5)
