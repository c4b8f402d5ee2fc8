"""The DDIM schedule of the paper, forward and backward, and faster solvers on the same betas."""

from collections.abc import Mapping
from typing import Any

from diffusers import (
    DDIMInverseScheduler,
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    SchedulerMixin,
    UniPCMultistepScheduler,
)
from torch import Tensor

from sdcorrect.core.plan import SchedulerName, effective_steps

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


def scheduler_named(name: SchedulerName, ddim: DDIMScheduler) -> SchedulerMixin:
    """The solver `name` on the betas and the prediction type of `ddim`.

    dpm++: DPM-Solver++ 2M (Lu et al., 2022); unipc: UniPC (Zhao et al., 2023). Both are of second
    order, and spaced evenly from the last timestep, so that few steps still start at full noise.
    """
    match name:
        case "ddim":
            return ddim
        case "dpm++":
            return DPMSolverMultistepScheduler.from_config(ddim.config, timestep_spacing="linspace")
        case "unipc":
            return UniPCMultistepScheduler.from_config(ddim.config, timestep_spacing="linspace")


def inverse_of(scheduler: DDIMScheduler, steps: int) -> DDIMInverseScheduler:
    """The same steps towards noise, over `steps`.

    x_next = sqrt(a_next) (x - sqrt(1 - a) e) / sqrt(a) + sqrt(1 - a_next) e
    """
    inverse = DDIMInverseScheduler.from_config(scheduler.config)
    inverse.set_timesteps(steps)
    return inverse


def timesteps_from(scheduler: SchedulerMixin, steps: int, strength: float) -> Tensor:
    """The timesteps that are computed, noisiest first: the last `steps` * `strength` of them.

    `scheduler` is left ready to add the noise of the first of them and to step from there.
    """
    scheduler.set_timesteps(steps)
    first = steps - effective_steps(steps, strength)
    if not isinstance(scheduler, DDIMScheduler):
        # these go by the index of a step and remember their last: they must be told where they start
        scheduler.set_begin_index(first)
    timesteps: Tensor = scheduler.timesteps[first:]
    return timesteps
