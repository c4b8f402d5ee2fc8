"""Read the masks of pictures, which say where to edit them."""

import hashlib
import json
from pathlib import Path
from posixpath import splitext

import numpy as np
from PIL import Image

from sdcorrect.config import Job
from sdcorrect.errors import PictureError, UsageError, printable
from sdcorrect.inputs.companions import companion_limits, companion_path, find_companion, problem_of
from sdcorrect.inputs.items import Item
from sdcorrect.inputs.pictures import Picture, fitted_alike, read_shown, sha256_of
from sdcorrect.inputs.pie_bench import Annotation, decode_mask, read_mapping
from sdcorrect.settings import ALPHA, WORDS

#: How many levels the channels of a grey picture may differ, by rounding in JPEG and profiles.
GREY = 8


def is_mapping(mask: str) -> bool:
    """Whether the setting or option `mask` names PIE-Bench's mapping file."""
    return Path(mask).suffix.lower() == ".json"


def check_mask(mask: str | None) -> None:
    """Check that the folder of masks exists.

    Raises:
        UsageError: the folder of masks is missing, cannot be listed or is empty.
    """
    if mask is None or mask in (ALPHA, WORDS) or is_mapping(mask):
        return
    if problem := problem_of(Path(mask)):
        raise UsageError(
            f"mask {printable(mask)}: {problem}; give a folder with a mask at each picture's relative "
            f"path, PIE-Bench's mapping_file.json, {ALPHA}, or {WORDS}"
        )


class Masks:
    """The masks that a job names.

    Raises:
        UsageError: the folder or the mapping file cannot be read.
    """

    def __init__(self, job: Job) -> None:
        self.source = job.mask
        self.resize = job.resize
        self.limits = companion_limits(job.input)
        check_mask(job.mask)
        self._annotations: dict[str, Annotation] | None = None
        if job.mask is not None and is_mapping(job.mask):
            self._annotations = read_mapping(Path(job.mask))

    def of(self, picture: Picture) -> Image.Image | None:
        """The mask of `picture`, mode L at its size, 255 where to edit and 0 elsewhere.

        None if the job has no mask, or finds it by words.

        Raises:
            PictureError: it is missing, cannot be read, has colours or another shape.
        """
        if self.source is None or self.source == WORDS:
            return None
        try:
            return self._fitted(picture)
        except PictureError as error:
            raise PictureError(str(error), picture.sha256) from None

    def sha256(self, item: Item) -> str | None:
        """The SHA-256 of the mask's file, or of its part of the mapping file; None without a file.

        Raises:
            PictureError: it is missing, or cannot be read.
        """
        if self.source in (None, ALPHA, WORDS):
            return None
        if self._annotations is not None:
            runs = json.dumps(self._annotation(item).mask)
            return hashlib.sha256(runs.encode()).hexdigest()
        return sha256_of(self._file(item), self.limits)

    def _fitted(self, picture: Picture) -> Image.Image:
        if self.source == ALPHA:
            if picture.alpha is None:
                raise PictureError("has no alpha channel, which mask: alpha needs")
            return _halved(picture.alpha)
        if self._annotations is not None:
            name, mask = f"of {printable(self.source)}", decode_mask(self._annotation(picture.item).mask)
        else:
            file = self._file(picture.item)
            name, mask = printable(file), _read_grey(file, self)
        alike = fitted_alike(mask, self.resize, picture.whole, picture.image.size)
        if alike is None:
            sizes = [f"{w}x{h} px" for w, h in (mask.size, picture.whole, picture.image.size)]
            raise PictureError(
                f"mask {name}: is {sizes[0]}, but the picture is {sizes[1]} and its output {sizes[2]}; "
                "give a mask of either size, or of the picture's shape"
            )
        return _halved(alike)

    def _file(self, item: Item) -> Path:
        return find_companion("mask", Path(str(self.source)), item)

    def _annotation(self, item: Item) -> Annotation:
        assert self._annotations is not None
        stem = splitext(companion_path(item))[0]
        if stem not in self._annotations:
            raise PictureError(f"has no mask: {printable(self.source)} does not list {printable(stem)}")
        return self._annotations[stem]


def _read_grey(file: Path, masks: Masks) -> Image.Image:
    try:
        shown, _ = read_shown(file, masks.limits)
    except PictureError as error:
        raise PictureError(f"mask {printable(file)}: cannot be used: {error}") from None
    if shown.alpha is not None and shown.alpha.getextrema() != (255, 255):
        raise PictureError(
            f"mask {printable(file)}: is partly transparent, which is ambiguous; save it without "
            "alpha, white where to edit the picture"
        )
    pixels = np.asarray(shown.image)
    if np.ptp(pixels, axis=-1).max() > GREY:
        raise PictureError(
            f"mask {printable(file)}: has colours; a mask must be white where to edit the picture, "
            "and black elsewhere"
        )
    return shown.image.convert("L")


def _halved(mask: Image.Image) -> Image.Image:
    """White from middle grey on, black below, as in diffusers' pipelines and PIE-Bench."""
    return mask.point([0] * 128 + [255] * 128)
