"""The method, top to bottom (Yuan et al., IEEE/CAA JAS 2025), and those it is compared with.

    timesteps = timesteps_from(scheduler, steps, strength)
    source = invert(unet, scheduler, x0, null, plan, timesteps)     # what the U-Net sees un-noised
    latents = start(scheduler, x0, noise, source, plan, timesteps)  # SDEdit noises the latents ...
    latents = denoise(unet, scheduler, latents, timesteps, ...)     # ... and the source is put back

Latents are (batch, 4, height, width) in float32; the U-Net computes in its own precision. Timesteps
run from the noisiest down.
"""

from collections.abc import Mapping, MutableMapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from itertools import groupby

import torch
from diffusers import DDIMScheduler, SchedulerMixin, UNet2DConditionModel
from torch import Generator, Tensor

from sdcorrect.core.alignment import Alignment
from sdcorrect.core.branches import Branches, Whose, guide
from sdcorrect.core.capture import AllCaptured, Captured, capture
from sdcorrect.core.control import Control
from sdcorrect.core.devices import send
from sdcorrect.core.inject import inject
from sdcorrect.core.masks import Mask
from sdcorrect.core.plan import Injection, Plan, in_window
from sdcorrect.core.reuse import reusing
from sdcorrect.core.schedule import add_noise, inverse_of, step_on
from sdcorrect.core.text import Text
from sdcorrect.errors import UsageError


@dataclass(frozen=True)
class Source:
    """What is known of the pictures before anything is noised."""

    text: Text  # what they were inverted under
    captured: Captured | None = None
    trajectory: Mapping[int, Tensor] = field(default_factory=dict)  # timestep -> latents


def invert(
    unet: UNet2DConditionModel,
    scheduler: DDIMScheduler,
    x0: Tensor,
    null: Text,
    plan: Plan,
    timesteps: Tensor,
    *,
    prompt: Text | None = None,
    trajectory: MutableMapping[int, Tensor] | None = None,
) -> Source:
    """Find the source of `x0` that `plan` needs, under the empty prompt `null`.

    A full inversion is under `prompt` where that is given, and keeps its latents in `trajectory`.

    Raises:
        UsageError: a block that the U-Net lacks, or an inversion that misses a sampling timestep.
    """
    text = null if prompt is None else prompt
    match plan.inversion:
        case "one-step":
            return Source(null, captured=invert_one_step(unet, clean(scheduler, x0, plan), null, plan))
        case "full":
            kept = {} if trajectory is None else trajectory
            invert_fully(unet, scheduler, x0, null, text, plan, timesteps, kept)
            return Source(text, trajectory=kept)
        case "none":
            return Source(null)


def clean(scheduler: DDIMScheduler, x0: Tensor, plan: Plan) -> Tensor:
    """What the one evaluation reads: x0, as in the paper, or sqrt(a_t) x0, where its input is scaled."""
    return x0 * scheduler.alphas_cumprod[plan.timestep].sqrt() if plan.scale_input else x0


def invert_one_step(unet: UNet2DConditionModel, x0: Tensor, null: Text, plan: Plan) -> Captured:
    """`A_k` and `S_k` of one evaluation on the clean latents, at the plan's timestep (the paper's: 1).

    Its noise prediction is not used, so it ends where the last of them is known.
    """
    with capture(unet, plan.injections, then_stop=True) as captured, suppress(AllCaptured):
        evaluate_unet(unet, [x0], torch.full((), plan.timestep, device=x0.device), [null])
    return captured


def invert_fully(
    unet: UNet2DConditionModel,
    scheduler: DDIMScheduler,
    x0: Tensor,
    null: Text,
    text: Text,
    plan: Plan,
    keep: Tensor,
    trajectory: MutableMapping[int, Tensor],
) -> None:
    """DDIM inversion under `text`; the latents at the timesteps to `keep` go to `trajectory`.

    Guidance, where the plan has it, is away from `null`.

    Raises:
        UsageError: a timestep to keep lies on none of the steps.
    """
    inverse = inverse_of(scheduler, plan.inversion_steps or scheduler.num_inference_steps)
    check_passes(inverse.timesteps, keep)
    guided = plan.inversion_guidance != 1
    latents, kept = x0, set(keep.tolist())
    # numbers for what the host computes, tensors for the U-Net, which would copy each number there
    for t, there in zip(inverse.timesteps.tolist(), send(inverse.timesteps, x0.device), strict=True):
        rows, texts = ([latents] * 2, [null, text]) if guided else ([latents], [text])
        *without, towards = evaluate_unet(unet, rows, there, texts)
        prediction = guide(without[-1], towards, plan.inversion_guidance) if guided else towards
        latents = inverse.step(prediction, t, latents).prev_sample
        if t in kept:
            trajectory[t] = latents


