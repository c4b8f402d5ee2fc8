"""One picture: decoded, upright, in sRGB, opaque and of a size that the model takes."""

import errno
import hashlib
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from PIL import Image, ImageOps

from sdcorrect.config import Input
from sdcorrect.errors import PictureError, printable
from sdcorrect.inputs.decode import decode
from sdcorrect.inputs.items import Item
from sdcorrect.inputs.samples import METADATA_BYTES, SAMPLE_BYTES
from sdcorrect.reading import read_bytes

logger = logging.getLogger(__name__)

Resize = Literal["fit", "crop", "none"]

#: A side that is rounded up to the multiple may grow by this factor: more would not be the picture.
MAX_STRETCH = 4


@dataclass(frozen=True)
class Picture:
    """A picture ready for the model."""

    item: Item
    sha256: str
    image: Image.Image  #: RGB
    whole: tuple[int, int]  #: width and height, px, upright and before it was sized
    hints: tuple[Image.Image, ...] = ()  #: RGB, of the same size, one for each ControlNet


@dataclass(frozen=True)
class Sizing:
    """How pictures become a size that the model takes: `size` and `multiple` in px."""

    resize: Resize
    size: int
    multiple: int

    def apply(self, image: Image.Image) -> Image.Image:
        """`image` scaled as `resize` says.

        fit: the whole picture, its longer side `size`, both sides rounded to the multiple.
        crop: the picture's middle, `size` by `size`.
        none: at its own scale; what is over the multiple is cut off evenly at the edges, as the
        paper's code does.

        Raises:
            PictureError: `none`, and a side is under the multiple; `fit`, and the shorter side would
                have to grow more than `MAX_STRETCH` times to be one.
        """
        width, height = image.size
        if self.resize == "none":
            if min(image.size) < self.multiple:
                raise PictureError(
                    f"{width}x{height} px: a side is under {self.multiple} px, the least that the model "
                    "takes; use resize: fit or crop"
                )
            return fitted(image, "none", self.kept(image.size))
        if self.resize == "crop":
            side = self._rounded(self.size)
            return fitted(image, "crop", (side, side))
        scale = self.size / max(image.size)
        stretch = self.multiple / (scale * min(image.size))
        if stretch > MAX_STRETCH:
            raise PictureError(
                f"{width}x{height} px: at {self.size} px its shorter side would be stretched "
                f"{stretch:.0f} times; use resize: crop, or leave it out with input.max_aspect"
            )
        return fitted(image, "fit", (self._rounded(width * scale), self._rounded(height * scale)))

    def kept(self, size: tuple[int, int]) -> tuple[int, int]:
        """Width and height, px, of the middle of a picture of `size` that `apply` keeps."""
        match self.resize:
            case "fit":
                return size
            case "crop":
                return min(size), min(size)
            case "none":
                width, height = (side // self.multiple * self.multiple for side in size)
                return width, height

    def _rounded(self, side: float) -> int:
        return max(1, round(side / self.multiple)) * self.multiple


def fitted(image: Image.Image, resize: Resize, size: tuple[int, int]) -> Image.Image:
    """`image` brought to `size`, width and height in px, in the way of `resize`."""
    if resize == "crop":
        return ImageOps.fit(image, size, Image.Resampling.LANCZOS)
    if resize == "fit":
        return image.resize(size, Image.Resampling.LANCZOS)
    left, top = ((side - kept) // 2 for side, kept in zip(image.size, size, strict=True))
    return image.crop((left, top, left + size[0], top + size[1]))


def read_picture(item: Item, sizing: Sizing, limits: Input) -> Picture:
    """Read, decode and size one picture; of a file with several, the first.

    Orientation, colour profile and transparency are resolved: upright, sRGB, on white.

    Raises:
        FilteredOut: it is smaller or more elongated than `limits` let in.
        PictureError: it cannot be read as a picture, is larger than `limits` allow, or its size does
            not fit.
    """
    if item.problem:
        raise PictureError(item.problem, sha256_of(item.source, limits))
    image, sha256 = read_image(item.source, limits)
    try:
        return Picture(item, sha256, sizing.apply(image), image.size)
    except PictureError as error:
        error.sha256 = sha256
        raise


def read_image(file: Path, limits: Input) -> tuple[Image.Image, str]:
    """The picture of a file as `read_picture` decodes it, at its own size, and the file's SHA-256.

    What the file says and is not heeded, such as a colour profile for other samples, is warned about.

    Raises:
        PictureError: it cannot be read as a picture, or `limits` do not let it in; with the SHA-256
            where the file could be read.
    """
    data = read_encoded(file, limits)
    sha256 = hashlib.sha256(data).hexdigest()
    try:
        image, notices = decode(data, limits)
    except PictureError as error:
        error.sha256 = sha256
        raise
    for notice in notices:
        logger.warning("%s: %s", printable(file), notice)
    return image, sha256


def sha256_of(file: Path, limits: Input) -> str:
    """The SHA-256 of a picture's file, which is not decoded.

    Raises:
        PictureError: it cannot be read, or is larger than any picture that `limits` let in.
    """
    return hashlib.sha256(read_encoded(file, limits)).hexdigest()


def read_encoded(file: Path, limits: Input) -> bytes:
    """The bytes of a picture's file.

    Raises:
        PictureError: it cannot be read, is no regular file, or larger than any picture that `limits`
            let in.
    """
    most = limits.max_pixels * SAMPLE_BYTES + METADATA_BYTES
    try:
        return read_bytes(file, most)
    except OSError as error:
        if error.errno == errno.EFBIG:
            raise PictureError(
                f"cannot be read: {error.strerror} that a picture of {limits.max_pixels:,} px takes; "
                "raise input.max_pixels"
            ) from None
        raise PictureError(f"cannot be read: {error.strerror}") from None
