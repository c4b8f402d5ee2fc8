"""Edit-friendly DDPM inversion: noise maps of a source (Huberman-Spiegelglas et al., CVPR 2024).

The source is noised independently for each timestep. The noise map of a step is the difference between
the source's next latents and the mean that the U-Net predicts for them:

    x_t = sqrt(a_t) x0 + sqrt(1 - a_t) noise_t,    map_t = x_(t-1) - mean(x_t, e(x_t))

The map is sigma_t z_t of the paper; it is not divided by sigma_t, which may be 0. LEDITS++ (Brack et
al., CVPR 2024) does the same with the stochastic DPM-Solver++ 2M, TurboEdit (Deutch et al., SIGGRAPH
Asia 2024) with the noise of a later step.
"""

from collections.abc import Callable, MutableMapping, Sequence

from diffusers import SchedulerMixin
from torch import Generator, Tensor

from sdcorrect.core.devices import send
from sdcorrect.core.noised import draw_like
from sdcorrect.core.plan import Maps
from sdcorrect.core.schedule import add_noise, mean_step


def find_maps(
    predict: Callable[[Tensor, Tensor], Tensor],
    scheduler: SchedulerMixin,
    x0: Tensor,
    timesteps: Tensor,
    plan: Maps,
    generators: Sequence[Generator],
    trajectory: MutableMapping[int, Tensor],
    maps: MutableMapping[int, Tensor],
) -> None:
    """Put the source's latents at each of `timesteps` into `trajectory`, and the noise maps into `maps`.

    `predict` gives the guided prediction for latents at a timestep. Noise is drawn for the cleanest
    timestep first, as in the authors' code.
    """
    taken = timesteps.tolist()
    for t in reversed(taken):
        trajectory[t] = _noised(scheduler, x0, t - plan.shift * _spacing(taken), plan, generators)
    following = [*taken[1:], None]
    for t, then, there in zip(taken, following, send(timesteps, x0.device), strict=True):
        latents = trajectory[t]
        mean = mean_step(scheduler, predict(latents, there), t, latents, eta=1.0)
        if then is not None:
            maps[t] = trajectory[then] - mean
        elif plan.last:
            maps[t] = _limited(x0 - mean, plan.last_norm)


def _spacing(timesteps: Sequence[int]) -> int:
    return timesteps[0] - timesteps[1] if len(timesteps) > 1 else 0


def _noised(
    scheduler: SchedulerMixin, x0: Tensor, t: int, plan: Maps, generators: Sequence[Generator]
) -> Tensor:
    """x0 noised for `t`; clean if a shift leads beyond the last step."""
    if t <= 0 < plan.shift:
        return x0
    return add_noise(scheduler, x0, draw_like(x0, generators), t)


def _limited(noise_map: Tensor, most: float | None) -> Tensor:
    """`noise_map`, scaled down for each picture whose norm is above `most`."""
    if most is None:
        return noise_map
    norm = noise_map.flatten(1).norm(dim=1)[:, None, None, None]
    return noise_map * (most / norm).clamp(max=1)
