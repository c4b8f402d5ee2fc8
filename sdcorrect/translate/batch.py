"""A batch of pictures: read and encoded once, inverted once for the methods that share it."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import torch
from PIL import Image
from torch import Tensor

from sdcorrect.core.alignment import Alignment
from sdcorrect.core.plan import Injection
from sdcorrect.core.sampler import Source, denoise, invert, start
from sdcorrect.core.schedule import add_noise
from sdcorrect.core.text import Text
from sdcorrect.core.trajectory import SpilledTrajectory
from sdcorrect.masking import PictureMasks, masks_of_words
from sdcorrect.matching import matched
from sdcorrect.models.clock import Span
from sdcorrect.recipes.fields import Posterior
from sdcorrect.translate.method import Method
from sdcorrect.translate.request import Request, Translation
from sdcorrect.translate.texts import Texts

if TYPE_CHECKING:
    from sdcorrect.translate.translator import Translator


@dataclass(frozen=True)
class _Drawn:
    """The noise and the latents of a batch that one seed of the job gives."""

    of: int  #: the job's seed
    seeds: list[int]  #: the pictures'
    noise: Tensor
    x0: dict[Posterior, Tensor]  #: the latents, by how they are taken from the posterior


@dataclass(frozen=True)
class _Found:
    """The inverted source of a batch, and what the inversion cost."""

    source: Source
    rows: int  #: U-Net evaluations, of all pictures together
    inverting: Span
    of: int | None  #: the job's seed; None where every seed gives the same source


class Batch:
    """Pictures of one size: encoded once, and inverted once for all methods that share the inversion.

    What one seed of the job gives is kept until a method comes with another seed.
    """

    def __init__(self, translator: "Translator", requests: Sequence[Request]) -> None:
        self._translator, self._requests = translator, requests
        self._size = requests[0].image.size
        self._found: dict[Hashable, _Found] = {}
        with translator.clock.span("text"):
            self._texts = Texts(translator, requests)
        with translator.clock.span("encode"):
            self._posterior = translator.model.posterior([r.image for r in requests])
            self._drawn = self._draw(translator.seeds[0])
            self._control = translator.model.control([r.hints for r in requests])
        with translator.clock.span("mask") as self._finding_mask:
            self._mask = self._find_mask()

    def by(self, method: Method) -> Translation:
        """Translate the batch by `method`."""
        translator, model = self._translator, self._translator.model
        span = translator.clock.span
        self._take_up(method.seed)
        with span("text") as reading:
            cond, uncond = self._texts.cond(method), self._texts.uncond(method)
            alignment = translator.alignment(
                method, [r.source_prompt for r in self._requests], [r.prompt for r in self._requests]
            )
        found = self._source_of(method)
        before = model.evaluations
        with span("denoise") as denoising:
            source = replace(found.source, text=self._texts.of_source(method, cond))
            latents = self._denoise(method, source, cond, uncond, alignment)
        rows = found.rows + self._mask.rows + model.evaluations - before
        with span("decode") as decoding:
            made = self._matched(model.decode(latents))
            pictures = self._mask.applied(made, [r.image for r in self._requests])
        own = (self._finding_mask, reading, found.inverting, denoising, decoding)
        return Translation(
            pictures,
            rows // len(self._requests),
            model.flagged(pictures),
            sum(part.seconds for part in own),
            self._mask.shares(len(pictures)),
        )

    def _matched(self, made: list[Image.Image | None]) -> list[Image.Image | None]:
        """`made` in the colours of the sources, if the job asks for that.

        This comes before the masks, so that nothing changes outside them.
        """
        if not self._translator.match_colors:
            return made
        pairs = zip(made, self._requests, strict=True)
        return [picture and matched(picture, request.image) for picture, request in pairs]

    def _denoise(
        self, method: Method, source: Source, cond: Text, uncond: Text, alignment: Alignment | None
    ) -> Tensor:
        model, plan, drawn = self._translator.model, method.plan, self._drawn
        x0 = drawn.x0[method.recipe.posterior]
        scheduler, timesteps = method.solver(model.scheduler)
        return denoise(
            model.pipe.unet,
            scheduler,
            start(scheduler, x0, drawn.noise, source, plan, timesteps),
            timesteps,
            cond=cond,
            uncond=uncond,
            guidance_scale=self._translator.guidance_scale(method),
            source=source,
            plan=plan,
            null=self._texts.null,
            alignment=alignment,
            control=self._control,
            mask=self._mask.over(x0, partial(self._source_at, source, x0)),
            generators=self._generators() if method.draws else (),
        )

    def _generators(self) -> list[torch.Generator]:
        return self._translator.model.generators_after_noise(self._drawn.seeds, self._size)

    def _source_at(self, source: Source, x0: Tensor, t: Tensor) -> Tensor:
        """The source's latents at timestep `t`: from its inversion, or else noised like the start."""
        if source.trajectory:
            return source.trajectory[int(t)]
        return add_noise(self._translator.model.scheduler, x0, self._drawn.noise, int(t))

    def _find_mask(self) -> PictureMasks:
        """Where to edit the pictures: inside their masks, or where the model sees the mask's words."""
        model, masking = self._translator.model, self._translator.masking
        if self._requests[0].mask_words is None:
            return PictureMasks.of(
                [r.mask for r in self._requests if r.mask is not None], masking, model.device
            )
        before = model.evaluations
        prompts = [r.source_prompt or r.prompt for r in self._requests]
        words = [r.mask_words or "" for r in self._requests]
        text = self._texts.read(prompts)
        seen = masks_of_words(model, self._drawn.x0["mean"], text, prompts, words, masking.threshold)
        found = PictureMasks.of(seen, masking, model.device)
        return replace(found, rows=model.evaluations - before)

    def _take_up(self, seed: int) -> None:
        """Draw by the job's `seed`, and forget sources that another seed found."""
        if seed != self._drawn.of:
            with self._translator.clock.span("encode"):
                self._drawn = self._draw(seed)
            self._found = {key: f for key, f in self._found.items() if f.of in (None, seed)}

    def _draw(self, seed: int) -> _Drawn:
        model = self._translator.model
        seeds = [request.seed_by(seed) for request in self._requests]
        posterior_noise, noise = model.noise(seeds, self._size)
        draws: dict[Posterior, Tensor] = {
            "sample": posterior_noise,
            "mean": torch.zeros_like(posterior_noise),
        }
        return _Drawn(
            seed, seeds, noise, {kind: model.latents(self._posterior, of) for kind, of in draws.items()}
        )

    def _source_of(self, method: Method) -> _Found:
        key = method.inversion
        if key not in self._found:
            model, spill = self._translator.model, self._translator.spill
            alike = [m for m in self._translator.methods.values() if m.inversion == key]
            by_maps, ddim = method.plan.inversion == "ddpm", method.spaced(model.scheduler)
            solvers = [m.solver(model.scheduler) for m in alike]
            before = model.evaluations
            with self._translator.clock.span("invert") as inverting:
                source = invert(
                    model.pipe.unet,
                    solvers[0][0] if by_maps else ddim,
                    self._drawn.x0[method.recipe.posterior],
                    self._texts.null,
                    replace(method.plan, injections=_injections(alike)),
                    solvers[0][1] if by_maps else torch.unique(torch.cat([s[1] for s in solvers])),
                    prompt=self._texts.told(method.recipe.inversion_prompt),
                    keep=partial(SpilledTrajectory, spill) if spill else dict,
                    generators=self._generators() if by_maps else (),
                )
            rows = model.evaluations - before
            self._found[key] = _Found(source, rows, inverting, method.source_seed)
        return self._found[key]


def _injections(methods: Sequence[Method]) -> tuple[Injection, ...]:
    """What any of `methods` puts back, each once."""
    return tuple(dict.fromkeys(i for method in methods for i in method.plan.injections))
