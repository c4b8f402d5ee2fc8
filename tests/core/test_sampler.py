import pytest
import torch
from sampling import relative
from torch import Tensor

from sdcorrect.core.plan import Injection, Plan
from sdcorrect.core.sampler import denoise, invert, start
from sdcorrect.core.schedule import timesteps_from
from sdcorrect.errors import UsageError
from sdcorrect.models import Model

CORRECT = Plan("one-step", injections=(Injection("self-attention", (3, 4)), Injection("skip", (4, 5))))
INVERT = Plan("full", start="inverted")


def pictures(batch: int, side: int = 8) -> tuple[Tensor, Tensor]:
    """Latents and noise of `batch` different pictures, the first ones alike for every `batch`."""
    generator = torch.Generator().manual_seed(0)
    both = torch.randn(3, 2, 4, side, side, generator=generator)[:batch]
    return both[:, 0], both[:, 1]


def sample(
    model: Model,
    plan: Plan,
    x0: Tensor,
    noise: Tensor,
    *,
    steps: int = 4,
    strength: float = 1.0,
    prompt: str = "in 3d render style",
    guidance_scale: float = 5.0,
) -> Tensor:
    unet, scheduler = model.pipe.unet, model.scheduler
    null = model.text([""] * len(x0), (32, 32))
    timesteps = timesteps_from(scheduler, steps, strength)
    source = invert(unet, scheduler, x0, null, plan, timesteps)
    return denoise(
        unet,
        scheduler,
        start(scheduler, x0, noise, source, plan, timesteps),
        timesteps,
        cond=model.text([prompt] * len(x0), (32, 32)),
        uncond=null,
        guidance_scale=guidance_scale,
        source=source,
        plan=plan,
    )


@pytest.mark.parametrize("plan", [Plan(), CORRECT, INVERT])
def test_a_batch_of_three_agrees_with_batches_of_one(model: Model, plan: Plan) -> None:
    x0, noise = pictures(3)
    together = sample(model, plan, x0, noise)
    for i in range(3):
        alone = sample(model, plan, x0[i : i + 1], noise[i : i + 1])
        assert relative(together[i : i + 1], alone) < 1e-5


def test_the_correction_changes_the_picture_and_sdedit_is_without_it(model: Model) -> None:
    x0, noise = pictures(1)
    sdedit = sample(model, Plan(), x0, noise)
    assert relative(sample(model, CORRECT, x0, noise), sdedit) > 0.01
    without_blocks = Plan("one-step", injections=())
    assert torch.equal(sample(model, without_blocks, x0, noise), sdedit)


def test_windows_limit_the_correction_to_their_steps(model: Model) -> None:
    x0, noise = pictures(1)

    def windowed(*windows: tuple[float, float]) -> Tensor:
        injections = tuple(Injection("skip", (4,), window) for window in windows)
        return sample(model, Plan("one-step", injections=injections), x0, noise)

    whole = windowed((0.0, 1.0))
    assert torch.equal(windowed((0.0, 0.5), (0.5, 1.0)), whole)
    assert relative(windowed((0.0, 0.5)), whole) > 1e-3
    assert torch.equal(windowed((0.0, 0.2)), sample(model, Plan(), x0, noise))


def test_evaluations_are_those_of_the_method(model: Model) -> None:
    x0, noise = pictures(2)
    for plan, expected in [(Plan(), 2 * 3), (CORRECT, 1 + 2 * 3)]:
        before = model.evaluations
        sample(model, plan, x0, noise, steps=4, strength=0.75)
        assert model.evaluations - before == expected * len(x0)


@pytest.mark.parametrize(("few", "more"), [(4, 25), pytest.param(25, 80, marks=pytest.mark.slow)])
def test_inverting_fully_and_sampling_back_reconstructs_better_with_more_steps(
    model: Model, few: int, more: int
) -> None:
    x0 = pictures(1, side=16)[0]

    def error(steps: int) -> float:
        return relative(sample(model, INVERT, x0, x0, steps=steps, prompt="", guidance_scale=1.0), x0)

    assert error(few) > 2 * error(more)


def test_a_source_that_runs_along_a_full_inversion_corrects_too(model: Model) -> None:
    x0, noise = pictures(2)
    along = Plan("full", start="inverted", injections=(Injection("self-attention", (4, 5)),))
    assert relative(sample(model, along, x0, noise), sample(model, INVERT, x0, noise)) > 0.01


def test_an_inversion_that_misses_a_sampling_timestep_is_refused(model: Model) -> None:
    x0, noise = pictures(1)
    with pytest.raises(UsageError, match="an inversion of 3 steps misses timestep"):
        sample(model, Plan("full", inversion_steps=3, start="inverted"), x0, noise, steps=4)
