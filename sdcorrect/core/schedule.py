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


def inverse_of(scheduler: DDIMScheduler, steps: int) -> DDIMInverseScheduler:
    """The same steps towards noise, over `steps`.

    x_next = sqrt(a_next) (x - sqrt(1 - a) e) / sqrt(a) + sqrt(1 - a_next) e
    """
    inverse = DDIMInverseScheduler.from_config(scheduler.config)
    inverse.set_timesteps(steps)
    return inverse


def timesteps_from(scheduler: DDIMScheduler, steps: int, strength: float) -> Tensor:
    """The timesteps that are computed, noisiest first: the last `steps` * `strength` of them."""
    scheduler.set_timesteps(steps)
    timesteps: Tensor = scheduler.timesteps[steps - effective_steps(steps, strength) :]
    return timesteps


def solver_from(
    name: SchedulerName,
    ddim: DDIMScheduler,
    steps: int,
    strength: float,
    solver_steps: int | None = None,
) -> tuple[SchedulerMixin, Tensor]:
    """The solver `name`, ready to step, and the timesteps that are computed, noisiest first.

    Every solver starts at the noise where `ddim` would, and goes from there in `solver_steps`, or in
    as many as `ddim`. dpm++: DPM-Solver++ 2M (Lu et al., 2022); unipc: UniPC (Zhao et al., 2023).
    """
    timesteps = timesteps_from(ddim, steps, strength)
    if name == "ddim":
        return ddim, timesteps
    # The schedule is cut off where SDEdit starts: the solver's own spacing then divides what is left,
    # and its first step is its first, with no earlier one to remember.
    start = int(timesteps[0])
    kind = DPMSolverMultistepScheduler if name == "dpm++" else UniPCMultistepScheduler
    solver = kind.from_config(
        ddim.config,
        trained_betas=ddim.betas[: start + 1].tolist(),
        num_train_timesteps=start + 1,
        timestep_spacing="linspace",
    )
    solver.set_timesteps(solver_steps or len(timesteps))
    return solver, solver.timesteps