def check_passes(visited: Tensor, needed: Tensor) -> None:
    """Refuse an inversion over the timesteps `visited` that passes by one of those `needed`.

    Raises:
        UsageError: it does.
    """
    missed = sorted(set(needed.tolist()) - set(visited.tolist()))
    if missed:
        raise UsageError(
            f"an inversion of {len(visited)} steps passes no timestep {missed[0]}, which sampling "
            f"needs; invert with as many steps as sampling has, or with 999"
        )


def start(
    scheduler: SchedulerMixin,
    x0: Tensor,
    noise: Tensor,
    source: Source,
    plan: Plan,
    timesteps: Tensor,
) -> Tensor:
    """The latents that denoising starts from.

    From noise, SDEdit (Meng et al., ICLR 2022): x = sqrt(a_t) x0 + sqrt(1 - a_t) noise at the first
    timestep; or the inverted latents of that timestep.
    """
    if plan.start == "inverted":
        return source.trajectory[int(timesteps[0])]
    return add_noise(scheduler, x0, noise, int(timesteps[0]))


def denoise(
    unet: UNet2DConditionModel,
    scheduler: SchedulerMixin,
    latents: Tensor,
    timesteps: Tensor,
    *,
    cond: Text,
    uncond: Text,
    guidance_scale: float,
    source: Source,
    plan: Plan,
    alignment: Alignment | None = None,
    control: Control | None = None,
    mask: Mask | None = None,
    generators: Sequence[Generator] = (),
) -> Tensor:
    """Denoise with classifier-free guidance, the source's tensors put back in both branches.

    At every step the U-Net is evaluated once, on the rows of all branches (see Branches): [uncond,
    cond]; where the source is not captured but runs along, on [source, uncond, cond]; where it is
    sampled beside the target, on [source uncond, uncond, source cond, cond]. Without guidance, which is
    a scale of up to 1, there are no unconditional rows. `control` adds its residuals in all of them but
    an inverted source's. Outside of `mask` the target stays the source. Solvers that draw noise as they
    go take each picture's from its own of `generators`.
    """
    total, taken = len(timesteps), timesteps.tolist()
    there = send(timesteps, latents.device)
    stepped: tuple[Whose, ...] = ("source", "target") if plan.beside == "sampled" else ("target",)
    known = dict.fromkeys(stepped, latents)

    def at(step: int) -> tuple[tuple[Injection, ...], bool]:
        injections = tuple(i for i in plan.injections if i.active(step, taken))
        guided = guidance_scale > 1 and in_window(step, total, plan.guidance_window)
        return injections, guided

    for (injections, guided), steps in groupby(range(total), key=at):
        branches = Branches.of(plan.beside, guided=guided)
        texts = branches.texts(source.text, uncond, cond)
        with (
            inject(
                unet,
                injections,
                captured=source.captured,
                branches=branches,
                alignment=alignment,
                control=control,
            ),
            reusing(unet, plan.reuse.every) if plan.reuse else nullcontext(),
        ):
            for step in steps:
                t = taken[step]
                if plan.beside == "inverted":
                    known["source"] = source.trajectory[t]
                rows = branches.latents(known)
                predictions = evaluate_unet(unet, rows, there[step], texts, control, branches)
                guided_by = branches.guide(predictions, guidance_scale)
                for whose in stepped:
                    known[whose] = step_on(scheduler, guided_by[whose], t, known[whose], generators)
                if mask:
                    known["target"] = mask.blend(known["target"], timesteps[step + 1 :])
    return known["target"]


def evaluate_unet(
    unet: UNet2DConditionModel,
    rows: list[Tensor],
    t: Tensor,
    texts: list[Text],
    control: Control | None = None,
    branches: Branches | None = None,
) -> Sequence[Tensor]:
    """The U-Net's prediction for each of `rows` under its text, in one call, in float32.

    With the residuals of `control` in those of `branches` that it acts on.
    """
    # not unet.dtype, which walks through all parameters to tell
    latents, text = torch.cat(rows).to(unet.conv_in.weight.dtype), Text.cat(texts)
    residuals = {}
    if control and branches:
        free, unprompted = (len(rows[0]) * n for n in (branches.uncontrolled, branches.unprompted))
        residuals = control.evaluate(latents, t, text, free, unprompted)
    prediction = unet(latents, t, **text.arguments, **residuals).sample.float()
    return torch.split(prediction, [len(row) for row in rows])
