"""The method, top to bottom (Yuan et al., IEEE/CAA JAS 2025).

    timesteps = timesteps_from(scheduler, steps, strength)
    source = invert(unet, scheduler, x0, null, plan, timesteps)     # what the U-Net sees un-noised
    latents = start(scheduler, x0, noise, source, plan, timesteps)  # SDEdit noises the latents ...
    latents = denoise(unet, scheduler, latents, timesteps, ...)     # ... and the source is put back

Latents are (batch, 4, height, width) in float32; the U-Net computes in its own precision. Texts are
(batch, tokens, channels). Timesteps run from the noisiest down.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import groupby

import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from torch import Tensor

from sdcorrect.core.capture import Captured, capture
from sdcorrect.core.inject import inject
from sdcorrect.core.plan import Injection, Plan, in_window
from sdcorrect.core.schedule import inverse_of
from sdcorrect.errors import UsageError

#: The paper's one DDIM inversion step evaluates the U-Net at the cleanest timestep but the first.
ONE_STEP = 1


@dataclass(frozen=True)
class Source:
    """What is known of the pictures before anything is noised."""

    null: Tensor  # the text they were inverted under
    captured: Captured | None = None
    trajectory: Mapping[int, Tensor] = field(default_factory=dict)  # timestep -> latents


def invert(
    unet: UNet2DConditionModel,
    scheduler: DDIMScheduler,
    x0: Tensor,
    null: Tensor,
    plan: Plan,
    timesteps: Tensor,
) -> Source:
    """Find the source of `x0` that `plan` needs, under the empty prompt `null`, without guidance.

    Raises:
        UsageError: a block that the U-Net lacks, or an inversion that misses a sampling timestep.
    """
    match plan.inversion:
        case "one-step":
            return Source(null, captured=invert_one_step(unet, x0, null, plan.injections))
        case "full":
            steps = plan.inversion_steps or scheduler.num_inference_steps
            return Source(null, trajectory=invert_fully(unet, scheduler, x0, null, steps, timesteps))
        case "none":
            return Source(null)


def invert_one_step(
    unet: UNet2DConditionModel, x0: Tensor, null: Tensor, injections: tuple[Injection, ...]
) -> Captured:
    """`A_k` and `S_k` of one evaluation on the clean latents; its noise prediction is not used."""
    with capture(unet, injections) as captured:
        unet(x0.to(unet.dtype), ONE_STEP, encoder_hidden_states=null)
    return captured


def invert_fully(
    unet: UNet2DConditionModel,
    scheduler: DDIMScheduler,
    x0: Tensor,
    null: Tensor,
    steps: int,
    keep: Tensor,
) -> dict[int, Tensor]:
    """DDIM inversion over `steps`: the latents at the timesteps to `keep`, and at the last one.

    Raises:
        UsageError: a timestep to keep lies on none of the steps.
    """
    inverse = inverse_of(scheduler)
    inverse.set_timesteps(steps)
    visited = [int(t) for t in inverse.timesteps]
    missed = sorted({int(t) for t in keep} - set(visited))
    if missed:
        raise UsageError(
            f"an inversion of {steps} steps passes no timestep {missed[0]}, which sampling needs; "
            f"invert with as many steps as sampling has, or with 999"
        )
    trajectory: dict[int, Tensor] = {}
    latents = x0
    for t in visited:
        prediction = unet(latents.to(unet.dtype), t, encoder_hidden_states=null).sample.float()
        latents = inverse.step(prediction, t, latents).prev_sample
        if t in keep or t == visited[-1]:
            trajectory[t] = latents
    return trajectory


def start(
    scheduler: DDIMScheduler,
    x0: Tensor,
    noise: Tensor,
    source: Source,
    plan: Plan,
    timesteps: Tensor,
) -> Tensor:
    """The latents that denoising starts from.

    From noise, SDEdit (Meng et al., ICLR 2022): x = sqrt(a_t) x0 + sqrt(1 - a_t) noise at the first
    timestep; or the most inverted latents.
    """
    if plan.start == "inverted":
        return source.trajectory[max(source.trajectory)]
    return scheduler.add_noise(x0, noise, timesteps[:1])


def denoise(
    unet: UNet2DConditionModel,
    scheduler: DDIMScheduler,
    latents: Tensor,
    timesteps: Tensor,
    *,
    cond: Tensor,
    uncond: Tensor,
    guidance_scale: float,
    source: Source,
    plan: Plan,
) -> Tensor:
    """Denoise with classifier-free guidance, the source's tensors put back in both branches.

    At every step the U-Net is evaluated once, on the rows [uncond, cond]; where the source is an
    inverted trajectory, on [source, uncond, cond].
    """
    total, batch = len(timesteps), len(latents)
    runs_along = bool(source.trajectory and plan.injections)
    text = torch.cat([source.null, uncond, cond] if runs_along else [uncond, cond])

    def active(step: int) -> tuple[Injection, ...]:
        return tuple(i for i in plan.injections if in_window(step, total, i.window))

    for injections, steps in groupby(range(total), key=active):
        with inject(unet, injections, captured=source.captured, batch=batch):
            for step in steps:
                t = timesteps[step]
                rows = [latents, latents]
                if runs_along:
                    rows.insert(0, source.trajectory[int(t)])
                predictions = unet(torch.cat(rows).to(unet.dtype), t, encoder_hidden_states=text)
                *_, without, towards = predictions.sample.float().split(batch)
                prediction = without + guidance_scale * (towards - without)
                latents = scheduler.step(prediction, t, latents).prev_sample
    return latents
