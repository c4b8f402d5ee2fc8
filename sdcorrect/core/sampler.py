"""The method, top to bottom (Yuan et al., IEEE/CAA JAS 2025), and the methods it is compared with.

    timesteps = timesteps_from(scheduler, steps, strength)
    source = invert(unet, scheduler, x0, null, plan, timesteps)     # capture the clean picture
    latents = start(scheduler, x0, noise, source, plan, timesteps)  # add noise, as SDEdit does
    latents = denoise(unet, scheduler, latents, timesteps, ...)     # denoise, and put the source back

Latents are (batch, 4, height, width) in float32; the U-Net computes in its own precision. Timesteps
run from the noisiest down.
"""

from collections.abc import Callable, Mapping, MutableMapping, Sequence
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
from sdcorrect.core.edit_friendly import find_maps
from sdcorrect.core.inject import inject
from sdcorrect.core.masks import Mask
from sdcorrect.core.noised import NoisedSource
from sdcorrect.core.plan import Injection, Plan, in_window
from sdcorrect.core.reuse import convolving_once, reading_text_once, reusing
from sdcorrect.core.schedule import add_noise, inverse_of, step_on
from sdcorrect.core.text import Text
from sdcorrect.errors import UsageError


@dataclass(frozen=True)
class Source:
    """The inverted source of a batch: captured tensors, or latents for a branch of its own."""

    text: Text  # the prompt of the source's branch
    captured: Captured | None = None
    trajectory: Mapping[int, Tensor] = field(default_factory=dict)  # timestep -> latents
    maps: Mapping[int, Tensor] = field(default_factory=dict)  # timestep -> noise map added to the step
    x0: Tensor | None = None  # the clean latents


def invert(
    unet: UNet2DConditionModel,
    scheduler: SchedulerMixin,
    x0: Tensor,
    null: Text,
    plan: Plan,
    timesteps: Tensor,
    *,
    prompt: Text | None = None,
    keep: Callable[[], MutableMapping[int, Tensor]] = dict,
    generators: Sequence[Generator] = (),
) -> Source:
    """Invert the clean latents `x0` as `plan` needs it, under the empty prompt `null`.

    An inversion over many steps uses `prompt` if given, and stores its latents in what `keep` returns.
    `scheduler` is DDIM, except for noise maps, which take the solver of denoising and draw from the
    `generators`, one per picture.

    Raises:
        UsageError: the U-Net lacks a block, or the inversion misses a sampling timestep.
    """
    text = null if prompt is None else prompt
    match plan.inversion:
        case "one-step":
            return Source(null, captured=invert_one_step(unet, clean(scheduler, x0, plan), null, plan))
        case "full":
            trajectory = keep()
            predict = predictor(unet, null, text, plan.inversion_guidance)
            with reading_text_once(unet):
                invert_fully(predict, scheduler, x0, plan, timesteps, trajectory)
            return Source(text, trajectory=trajectory, x0=x0)
        case "ddpm":
            assert plan.maps, "inversion: ddpm needs maps"
            trajectory, maps = keep(), keep()
            predict = predictor(unet, null, text, plan.inversion_guidance)
            with reading_text_once(unet):
                find_maps(predict, scheduler, x0, timesteps, plan.maps, generators, trajectory, maps)
            return Source(text, trajectory=trajectory, maps=maps)
        case "none":
            return Source(text, x0=x0)


def clean(scheduler: SchedulerMixin, x0: Tensor, plan: Plan) -> Tensor:
    """The input of the one-step inversion: x0, as in the paper, or with `scale_input`, sqrt(a_t) x0."""
    return x0 * scheduler.alphas_cumprod[plan.timestep].sqrt() if plan.scale_input else x0


def invert_one_step(unet: UNet2DConditionModel, x0: Tensor, null: Text, plan: Plan) -> Captured:
    """`A_k` and `S_k` of one evaluation on the clean latents, at the plan's timestep (1 in the paper).

    The noise prediction is not used, so the evaluation ends once the last tensor is captured.
    """
    with capture(unet, plan.injections, then_stop=True) as captured, suppress(AllCaptured):
        evaluate_unet(unet, [x0], torch.full((), plan.timestep, device=x0.device), null)
    return captured


def predictor(
    unet: UNet2DConditionModel, null: Text, text: Text, guidance_scale: float
) -> Callable[[Tensor, Tensor], Tensor]:
    """A function (latents, timestep) -> prediction under `text`, with guidance away from `null`."""

    both = Text.cat([null, text])

    def predict(latents: Tensor, t: Tensor) -> Tensor:
        if guidance_scale == 1:
            (towards,) = evaluate_unet(unet, [latents], t, text)
            return towards
        without, towards = evaluate_unet(unet, [latents] * 2, t, both)
        return guide(without, towards, guidance_scale)

    return predict


