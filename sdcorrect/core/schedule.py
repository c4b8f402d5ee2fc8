"""The paper's DDIM schedule in both directions, and faster solvers on the same betas."""

from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from operator import add
from types import MappingProxyType
from typing import Any

from diffusers import (
    DDIMInverseScheduler,
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    LCMScheduler,
    SchedulerMixin,
    UniPCMultistepScheduler,
)
from torch import Generator, Tensor, eye, ones, split, tensor, zeros, zeros_like

from sdcorrect.core.plan import SchedulerName, effective_steps
from sdcorrect.errors import UsageError

#: The training schedule of Stable Diffusion 1.x.
STABLE_DIFFUSION_BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
#: Settings of a checkpoint's scheduler that every solver keeps; all others are replaced.
THRESHOLDING = ("thresholding", "dynamic_thresholding_ratio", "sample_max_value")
PREDICTION = ("prediction_type", *THRESHOLDING)
PAPER_SPACING = {
    "timestep_spacing": "leading",
    "steps_offset": 1,
    "set_alpha_to_one": False,
    "clip_sample": False,
}


class UniPC(UniPCMultistepScheduler):  # type: ignore[misc]
    """Diffusers' UniPC, with its coefficients computed on the CPU.

    The original computes them on the device, and waits there for each. Its predictor and corrector are
    linear in the latents and in the model's outputs, so running its own code on unit vectors gives the
    coefficients.
    """

    model_outputs: list[Tensor | None]

    def multistep_uni_p_bh_update(self, model_output: Tensor, *, sample: Tensor, order: int) -> Tensor:
        predict = super().multistep_uni_p_bh_update
        return self._combined(predict, order, model_output=model_output, sample=sample)

    def multistep_uni_c_bh_update(
        self, this_model_output: Tensor, *, last_sample: Tensor, this_sample: Tensor, order: int
    ) -> Tensor:
        correct = super().multistep_uni_c_bh_update
        given = {"last_sample": last_sample, "this_sample": this_sample}
        return self._combined(correct, order, this_model_output=this_model_output, **given)

    def _combined(self, update: Callable[..., Tensor], order: int, **given: Tensor) -> Tensor:
        outputs = self.model_outputs
        tensors = [*(output for output in outputs if output is not None), *given.values()]
        units = iter(split(eye(len(tensors)), 1))  # (1, tensors) each: a batch of one
        self.model_outputs = [None if output is None else next(units) for output in outputs]
        try:
            [coefficients] = update(**{name: next(units) for name in given}, order=order)
        finally:
            self.model_outputs = outputs
        terms = [coefficient * one for coefficient, one in zip(coefficients, tensors, strict=True)]
        return reduce(add, terms)


def ddim_scheduler(config: Mapping[str, Any] = STABLE_DIFFUSION_BETAS) -> DDIMScheduler:
    """Deterministic DDIM (Song et al., 2021, eq. 12), with the paper's timestep spacing."""
    return DDIMScheduler.from_config({**config, **PAPER_SPACING})


def spaced(
    ddim: DDIMScheduler, steps_offset: int | None = None, trailing: bool = False
) -> DDIMScheduler:
    """`ddim` with another offset of its timesteps, or with trailing spacing as Turbo models need it.

    With trailing spacing, the last step leaves no noise.
    """
    changes: dict[str, Any] = {} if steps_offset is None else {"steps_offset": steps_offset}
    if trailing:
        changes |= {"timestep_spacing": "trailing", "set_alpha_to_one": True}
    if all(ddim.config[key] == value for key, value in changes.items()):
        return ddim
    return DDIMScheduler.from_config({**ddim.config, **changes})


def inverse_of(scheduler: DDIMScheduler, steps: int) -> DDIMInverseScheduler:
    """DDIM inversion with the settings of `scheduler`, in `steps` steps.

    x_next = sqrt(a_next) (x - sqrt(1 - a) e) / sqrt(a) + sqrt(1 - a_next) e
    """
    config = {key: value for key, value in scheduler.config.items() if key not in THRESHOLDING}
    inverse = DDIMInverseScheduler.from_config(config)
    inverse.set_timesteps(steps)
    return inverse


def timesteps_from(scheduler: DDIMScheduler, steps: int, strength: float) -> Tensor:
    """The timesteps that are run, noisiest first: the last `steps` * `strength` of all."""
    scheduler.set_timesteps(steps)
    return scheduler.timesteps[steps - effective_steps(steps, strength) :]


def solver_from(
    name: SchedulerName,
    ddim: DDIMScheduler,
    steps: int,
    strength: float,
    solver_steps: int | None = None,
) -> tuple[SchedulerMixin, Tensor]:
    """The solver `name`, ready to step, and the timesteps that it runs, noisiest first.

    Every solver starts at the noise level of `ddim`, and takes `solver_steps` from there, by default as
    many as `ddim`. dpm++: DPM-Solver++ 2M (Lu et al., 2022); unipc: UniPC (Zhao et al., 2023);
    lcm: latent consistency models (Luo et al., 2023), which start at the next noisier timestep that
    they were distilled on. sde-dpm++: DPM-Solver++ 2M with the noise of noise maps.

    Raises:
        UsageError: more steps than an LCM was distilled on at this strength, or a start without any
            signal for a model that predicts noise.
    """
    solver, timesteps = _solver_from(name, ddim, steps, strength, solver_steps)
    if ddim.config.prediction_type == "epsilon" and ddim.alphas_cumprod[timesteps[0]] == 0:
        raise UsageError(
            f"at timestep {timesteps[0]} this zero-SNR model has no signal left, so predicting noise "
            "(prediction_type: epsilon) cannot recover the picture; set prediction_type: v_prediction, "
            "or zero_snr: false"
        )
    return solver, timesteps


