"""The DDIM schedule of the paper, forward and backward, on a model's own betas and prediction type."""

from collections.abc import Mapping
from typing import Any

from diffusers import DDIMInverseScheduler, DDIMScheduler
from torch import Tensor

from sdcorrect.core.plan import effective_steps

#: The training schedule of Stable Diffusion 1.x.
STABLE_DIFFUSION_BETAS = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
}
PAPER_SPACING = {
    "timestep_spacing": "leading",
    "steps_offset": 1,
    "set_alpha_to_one": False,
    "clip_sample": False,
}


def ddim_scheduler(config: Mapping[str, Any] = STABLE_DIFFUSION_BETAS) -> DDIMScheduler:
    """Deterministic DDIM (Song et al., 2021, eq. 12), spaced as the paper spaces it."""
    return DDIMScheduler.from_config({**config, **PAPER_SPACING})


def inverse_of(scheduler: DDIMScheduler) -> DDIMInverseScheduler:
    """The same steps towards noise.

    x_next = sqrt(a_next) (x - sqrt(1 - a) e) / sqrt(a) + sqrt(1 - a_next) e
    """
    return DDIMInverseScheduler.from_config(scheduler.config)


def timesteps_from(scheduler: DDIMScheduler, steps: int, strength: float) -> Tensor:
    """The timesteps that are computed, noisiest first: the last `steps` * `strength` of them."""
    scheduler.set_timesteps(steps)
    timesteps: Tensor = scheduler.timesteps[steps - effective_steps(steps, strength) :]
    return timesteps
