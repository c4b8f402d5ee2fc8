"""Compare one picture in three conditions: the clean inversion, SDEdit, and the correction."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from PIL import Image

from sdcorrect.core.capture import capture
from sdcorrect.core.observe import Observation, observe
from sdcorrect.core.plan import Block, TensorName
from sdcorrect.core.sampler import Source, clean, denoise, start
from sdcorrect.dissect.maps import Atlas, Maps
from sdcorrect.dissect.measure import COMPARED, discrepancies
from sdcorrect.errors import PictureError, UsageError
from sdcorrect.translate import Request, Translator
from sdcorrect.translate.method import Method

#: What is compared with the inversion; SDEdit is the recipe without anything put back.
Condition = Literal["sdedit", "correction"]
CONDITIONS: tuple[Condition, ...] = ("sdedit", "correction")

#: tensor -> block -> one score per timestep
Scores = dict[TensorName, dict[Block, list[float]]]


@dataclass
class Drawn:
    """What to draw (timesteps, and the point whose attention is shown), and the maps drawn."""

    timesteps: Collection[int]
    point: tuple[float, float]  #: x and y as fractions of the picture
    inversion: dict[Block, Maps] = field(default_factory=dict)
    maps: dict[tuple[Condition, int], dict[Block, Maps]] = field(default_factory=dict)


@dataclass
class Dissection:
    """The results of dissecting one picture."""

    timesteps: list[int]  #: noisiest first
    source: Image.Image
    results: dict[Condition, Image.Image]
    scores: dict[Condition, Scores]
    grids: dict[Block, tuple[int, int]]  #: height and width of each block's tokens
    drawn: Drawn | None = None


def dissectable(translator: Translator) -> Method:
    """The translator's first method, checked that it can be dissected.

    Raises:
        UsageError: it has no one-step inversion to compare with, or skips blocks at some steps.
    """
    method = next(iter(translator.methods.values()))
    name = method.recipe.name
    if method.plan.inversion != "one-step":
        raise UsageError(
            f"recipe {name} has no one-step inversion to compare with; choose a recipe that has, "
            "such as correct"
        )
    if method.plan.reuse:
        raise UsageError(
            f"recipe {name} computes its blocks only every {method.plan.reuse.every} steps "
            "(reuse_every); remove that to dissect it"
        )
    return method


@torch.inference_mode()
def dissect(
    translator: Translator, asked: Request, blocks: Collection[Block], drawn: Drawn | None = None
) -> Dissection:
    """Run the translator's first method on one picture, with and without putting tensors back.

    At every step, discrepancies compare the branch of the prompt with what the same U-Net computes on
    the clean latents, at the method's timestep and under the empty prompt.

    Raises:
        UsageError: the method cannot be dissected.
        PictureError: a tensor or a result is not finite.
    """
    model, method = translator.model, dissectable(translator)
    unet, plan, size = model.pipe.unet, method.plan, asked.image.size
    negative = method.negative_prompt_for(asked.negative_prompt)
    chunks = model.count_chunks(asked.prompt, negative)
    null, uncond = (model.text([text], size, chunks=chunks) for text in ("", negative))
    cond = model.text([asked.prompt], size, chunks=chunks, guidance_scale=method.guidance_scale)
    seeds = [asked.seed_by(method.seed)]
    posterior, noise = model.noise(seeds, size)
    x0 = model.encode([asked.image], posterior * (method.recipe.posterior == "sample"))
    control = model.control([asked.hints] if asked.hints else [])

    seen: list[Observation] = []
    with observe(unet, blocks, seen.append), capture(unet, plan.injections) as captured:
        unet(clean(model.scheduler, x0, plan).to(unet.dtype), plan.timestep, **null.arguments)
    (inversion,) = seen
    atlas = Atlas(drawn.point) if drawn else None
    if drawn and atlas:
        drawn.inversion = atlas.draw(inversion)

    dissection = Dissection(
        [],
        asked.image,
        {},
        {c: {tensor: {b: [] for b in blocks} for tensor in COMPARED} for c in CONDITIONS},
        {block: (skip.shape[-2], skip.shape[-1]) for block, skip in inversion.skip.items()},
        drawn,
    )
    for condition in CONDITIONS:
        corrected = condition == "correction"

        def look(observation: Observation, condition: Condition = condition) -> None:
            _note(dissection.scores[condition], discrepancies(observation, inversion))
            if drawn and atlas and observation.timestep in drawn.timesteps:
                drawn.maps[condition, observation.timestep] = atlas.draw(observation)

        scheduler, timesteps = method.solver(model.scheduler)
        source = Source(null, captured=captured if corrected else None)
        with observe(unet, blocks, look):
            latents = denoise(
                unet,
                scheduler,
                start(scheduler, x0, noise, source, plan, timesteps),
                timesteps,
                cond=cond,
                uncond=uncond,
                guidance_scale=translator.guidance_scale(method),
                source=source,
                plan=plan if corrected else replace(plan, injections=()),
                control=control,
                generators=model.generators_after_noise(seeds, size),
            )
        (result,) = model.decode(latents)
        if result is None:
            raise PictureError("the result is not finite (NaN); try --dtype float32")
        dissection.results[condition] = result
        dissection.timesteps = timesteps.tolist()
    return dissection


def _note(scores: Scores, of_step: Mapping[TensorName, Mapping[Block, float]]) -> None:
    for tensor, by_block in of_step.items():
        for block, score in by_block.items():
            scores[tensor][block].append(score)
