"""A source that is noised anew at each step, beside the target, without an inversion.

    x_s = sqrt(a) x0 + sqrt(1 - a) noise
    x'  = x_s' + step(x, e(x)) - step(x_s, e(x_s))

is what InfEdit (Xu et al., CVPR 2024), CycleDiffusion (Wu and De la Torre, ICCV 2023) and FlowEdit
(Kulikov et al., ICCV 2025; its form for a model that predicts noise) have in common: the target moves by
the difference between its own step and the source's. They differ in `step` and in the noise of x_s'.
If target and source have the same prompt, the target equals the source at each step, and x0 at the end.
"""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field

import torch
from diffusers import LCMScheduler, SchedulerMixin
from torch import Generator, Tensor

from sdcorrect.core.branches import Whose
from sdcorrect.core.plan import Noising
from sdcorrect.core.schedule import add_noise, alpha_of, clean_from, mean_step, variance_of


@dataclass
class NoisedSource:
    """The source's latents at the current step, and how to get from there to the next."""

    x0: Tensor
    latents: Tensor  #: at the current step
    scheduler: SchedulerMixin
    noising: Noising
    generators: Sequence[Generator]
    _own: SchedulerMixin = field(
        init=False
    )  #: the source's own copy, for solvers that remember earlier steps

    def __post_init__(self) -> None:
        self._own = deepcopy(self.scheduler)

    def step(
        self, predictions: Mapping[Whose, Tensor], t: int, then: int | None, target: Tensor
    ) -> Tensor:
        """Step the source to the next timestep, `then`, and return the target's latents there.

        After the last step, `then` is None and both are clean.
        """
        own = self._mean(self._own, predictions["source"], t, then, self.latents)
        edited = self._mean(self.scheduler, predictions["target"], t, then, target)
        self.latents = self.x0 if then is None else self._noised(t, then)
        return self.latents + (edited - own)

    def _mean(
        self, scheduler: SchedulerMixin, prediction: Tensor, t: int, then: int | None, latents: Tensor
    ) -> Tensor:
        """The next latents, without the noise that is drawn for the step."""
        if self.noising.to_clean or isinstance(scheduler, LCMScheduler):
            clean = clean_from(scheduler, prediction, t, latents)
            return clean if then is None else alpha_of(scheduler, then) ** 0.5 * clean
        return mean_step(scheduler, prediction, t, latents, self.noising.eta)

    def _noised(self, t: int, then: int) -> Tensor:
        """The source's latents at `then`."""
        drawn = draw_like(self.x0, self.generators)
        if self.noising.noise == "anew":
            return add_noise(self.scheduler, self.x0, drawn, then)
        a, a_then = alpha_of(self.scheduler, t), alpha_of(self.scheduler, then)
        noise = (self.latents - a**0.5 * self.x0) / (1 - a) ** 0.5
        variance = self.noising.eta**2 * variance_of(a, a_then)
        latents: Tensor = a_then**0.5 * self.x0 + (1 - a_then - variance) ** 0.5 * noise
        return latents + variance**0.5 * drawn


def draw_like(latents: Tensor, generators: Sequence[Generator]) -> Tensor:
    """Noise in the shape of `latents`, for each picture from its own CPU generator."""
    drawn = torch.cat([torch.randn(latents[:1].shape, generator=g) for g in generators])
    return drawn.to(latents.device)