def invert_fully(
    predict: Callable[[Tensor, Tensor], Tensor],
    scheduler: DDIMScheduler,
    x0: Tensor,
    plan: Plan,
    keep: Tensor,
    trajectory: MutableMapping[int, Tensor],
) -> None:
    """DDIM inversion with `predict`; stores the latents at the timesteps to `keep` in `trajectory`.

    A step needs the prediction at the latents it leads to, and uses that at the latents before it
    instead; iterations converge to the fixed point (AIDI, Pan et al., ICCV 2023; ReNoise, Garibi et al.,
    ECCV 2024, which averages predictions).

    Raises:
        UsageError: the inversion passes no timestep that is to be kept.
    """
    inverse = inverse_of(scheduler, plan.inversion_steps or scheduler.num_inference_steps)
    check_passes(inverse.timesteps, keep)
    latents, kept = x0, set(keep.tolist())
    # plain numbers for the host, and tensors for the U-Net, which would copy each number to the device
    for t, there in zip(inverse.timesteps.tolist(), send(inverse.timesteps, x0.device), strict=True):
        before, predictions = latents, []
        for _ in range(plan.inversion_iterations):
            predictions.append(predict(latents, there))
            latents = inverse.step(predictions[-1], t, before).prev_sample
        if plan.inversion_average:
            mean = torch.stack(predictions[slice(*plan.inversion_average)]).mean(dim=0)
            latents = inverse.step(mean, t, before).prev_sample
        if t in kept:
            trajectory[t] = latents


def check_passes(visited: Tensor, needed: Tensor) -> None:
    """Check that an inversion over the timesteps `visited` passes all those `needed`.

    Raises:
        UsageError: it misses one.
    """
    missed = sorted(set(needed.tolist()) - set(visited.tolist()))
    if missed:
        raise UsageError(
            f"an inversion of {len(visited)} steps misses timestep {missed[0]}, which sampling "
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

    Either noised latents as in SDEdit (Meng et al., ICLR 2022), x = sqrt(a_t) x0 + sqrt(1 - a_t) noise
    at the first timestep, or the inverted latents of that timestep.
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
    null: Text | None = None,
    alignment: Alignment | None = None,
    control: Control | None = None,
    mask: Mask | None = None,
    generators: Sequence[Generator] = (),
) -> Tensor:
    """Denoise with classifier-free guidance, with the source's tensors put back in both branches.

    Each step is one U-Net call on the rows of all branches (see Branches): [uncond, cond] for a captured
    source, [source, uncond, cond] for an inverted one, and [source uncond, uncond, source cond, cond]
    for one that is sampled beside the target. Without guidance (a scale of 1 or less) there are no
    unconditional rows; a source with its own guidance uses the empty prompt `null` for its own.
    `control` adds its residuals to all rows except those of an inverted source. Outside `mask`, the
    target follows the source. Noise that is drawn on the way comes from `generators`, one per picture.
    """
    total, taken = len(timesteps), timesteps.tolist()
    there = send(timesteps, latents.device)
    stepped: tuple[Whose, ...] = ("source", "target") if plan.beside == "sampled" else ("target",)
    known = dict.fromkeys(stepped, latents)
    captured = source.captured if plan.skips_once and not control else None
    noised = None
    if plan.noised and source.x0 is not None:
        noised = NoisedSource(source.x0, latents, scheduler, plan.noised, generators)

    def at(step: int) -> tuple[tuple[Injection, ...], bool]:
        injections = tuple(i for i in plan.injections if i.active(step, taken))
        guided = guidance_scale > 1 and in_window(step, total, plan.guidance_window)
        return injections, guided

    for (injections, guided), steps in groupby(range(total), key=at):
        branches = Branches.of_plan(plan, guided=guided)
        text = Text.cat(branches.texts(null, source.text, uncond, cond))
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
            reading_text_once(unet),
            convolving_once(unet, injections, captured) if captured else nullcontext(),
        ):
            for step in steps:
                t, then = taken[step], taken[step + 1] if step + 1 < total else None
                if plan.beside == "inverted":
                    known["source"] = source.trajectory[t]
                elif noised:
                    known["source"] = noised.latents
                rows = branches.latents(known)
                guided_by = branches.guide(
                    evaluate_unet(unet, rows, there[step], text, control, branches),
                    guidance_scale,
                    source_scale=plan.source_guidance,
                    threshold=plan.guidance_threshold,
                )
                if noised:
                    known["target"] = noised.step(guided_by, t, then, known["target"])
                else:
                    for whose in stepped:
                        known[whose] = step_on(
                            scheduler, guided_by[whose], t, known[whose], generators, source.maps
                        )
                if plan.source == "corrected" and source.x0 is not None:
                    inverted = source.x0 if then is None else source.trajectory[then]
                    deviation = inverted - known["source"]
                    known = {whose: latents + deviation for whose, latents in known.items()}
                if mask:
                    beside = noised.latents if noised else mask.source(timesteps[step + 1 :])
                    known["target"] = mask.blend(known["target"], beside)
    return known["target"]


def evaluate_unet(
    unet: UNet2DConditionModel,
    rows: list[Tensor],
    t: Tensor,
    text: Text,
    control: Control | None = None,
    branches: Branches | None = None,
) -> Sequence[Tensor]:
    """The U-Net's prediction for each of `rows` under its part of `text`, in one call, in float32.

    `control` adds its residuals to those of `branches` that it acts on.
    """
    # not unet.dtype, which walks through all parameters to tell
    latents = torch.cat(rows).to(unet.conv_in.weight.dtype)
    residuals = {}
    if control and branches:
        free, unprompted = (len(rows[0]) * n for n in (branches.uncontrolled, branches.unprompted))
        residuals = control.evaluate(latents, t, text, free, unprompted)
    prediction = unet(latents, t, **text.arguments, **residuals).sample.float()
    return torch.split(prediction, [len(row) for row in rows])
