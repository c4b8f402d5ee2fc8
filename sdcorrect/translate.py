"""A batch of pictures through one or several recipes: encode and invert once, then denoise for each."""

import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor

from sdcorrect.core.plan import Plan
from sdcorrect.core.sampler import Source, denoise, invert, start
from sdcorrect.core.schedule import timesteps_from
from sdcorrect.models import Model
from sdcorrect.recipes import Recipe


@dataclass(frozen=True)
class Translation:
    """What one recipe made of a batch."""

    pictures: list[Image.Image | None]  #: None where the result was not finite
    evaluations: int  #: U-Net evaluations a picture, the inversion included


class Translator:
    """Recipes resolved for one model, and the seconds that each phase has taken.

    Raises:
        UsageError: a recipe names blocks that the model's U-Net lacks.
    """

    def __init__(
        self,
        model: Model,
        recipes: Sequence[Recipe],
        *,
        steps: int,
        strength: float,
        guidance_scale: float,
    ) -> None:
        self.model = model
        self.plans = {recipe.name: recipe.plan(model.layout) for recipe in recipes}
        self.steps = steps
        self.strength = strength
        self.guidance_scale = guidance_scale
        self.seconds: dict[str, float] = defaultdict(float)

    @torch.inference_mode()
    def __call__(
        self,
        images: Sequence[Image.Image],
        *,
        variants: Sequence[str],
        seeds: Sequence[int],
        prompts: Sequence[str],
        negative_prompts: Sequence[str],
    ) -> dict[str, Translation]:
        """Translate RGB images of one size, each with its own seed and prompts, by these recipes."""
        model = self.model
        with self._phase("text"):
            null = model.embed_all([""] * len(images))
            cond = model.embed_all(prompts)
            uncond = model.embed_all(negative_prompts)
        with self._phase("encode"):
            posterior_noise, noise = model.noise(seeds, images[0].size)
            x0 = model.encode(images, posterior_noise)
        sources = _Sources(self, x0, null)
        translations = {}
        for name in variants:
            plan = self.plans[name]
            with self._phase("invert"):
                source, inversion_rows = sources.of(plan)
            before = model.evaluations
            with self._phase("denoise"):
                timesteps = self.timesteps(plan)
                latents = denoise(
                    model.pipe.unet,
                    model.scheduler,
                    start(model.scheduler, x0, noise, source, plan, timesteps),
                    timesteps,
                    cond=cond,
                    uncond=uncond,
                    guidance_scale=self.guidance_scale,
                    source=source,
                    plan=plan,
                )
            rows = inversion_rows + model.evaluations - before
            with self._phase("decode"):
                pictures = model.decode(latents)
            translations[name] = Translation(pictures, rows // len(images))
        return translations

    def timesteps(self, plan: Plan) -> Tensor:
        """The timesteps that `plan` computes: all of them where it starts from inverted latents."""
        strength = 1.0 if plan.start == "inverted" else self.strength
        return timesteps_from(self.model.scheduler, self.steps, strength)

    @contextmanager
    def _phase(self, name: str) -> Iterator[None]:
        began = time.perf_counter()
        yield
        if self.model.device.type == "cuda":
            torch.cuda.synchronize(self.model.device)
        self.seconds[name] += time.perf_counter() - began


class _Sources:
    """The sources of one batch, each inverted once, however many recipes share it."""

    def __init__(self, translator: Translator, x0: Tensor, null: Tensor) -> None:
        self._translator = translator
        self._x0 = x0
        self._null = null
        self._found: dict[tuple[str, int | None], tuple[Source, int]] = {}

    def of(self, plan: Plan) -> tuple[Source, int]:
        """The source that `plan` needs, and the rows that the U-Net evaluated to find it."""
        key = (plan.inversion, plan.inversion_steps)
        if key not in self._found:
            model = self._translator.model
            alike = [
                p for p in self._translator.plans.values() if (p.inversion, p.inversion_steps) == key
            ]
            shared = Plan(
                plan.inversion,
                plan.inversion_steps,
                injections=tuple(injection for p in alike for injection in p.injections),
            )
            before = model.evaluations
            source = invert(
                model.pipe.unet,
                model.scheduler,
                self._x0,
                self._null,
                shared,
                self._translator.timesteps(plan),
            )
            self._found[key] = source, model.evaluations - before
        return self._found[key]
