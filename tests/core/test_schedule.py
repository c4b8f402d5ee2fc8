import pytest
import torch

from sdcorrect.core.plan import effective_steps, in_window
from sdcorrect.core.schedule import ddim_scheduler, inverse_of, timesteps_from


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
