"""Read a picture: decoded, upright, in sRGB, opaque, and in a size that the model accepts."""

import errno
import hashlib
import logging
from collections.abc import Collection
from dataclasses import dataclass, replace
from math import ceil
from pathlib import Path
from typing import Literal

from PIL import Image, ImageOps

from sdcorrect.config.job import Input, Keep
from sdcorrect.errors import PictureError, printable
from sdcorrect.inputs.decode import Least, Shown, decode
from sdcorrect.inputs.items import Item
from sdcorrect.inputs.samples import METADATA_BYTES, SAMPLE_BYTES
from sdcorrect.reading import read_bytes

logger = logging.getLogger(__name__)

Resize = Literal["fit", "crop", "none"]

#: How much a side may be stretched to reach the multiple; more would distort the picture.
MAX_STRETCH = 4


@dataclass(frozen=True)
class Picture:
    """A picture ready for the model."""

    item: Item
    sha256: str
    image: Image.Image  #: RGB
    whole: tuple[int, int]  #: width and height, px, upright and before resizing
    alpha: Image.Image | None = None  #: mode L, same size, white where opaque
    hints: tuple[Image.Image, ...] = ()  #: RGB, same size, one for each ControlNet
    mask: Image.Image | None = None  #: mode L, same size, 255 where to edit, else 0
    #: SHA-256 of the files of its mask and its ready-made hints
    companions: tuple[str, ...] = ()
    #: what its outputs are to have of its file: EXIF, and the ICC profile of their colours
    exif: bytes | None = None
    profile: bytes | None = None


@dataclass(frozen=True)
class Sizing:
    """How pictures are resized for the model; `size` and `multiple` in px."""

    resize: Resize
    size: int
    multiple: int

    def apply(self, image: Image.Image, whole: tuple[int, int] | None = None) -> Image.Image:
        """Resize `image` as `resize` says; `whole` is its full size, if it was decoded smaller.

        fit: the whole picture, longer side `size`, both sides rounded to the multiple.
        crop: the central square of the picture, `size` by `size`.
        none: unscaled; what exceeds the multiple is cut off evenly at the edges, as in the paper's code.

        Raises:
            PictureError: with `none`, a side is below the multiple; with `fit`, the shorter side would
                be stretched more than `MAX_STRETCH` times.
        """
        return fitted(image, self.resize, self.sized(whole or image.size))

    def sized(self, size: tuple[int, int]) -> tuple[int, int]:
        """Width and height, px, after `apply` to a picture of `size`.

        Raises:
            PictureError: as `apply`.
        """
        width, height = size
        if self.resize == "none":
            if min(size) < self.multiple:
                raise PictureError(
                    f"{width}x{height} px: a side is under {self.multiple} px, the model's minimum; "
                    "use resize: fit or crop"
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
        """The smallest width and height, px, at which a picture of `size` may be decoded: twice its
        final size, from which Lanczos gives the same quality as from the full size.

        Raises:
            PictureError: as `apply`.
        """
        if self.resize == "none":
            return size
        scale = max(after / before for after, before in zip(self.sized(size), size, strict=True))
        width, height = (ceil(min(1, 2 * scale) * side) for side in size)
        return width, height

    def largest(self, picture: Picture) -> Picture:
        """`picture` stretched to the largest size that `apply` can give; with `none`, unchanged."""
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
        """Width and height, px, of the central part of a picture of `size` that `apply` keeps."""
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
    """Resize `image` to `size`, width and height in px, in the mode `resize`."""
    if resize == "crop":
        return ImageOps.fit(image, size, Image.Resampling.LANCZOS)
    if resize == "fit":
        return image.resize(size, Image.Resampling.LANCZOS)
    left, top = ((side - kept) // 2 for side, kept in zip(image.size, size, strict=True))
    return image.crop((left, top, left + size[0], top + size[1]))


def fitted_alike(
    image: Image.Image, resize: Resize, whole: tuple[int, int], size: tuple[int, int]
) -> Image.Image | None:
    """Resize `image`, a companion of a picture of `whole` px that was fitted to `size`, to that size.

    It is unchanged if it already has that size, and fitted like the picture if it has the picture's
    shape (up to rounding to whole pixels); otherwise the result is None.
    """
    if image.size == size:
        return image
    (width, height), (whole_width, whole_height) = image.size, whole
    alike = abs(width * whole_height - height * whole_width) <= max(whole)
    if image.size != whole and (resize == "none" or not alike):
        return None
    return fitted(image, resize, size)


def read_picture(item: Item, sizing: Sizing, limits: Input, keep: Collection[Keep] = ()) -> Picture:
    """Read, decode and resize one picture; the first, if a file has several.

    The result is upright, in sRGB, and on white where transparent.

    Args:
        keep: what of its file its outputs are to have.

    Raises:
        FilteredOut: the job's filters in `limits` exclude its size or shape.
        PictureError: it cannot be read as a picture, is larger than `limits` allow, or its size does
            not fit.
    """
    if item.problem:
        raise PictureError(item.problem, sha256_of(item.source, limits))
    return sized(item, *read_shown(item.source, limits, sizing.least, keep), sizing)


def sized(item: Item, shown: Shown, sha256: str, sizing: Sizing) -> Picture:
    """Resize a decoded picture for the model; `sha256` is that of its file.

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
    """The result for `picture`: unchanged on white, or as transparent as its source."""
    if background == "white" or picture.alpha is None:
        return image
    laid = image.copy()
    laid.putalpha(picture.alpha)
    return laid


def read_image(file: Path, limits: Input) -> tuple[Image.Image, str]:
    """The picture in a file, decoded as by `read_picture` but not resized, and the file's SHA-256.

    Raises:
        PictureError: as `read_shown`.
    """
    shown, sha256 = read_shown(file, limits)
    return shown.image, sha256


def read_shown(
    file: Path, limits: Input, least: Least | None = None, keep: Collection[Keep] = ()
) -> tuple[Shown, str]:
    """The picture in a file, upright and in sRGB, with its alpha, and the file's SHA-256.

    It may be decoded smaller, down to `least` (see `sdcorrect.inputs.decode.decode`).
    Warns of what is ignored in the file, such as a colour profile that does not fit.

    Raises:
        PictureError: it cannot be read as a picture, or `limits` exclude it; with the SHA-256 if the
            file could be read.
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
    """The SHA-256 of a picture's file, without decoding it.

    Raises:
        PictureError: it cannot be read, or is larger than any picture within `limits`.
    """
    return hashlib.sha256(read_encoded(file, limits)).hexdigest()


def read_encoded(file: Path, limits: Input) -> bytes:
    """The bytes of a picture's file.

    Raises:
        PictureError: it cannot be read, is not a regular file, or is larger than any picture within
            `limits`.
    """
    most = limits.max_pixels * SAMPLE_BYTES + METADATA_BYTES
    try:
        return read_bytes(file, most)
    except OSError as error:
        if error.errno == errno.EFBIG:
            raise PictureError(
                f"cannot be read: {error.strerror}, the most for {limits.max_pixels:,} px; "
                "raise input.max_pixels"
            ) from None
        raise PictureError(f"cannot be read: {error.strerror}") from None