def _solver_from(
    name: SchedulerName, ddim: DDIMScheduler, steps: int, strength: float, solver_steps: int | None
) -> tuple[SchedulerMixin, Tensor]:
    timesteps = timesteps_from(ddim, steps, strength)
    if name == "ddim":
        return ddim, timesteps
    if name == "lcm":
        return _consistency(ddim, solver_steps or len(timesteps), strength)
    if name == "sde-dpm++":
        return _stochastic(ddim, steps, len(timesteps))
    start = int(timesteps[0])
    kind = DPMSolverMultistepScheduler if name == "dpm++" else UniPC
    return _cut_off(kind, ddim, start, solver_steps or len(timesteps))


def _cut_off(
    kind: type[SchedulerMixin], ddim: DDIMScheduler, start: int, steps: int
) -> tuple[SchedulerMixin, Tensor]:
    """A solver on the part of the schedule below `start`, where SDEdit starts.

    It spaces its steps over that part, and begins without a history of earlier steps. The betas come
    from `ddim`, already rescaled for zero-SNR models (Lin et al., 2024).
    """
    solver = kind(
        trained_betas=ddim.betas[: start + 1].tolist(),
        num_train_timesteps=start + 1,
        timestep_spacing="linspace",
        **{key: ddim.config[key] for key in PREDICTION},
    )
    # diffusers' own value for no signal, which keeps sigma finite
    solver.alphas_cumprod[solver.alphas_cumprod == 0] = 2**-24
    solver.set_timesteps(steps)
    solver.set_begin_index(0)
    return solver, solver.timesteps


def _stochastic(ddim: DDIMScheduler, steps: int, taken: int) -> tuple[SchedulerMixin, Tensor]:
    """DPM-Solver++ 2M with noise, spaced as in diffusers' LEDITS++ pipeline: the last `taken` steps."""
    solver = DPMSolverMultistepScheduler.from_config(
        ddim.config, algorithm_type="sde-dpmsolver++", solver_order=2, timestep_spacing="leading"
    )
    solver.set_timesteps(steps)
    return solver, solver.timesteps[-taken:]


def _consistency(ddim: DDIMScheduler, steps: int, strength: float) -> tuple[SchedulerMixin, Tensor]:
    solver = LCMScheduler.from_config(ddim.config)
    most = effective_steps(solver.config.original_inference_steps, strength)
    if steps > most:
        raise UsageError(
            f"lcm takes at most {most} steps at strength {strength:g}, not {steps}; take fewer steps"
        )
    solver.set_timesteps(steps, strength=strength)
    return solver, solver.timesteps


def add_noise(scheduler: SchedulerMixin, x0: Tensor, noise: Tensor, t: int) -> Tensor:
    """sqrt(a_t) x0 + sqrt(1 - a_t) noise, with both roots computed on the CPU.

    Diffusers moves its schedule to the device of `x0` and leaves it there, where roots are rounded
    differently: a picture would depend on which recipes ran before.
    """
    at, one, none = tensor([t]), ones(1), zeros(1)
    signal, deviation = scheduler.add_noise(one, none, at)[0], scheduler.add_noise(none, one, at)[0]
    return signal * x0 + deviation * noise


def step_on(
    scheduler: SchedulerMixin,
    prediction: Tensor,
    t: int,
    latents: Tensor,
    generators: Sequence[Generator],
    maps: Mapping[int, Tensor] = MappingProxyType({}),
) -> Tensor:
    """`latents` one step after `t`; noise that the solver draws comes from each picture's generator.

    With `maps`, by timestep, the noise of the step is its map, or none if the step has no map.
    """
    if maps:
        mean = mean_step(scheduler, prediction, t, latents, eta=1.0)
        return mean + maps[t] if t in maps else mean
    drawing = {"generator": list(generators)} if isinstance(scheduler, LCMScheduler) else {}
    return scheduler.step(prediction, t, latents, **drawing).prev_sample


def mean_step(
    scheduler: SchedulerMixin, prediction: Tensor, t: int, latents: Tensor, eta: float
) -> Tensor:
    """`latents` one step after `t`, without the noise that is drawn for the step.

    DDIM draws by `eta`: none at 0, as much as DDPM at 1. The stochastic DPM-Solver++ draws as much as
    it can; other solvers draw none.
    """
    options: dict[str, Any] = {}
    if isinstance(scheduler, DDIMScheduler) and eta:
        options = {"eta": eta, "variance_noise": zeros_like(latents)}
    elif isinstance(scheduler, DPMSolverMultistepScheduler):
        options = {"variance_noise": zeros_like(latents)}
    return scheduler.step(prediction, t, latents, **options).prev_sample


def alpha_of(scheduler: SchedulerMixin, t: int) -> Tensor:
    """a_t, the share of signal in the variance of the latents at `t`."""
    return scheduler.alphas_cumprod[t]


def variance_of(a: Tensor, a_then: Tensor) -> Tensor:
    """The variance of the noise that DDPM draws from a_t to the next a (Song et al., 2021, eq. 16)."""
    return (1 - a_then) / (1 - a) * (1 - a / a_then)


def clean_from(scheduler: SchedulerMixin, prediction: Tensor, t: int, latents: Tensor) -> Tensor:
    """The clean latents that a prediction at `t` implies (Song et al., 2021, eq. 12)."""
    a = alpha_of(scheduler, t)
    match scheduler.config.prediction_type:
        case "sample":
            return prediction
        case "v_prediction":
            return a**0.5 * latents - (1 - a) ** 0.5 * prediction
        case _:
            return (latents - (1 - a) ** 0.5 * prediction) / a**0.5
