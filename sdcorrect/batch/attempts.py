"""Batches through the model, whatever it takes: less at a time, or once more in float32."""

import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from PIL import Image

from sdcorrect.errors import printable
from sdcorrect.inputs.items import seed_of
from sdcorrect.inputs.pictures import Picture
from sdcorrect.translate import Translator

FLAGGED = "flagged by the safety checker, and not saved"
OUT_OF_MEMORY = "out of memory with one picture at a time; choose a smaller size"

#: What torch says where an allocation fails: on the CPU, in cuBLAS, in cuDNN.
OUT_OF_MEMORY_WORDS = (
    "can't allocate memory",
    "not enough memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
)

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Result:
    """What a recipe made of one picture."""

    image: Image.Image | None = None
    problem: str | None = None  #: why the image is not to be kept
    evaluations: int | None = None
    seconds: float = 0.0
    flagged: bool = False  #: by the safety checker


class Attempts:
    """A translator that survives what single batches and pictures run into."""

    def __init__(self, translator: Translator, *, batch_size: int, job_seed: int) -> None:
        self.translator = translator
        self.batch_size = batch_size  #: halved whenever memory does not suffice
        self.job_seed = job_seed

    def __call__(
        self, pictures: Sequence[Picture], variants: tuple[str, ...]
    ) -> Iterator[list[tuple[Picture, str, Result]]]:
        """Every picture's result by every variant, in as many parts as memory asks for."""
        while pictures:
            part = pictures[: self.batch_size]
            results = self._attempt(part, variants, self.batch_size)
            if results is None and self.batch_size > 1:
                self._halve_batches()
                continue
            yield [
                (
                    picture,
                    variant,
                    self._kept(picture, variant, results[variant][row] if results else None),
                )
                for variant in variants
                for row, picture in enumerate(part)
            ]
            pictures = pictures[len(part) :]

    def _kept(self, picture: Picture, variant: str, result: Result | None) -> Result:
        if result is None:
            return Result(problem=OUT_OF_MEMORY)
        if result.problem:
            result = self._retry_in_float32(picture, variant, result)
        return replace(result, problem=FLAGGED) if result.flagged else result

    def _attempt(
        self, pictures: Sequence[Picture], variants: tuple[str, ...], batch_size: int
    ) -> dict[str, list[Result]] | None:
        """The results by variant, in the order of `pictures`; None where memory does not suffice."""
        # A batch is always full: kernels differ by its size, and a picture's bytes must not
        # depend on how many others happened to be left over with it.
        rows = [*pictures, *[pictures[-1]] * (batch_size - len(pictures))]
        began = time.perf_counter()
        try:
            translations = self.translator(
                [picture.image for picture in rows],
                variants=variants,
                seeds=[seed_of(picture.item, picture.sha256, self.job_seed) for picture in rows],
                prompts=[picture.item.prompt for picture in rows],
                negative_prompts=[picture.item.negative_prompt for picture in rows],
                source_prompts=[picture.item.source_prompt for picture in rows],
                hints=[picture.hints for picture in rows],
            )
        except (MemoryError, RuntimeError) as error:
            if not _is_out_of_memory(error):
                raise
            return None
        seconds = (time.perf_counter() - began) / len(pictures) / len(variants)
        return {
            variant: [
                Result(image, _problem(picture, image), translation.evaluations, seconds, flag)
                for picture, image, flag in zip(
                    pictures, translation.pictures, translation.flagged, strict=False
                )
            ]
            for variant, translation in translations.items()
        }

    def _halve_batches(self) -> None:
        before, self.batch_size = self.batch_size, self.batch_size // 2
        if self.translator.model.device.type == "cuda":
            torch.cuda.empty_cache()
        logger.warning(
            "out of memory with %d pictures in a batch: going on with %d", before, self.batch_size
        )

    def _retry_in_float32(self, picture: Picture, variant: str, result: Result) -> Result:
        model = self.translator.model
        if model.dtype == torch.float32:
            return result
        logger.warning(
            "%s (%s): %s; once more in float32", printable(picture.item.key), variant, result.problem
        )
        with model.in_float32():
            again = self._attempt([picture], (variant,), 1)
        if again is None:
            return replace(result, problem=f"{result.problem}, and memory does not suffice for float32")
        (second,) = again[variant]
        return replace(
            second,
            evaluations=(result.evaluations or 0) + (second.evaluations or 0),
            seconds=result.seconds + second.seconds,
        )


def _is_out_of_memory(error: Exception) -> bool:
    """Whether memory did not suffice; on the CPU torch says so in words alone."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or any(
        words in str(error) for words in OUT_OF_MEMORY_WORDS
    )


def _problem(picture: Picture, image: Image.Image | None) -> str | None:
    """Why `image` cannot be what was asked for: where precision does not suffice, it is NaN or black."""
    if image is None:
        return "the result is not finite (NaN)"
    if image.getbbox() is None and picture.image.getbbox() is not None:
        return "the result is black all over"
    return None
