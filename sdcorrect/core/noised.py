"""A source that is noised anew beside the target at each step, with no inversion before.

    x_s = sqrt(a) x0 + sqrt(1 - a) noise
    x'  = x_s' + step(x, e(x)) - step(x_s, e(x_s))

is what InfEdit (Xu et al., CVPR 2024), CycleDiffusion (Wu and De la Torre, ICCV 2023) and FlowEdit
(Kulikov et al., ICCV 2025; its form for a model that predicts noise) have in common: the target moves by
what it would step on, less what the source would. They differ in `step` and in the noise of x_s'.
Where target and source are told the same, the target is the source at each step, and x0 at the end.
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
    """The source's latents at the step in hand, and the way from there to the next."""

    x0: Tensor
    latents: Tensor  #: at the step in hand
    scheduler: SchedulerMixin
    noising: Noising
    generators: Sequence[Generator]
    _own: SchedulerMixin = field(init=False)  #: the source's, for solvers that remember steps

    def __post_init__(self) -> None:
        self._own = deepcopy(self.scheduler)

    def step(
        self, predictions: Mapping[Whose, Tensor], t: int, then: int | None, target: Tensor
    ) -> Tensor:
        """The target's latents at `then`, the next timestep, where the source's are from then on.

        Behind the last step, where `then` is None, they are clean.
        """
        own = self._mean(self._own, predictions["source"], t, then, self.latents)
        edited = self._mean(self.scheduler, predictions["target"], t, then, target)
        self.latents = self.x0 if then is None else self._noised(t, then)
        return self.latents + (edited - own)

    def _mean(
        self, scheduler: SchedulerMixin, prediction: Tensor, t: int, then: int | None, latents: Tensor
    ) -> Tensor:
        """What `latents` come to without noise."""
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
    """Noise for each picture of `latents` from its own generator, which is on the CPU."""
    drawn = torch.cat([torch.randn(latents[:1].shape, generator=g) for g in generators])
    return drawn.to(latents.device)
