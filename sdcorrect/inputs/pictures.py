"""One picture: decoded, upright, in sRGB, opaque and of a size that the model takes."""

import errno
import hashlib
import logging
from collections.abc import Collection
from dataclasses import dataclass, replace
from math import ceil
from pathlib import Path
from typing import Literal

from PIL import Image, ImageOps

from sdcorrect.config import Input, Keep
from sdcorrect.errors import PictureError, printable
from sdcorrect.inputs.decode import Least, Shown, decode
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
    alpha: Image.Image | None = None  #: L, of the same size, white where it is opaque
    hints: tuple[Image.Image, ...] = ()  #: RGB, of the same size, one for each ControlNet
    mask: Image.Image | None = None  #: L, of the same size, 255 where it is to be edited, else 0
    #: of the files of its mask and its ready-made hints, SHA-256
    companions: tuple[str, ...] = ()
    #: what its outputs are to have of its file: EXIF, and the ICC profile of their colours
    exif: bytes | None = None
    profile: bytes | None = None


@dataclass(frozen=True)
class Sizing:
    """How pictures become a size that the model takes: `size` and `multiple` in px."""

    resize: Resize
    size: int
    multiple: int

    def apply(self, image: Image.Image, whole: tuple[int, int] | None = None) -> Image.Image:
        """`image` scaled as `resize` says; where it was decoded smaller than it is, `whole` is its size.

        fit: the whole picture, its longer side `size`, both sides rounded to the multiple.
        crop: the picture's middle, `size` by `size`.
        none: at its own scale; what is over the multiple is cut off evenly at the edges, as the
        paper's code does.

        Raises:
            PictureError: `none`, and a side is under the multiple; `fit`, and the shorter side would
                have to grow more than `MAX_STRETCH` times to be one.
        """
        return fitted(image, self.resize, self.sized(whole or image.size))

    def sized(self, size: tuple[int, int]) -> tuple[int, int]:
        """Width and height, px, of what `apply` makes of a picture of `size`.

        Raises:
            PictureError: as `apply`.
        """
        width, height = size
        if self.resize == "none":
            if min(size) < self.multiple:
                raise PictureError(
                    f"{width}x{height} px: a side is under {self.multiple} px, the least that the model "
                    "takes; use resize: fit or crop"
                )
            return self.kept(size)
        if self.resize == "crop":
            side = self._rounded(self.size)
            return side, side
        scale = self.size / max(size)
        stretch = self.multiple / (scale * min(size))
        if stretch > MAX_STRETCH:
            raise PictureError(
                f"{width}x{height} px: at {self.size} px its shorter side would be stretched "
                f"{stretch:.0f} times; use resize: crop, or leave it out with input.max_aspect"
            )
        return self._rounded(width * scale), self._rounded(height * scale)

    def least(self, size: tuple[int, int]) -> tuple[int, int]:
        """Width and height, px, at which a picture of `size` may be decoded at the least: its final
        scale then is half, which Lanczos does as well as from the whole.

        Raises:
            PictureError: as `apply`.
        """
        if self.resize == "none":
            return size
        scale = max(after / before for after, before in zip(self.sized(size), size, strict=True))
        width, height = (ceil(min(1, 2 * scale) * side) for side in size)
        return width, height

    def largest(self, picture: Picture) -> Picture:
        """`picture` stretched to the largest size that `apply` gives any; with `none`, as it is."""
        if self.resize == "none":
            return picture
        square = self.sized((1, 1))
        return replace(
            picture,
            image=picture.image.resize(square),
            hints=tuple(hint.resize(square) for hint in picture.hints),
            mask=picture.mask and picture.mask.resize(square),
        )

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


def fitted_alike(
    image: Image.Image, resize: Resize, whole: tuple[int, int], size: tuple[int, int]
) -> Image.Image | None:
    """`image`, which goes with a picture of `whole` px that was fitted to `size`, brought to that size.

    It is taken as it is where it has that size, and fitted as the picture was where it has the picture's
    own shape, as nearly as whole pixels can have it; where it has neither, there is none.
    """
    if image.size == size:
        return image
    (width, height), (whole_width, whole_height) = image.size, whole
    alike = abs(width * whole_height - height * whole_width) <= max(whole)
    if image.size != whole and (resize == "none" or not alike):
        return None
    return fitted(image, resize, size)


def read_picture(item: Item, sizing: Sizing, limits: Input, keep: Collection[Keep] = ()) -> Picture:
    """Read, decode and size one picture; of a file with several, the first.

    Orientation, colour profile and transparency are resolved: upright, sRGB, on white.

    Args:
        keep: what of its file its outputs are to have.

    Raises:
        FilteredOut: it is smaller or more elongated than `limits` let in.
        PictureError: it cannot be read as a picture, is larger than `limits` allow, or its size does
            not fit.
    """
    if item.problem:
        raise PictureError(item.problem, sha256_of(item.source, limits))
    return sized(item, *read_shown(item.source, limits, sizing.least, keep), sizing)


def sized(item: Item, shown: Shown, sha256: str, sizing: Sizing) -> Picture:
    """A decoded picture, of a file with that SHA-256, brought to a size that the model takes.

    Raises:
        PictureError: its size does not fit.
    """
    try:
        alpha = None if shown.alpha is None else sizing.apply(shown.alpha, shown.whole)
        image = sizing.apply(shown.image, shown.whole)
        return Picture(item, sha256, image, shown.whole, alpha, exif=shown.exif, profile=shown.profile)
    except PictureError as error:
        error.sha256 = sha256
        raise


def on_background(
    image: Image.Image, picture: Picture, background: Literal["white", "transparent"]
) -> Image.Image:
    """What was made of `picture`: as transparent as its source, or as it is, which lay on white."""
    if background == "white" or picture.alpha is None:
        return image
    laid = image.copy()
    laid.putalpha(picture.alpha)
    return laid


def read_image(file: Path, limits: Input) -> tuple[Image.Image, str]:
    """The picture of a file as `read_picture` decodes it, at its own size, and the file's SHA-256.

    Raises:
        PictureError: as `read_shown`.
    """
    shown, sha256 = read_shown(file, limits)
    return shown.image, sha256


def read_shown(
    file: Path, limits: Input, least: Least | None = None, keep: Collection[Keep] = ()
) -> tuple[Shown, str]:
    """The picture of a file, upright and in sRGB, with its alpha, and the file's SHA-256.

    Where `least` lets it, it is decoded smaller (`sdcorrect.inputs.decode.decode`).
    What the file says and is not heeded, such as a colour profile for other samples, is warned about.

    Raises:
        PictureError: it cannot be read as a picture, or `limits` do not let it in; with the SHA-256
            where the file could be read.
    """
    data = read_encoded(file, limits)
    sha256 = hashlib.sha256(data).hexdigest()
    try:
        shown = decode(data, limits, least, keep)
    except PictureError as error:
        error.sha256 = sha256
        raise
    for notice in shown.notices:
        logger.warning("%s: %s", printable(file), notice)
    return shown, sha256


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
