"""One picture with its outputs and what they are compared with, decoded and at the same size."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sdcorrect.config.job import MOST_PIXELS, Input
from sdcorrect.errors import PictureError, UsageError, printable
from sdcorrect.evaluate.translated import Translated, TranslatedPicture
from sdcorrect.inputs.pictures import Resize, fitted, fitted_alike, read_image


@dataclass(frozen=True)
class Sample:
    """One picture and its outputs. All are RGB, at the size at which the source was translated."""

    entry: TranslatedPicture
    source: Image.Image
    outputs: Mapping[str, Image.Image]  #: by variant
    truth: Image.Image | None = None
    mask: NDArray[np.bool_] | None = None  #: (height, width), true where edited
    caption: str | None = None


@dataclass(frozen=True)
class SampleReader:
    """Reads the pictures of `translated`, and what belongs to each, by key."""

    translated: Translated
    truths: Mapping[str, Path] = field(default_factory=dict)
    masks: Mapping[str, Image.Image | Path] = field(default_factory=dict)
    captions: Mapping[str, str] = field(default_factory=dict)

    def __call__(self, entry: TranslatedPicture) -> Sample:
        """Raises UsageError if a picture cannot be read, has changed since, or has another size."""
        key = entry.item.key
        image, sha256 = self._read("source", entry.item.source)
        if sha256 != entry.sha256:
            raise UsageError(
                f"source {printable(entry.item.source)}: has changed since it was translated; "
                "run sdcorrect translate again"
            )
        truth = mask = None
        if key in self.truths:
            truth = self._like_source("reference", self.truths[key], image, entry)
        if key in self.masks:
            mask = (
                np.asarray(self._like_source("mask", self.masks[key], image, entry).convert("L")) > 127
            )
        return Sample(
            entry,
            fitted(image, self._resize, entry.size),
            {variant: self._output(path, entry) for variant, path in entry.outputs.items()},
            truth,
            mask,
            self.captions.get(key),
        )

    @property
    def _resize(self) -> Resize:
        return self.translated.job.resize

    def _output(self, path: Path, entry: TranslatedPicture) -> Image.Image:
        image, _ = self._read("output", path)
        if image.size != entry.size:
            raise UsageError(
                f"output {printable(path)}: is {_px(image.size)}, but {_px(entry.size)} by its record; "
                "it was changed; delete it and run sdcorrect translate again"
            )
        return image

    def _like_source(
        self, what: str, given: Path | Image.Image, source: Image.Image, entry: TranslatedPicture
    ) -> Image.Image:
        """`given` at the size of the output: unchanged, or fitted like a source of its shape."""
        image = given if isinstance(given, Image.Image) else self._read(what, given)[0]
        alike = fitted_alike(image, self._resize, source.size, entry.size)
        if alike is None:
            name = printable(given if isinstance(given, Path) else entry.item.key)
            raise UsageError(
                f"{what} {name}: is {_px(image.size)}, but its output is {_px(entry.size)} and its "
                f"source {_px(source.size)}; give one of either size"
            )
        return alike

    def _read(self, what: str, path: Path) -> tuple[Image.Image, str]:
        # the job's limits concern sources only, and this one has passed them
        try:
            return read_image(path, Input(path=path, max_pixels=MOST_PIXELS))
        except PictureError as error:
            raise UsageError(f"{what} {printable(path)}: {error}") from None


def _px(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]} px"
