"""Translate batches, with retries: in smaller batches when memory runs out, in float32 after NaN."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from PIL import Image

from sdcorrect.errors import printable
from sdcorrect.inputs.items import seed_of
from sdcorrect.inputs.pictures import Picture
from sdcorrect.models.memory import empty_cache, is_out_of_memory
from sdcorrect.translate import Request, Translator

FLAGGED = "flagged by the safety checker, and not saved"
OUT_OF_MEMORY = "out of memory even with one picture per batch; choose a smaller size"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Result:
    """The result of a recipe on one picture."""

    image: Image.Image | None = None
    problem: str | None = None  #: why the image must not be kept
    evaluations: int | None = None
    seconds: float = 0.0
    edited: float | None = None  #: the share of the picture inside its mask
    flagged: bool = False  #: by the safety checker


class Attempts:
    """A translator that survives failures of single batches and pictures."""

    def __init__(self, translator: Translator, *, batch_size: int) -> None:
        self.translator = translator
        self.batch_size = batch_size  #: halved whenever memory runs out
        self._counted = 0  # U-Net evaluations before the current variant
        self._share = 1.0  # the share of a batch's rows that are not padding

    @property
    def evaluations(self) -> float:
        """U-Net evaluations so far on the current pictures, by the current variant."""
        return (self.translator.model.evaluations - self._counted) * self._share

    def __call__(
        self, pictures: Sequence[Picture], variants: tuple[str, ...]
    ) -> Iterator[list[tuple[Picture, str, Result]]]:
        """Yield the results of all pictures by all variants, in parts: one variant at a time, and as
        many pictures as fit in memory."""
        waiting = [(pictures, variants)]
        while waiting:
            pictures, variants = waiting.pop()
            part, rest = pictures[: self.batch_size], pictures[self.batch_size :]
            if rest:
                waiting.append((rest, variants))
            spoiled: list[tuple[Picture, str, Result]] = []
            left = variants
            for variant, results in self._attempt(part, variants, self.batch_size):
                told = [(picture, variant, r) for picture, r in zip(part, results, strict=True)]
                spoiled += [one for one in told if one[-1].problem]
                left = left[1:]
                yield [(p, v, _unless_flagged(r)) for p, v, r in told if not r.problem]
            # only now, when nothing else of the batch is in memory
            yield [(p, v, _unless_flagged(self._retry_in_float32(p, v, r))) for p, v, r in spoiled]
            if left and self.batch_size > 1:
                self._halve_batches()
                waiting.append((part, left))
            elif left:
                starved, *others = left
                yield [(picture, starved, Result(problem=OUT_OF_MEMORY)) for picture in part]
                waiting += [(part, tuple(others))] if others else []

    def _attempt(
        self, pictures: Sequence[Picture], variants: tuple[str, ...], batch_size: int
    ) -> Iterator[tuple[str, list[Result]]]:
        """Yield the results of each variant, in the order of `pictures`; stop when memory runs out."""
        # A batch is always padded: kernels differ by its size, and a picture's bytes must not
        # depend on how many others happen to be left over with it.
        rows = [*pictures, *[pictures[-1]] * (batch_size - len(pictures))]
        translations = self.translator.translate([*map(self.request, rows)], variants=variants)
        self._counted, self._share = self.translator.model.evaluations, len(pictures) / len(rows)
        try:
            for variant, made in translations:
                self._counted = self.translator.model.evaluations
                seconds = made.seconds / len(pictures)
                yield (
                    variant,
                    [
                        Result(image, _problem(picture, image), made.evaluations, seconds, share, flag)
                        for picture, image, share, flag in zip(
                            pictures, made.pictures, made.edited, made.flagged, strict=False
                        )
                    ],
                )
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise

    def request(self, picture: Picture) -> Request:
        """The translator's request for `picture`."""
        item = picture.item
        return Request(
            picture.image,
            {seed: seed_of(item, picture.sha256, seed) for seed in self.translator.seeds},
            item.prompt,
            item.negative_prompt,
            item.source_prompt,
            picture.hints,
            picture.mask,
            item.mask_words,
        )

    def _halve_batches(self) -> None:
        before, self.batch_size = self.batch_size, self.batch_size // 2
        empty_cache(self.translator.model.device)
        logger.warning(
            "out of memory with %d pictures per batch; continuing with %d", before, self.batch_size
        )

    def _retry_in_float32(self, picture: Picture, variant: str, result: Result) -> Result:
        model = self.translator.model
        if model.dtype == torch.float32:
            return result
        logger.warning(
            "%s (%s): %s; retrying in float32", printable(picture.item.key), variant, result.problem
        )
        with model.in_float32():
            again = dict(self._attempt([picture], (variant,), 1))
        if not again:
            return replace(result, problem=f"{result.problem}; not enough memory to retry in float32")
        (second,) = again[variant]
        return replace(
            second,
            evaluations=(result.evaluations or 0) + (second.evaluations or 0),
            seconds=result.seconds + second.seconds,
        )


def _unless_flagged(result: Result) -> Result:
    return replace(result, problem=FLAGGED) if result.flagged else result


def _problem(picture: Picture, image: Image.Image | None) -> str | None:
    """Why `image` cannot be right, if so: when precision does not suffice, it is NaN or black."""
    if image is None:
        return "the result is not finite (NaN)"
    if image.getbbox() is None and picture.image.getbbox() is not None:
        return "the result is all black"
    return None
