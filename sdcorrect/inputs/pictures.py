"""One picture: decoded, upright, in sRGB, opaque and of a size that the model takes."""

import hashlib
import io
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

from sdcorrect.config import Input
from sdcorrect.errors import FilteredOut, PictureError
from sdcorrect.inputs.items import Item

Resize = Literal["fit", "crop", "none"]

#: What is opened, by content and whatever the file's name: the decoders that are well tried.
FORMATS: tuple[str, ...] = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")
HEIF_BRANDS = {b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1"}
SAMPLE_BYTES = 8  #: of a pixel, at most: four samples of 16 bits
METADATA_BYTES = 1 << 24  #: of a file, beside its samples
#: A side that is rounded up to the multiple may grow by this factor: more would not be the picture.
MAX_STRETCH = 4
#: The colour space of a profile -> the mode that its transform reads.
PROFILE_MODES = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK"}


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
    data = _read(item.source, limits)
    sha256 = hashlib.sha256(data).hexdigest()
    try:
        if item.problem:
            raise PictureError(item.problem)
        image = _decode(data, limits)
        return Picture(item, sha256, sizing.apply(image), image.size)
    except PictureError as error:
        error.sha256 = sha256
        raise


def read_image(file: Path, limits: Input) -> tuple[Image.Image, str]:
    """The picture of a file as `read_picture` decodes it, at its own size, and the file's SHA-256.

    Raises:
        PictureError: it cannot be read as a picture, or `limits` do not let it in.
    """
    data = _read(file, limits)
    return _decode(data, limits), hashlib.sha256(data).hexdigest()


def _read(file: Path, limits: Input) -> bytes:
    most = limits.max_pixels * SAMPLE_BYTES + METADATA_BYTES
    try:
        about = file.stat()
        if not stat.S_ISREG(about.st_mode):
            raise PictureError("cannot be read: it is not a file")
        if about.st_size > most:
            raise PictureError(
                f"its file has {about.st_size:,} bytes, more than a picture of "
                f"{limits.max_pixels:,} px; raise input.max_pixels"
            )
        return file.read_bytes()
    except OSError as error:
        raise PictureError(f"cannot be read: {error.strerror}") from None


def _decode(data: bytes, limits: Input) -> Image.Image:
    try:
        with _open(data) as image:
            _check_size(image.size, limits)
            upright = ImageOps.exif_transpose(image)
            return _flatten(upright)
    except PictureError:
        raise
    except Image.DecompressionBombError:
        raise PictureError(f"has more than the {limits.max_pixels:,} px of input.max_pixels") from None
    # on damaged bytes, Pillow's decoders raise whatever the reading of nonsense leads to
    except Exception as error:
        reason = (str(error).splitlines() or [""])[0] or type(error).__name__
        raise PictureError(f"damaged or not decodable: {reason}") from None


def _open(data: bytes) -> Image.Image:
    formats = FORMATS
    if data[4:8] == b"ftyp" and data[8:12] in HEIF_BRANDS:
        try:
            from pillow_heif import register_heif_opener
        except ImportError:
            raise PictureError("a HEIC picture: install what reads it, sdcorrect[heif]") from None
        register_heif_opener()
        formats = ("HEIF",)
    try:
        return Image.open(io.BytesIO(data), formats=formats)
    except UnidentifiedImageError:
        what = "not a picture that can be read" if data else "the file is empty"
        raise PictureError(what) from None


def _check_size(size: tuple[int, int], limits: Input) -> None:
    width, height = size
    shorter, longer = sorted(size)
    if width * height > limits.max_pixels:
        raise PictureError(
            f"{width}x{height} px: more than the {limits.max_pixels:,} px of input.max_pixels"
        )
    if limits.min_side and shorter < limits.min_side:
        raise FilteredOut(f"{width}x{height} px: a side is under input.min_side, {limits.min_side} px")
    if limits.max_side and longer > limits.max_side:
        raise FilteredOut(f"{width}x{height} px: a side is over input.max_side, {limits.max_side} px")
    if limits.max_aspect and longer > limits.max_aspect * shorter:
        raise FilteredOut(
            f"{width}x{height} px: more elongated than input.max_aspect, {limits.max_aspect:g}"
        )


def _flatten(image: Image.Image) -> Image.Image:
    """`image` in RGB, its colours in sRGB, and white where it is transparent."""
    profile = image.info.get("icc_profile")
    if image.mode in {"I", "F"}:
        raise PictureError("its samples have 32 bits and no set range; save it with 8 or 16")
    if image.mode.startswith("I;16"):
        image = _eight_bits(image)
    alpha = None
    if image.has_transparency_data:
        image = image.convert("RGBA")
        alpha = image.getchannel("A")
    opaque = _to_srgb(image, profile) if profile else image.convert("RGB")
    if alpha is None:
        return opaque
    white = Image.new("RGB", opaque.size, "white")
    return Image.composite(opaque, white, alpha)


def _eight_bits(image: Image.Image) -> Image.Image:
    """16-bit grey scaled to 8 bits: Pillow's own conversion clips it."""
    samples = np.asarray(image).astype(np.uint32)
    grey = Image.fromarray(((samples + 128) // 257).astype(np.uint8))
    transparent = image.info.get("transparency")
    if transparent is not None:
        grey.putalpha(Image.fromarray(np.where(samples == transparent, 0, 255).astype(np.uint8)))
    return grey


def _to_srgb(image: Image.Image, icc: bytes) -> Image.Image:
    profile = ImageCms.ImageCmsProfile(io.BytesIO(icc))
    space = profile.profile.xcolor_space.strip()
    mode = PROFILE_MODES.get(space)
    if mode is None or (image.mode == "CMYK") != (mode == "CMYK"):
        raise PictureError(f"its colour profile is for {space}, its samples are {image.mode}; strip it")
    converted = ImageCms.profileToProfile(
        image.convert(mode), profile, ImageCms.createProfile("sRGB"), outputMode="RGB"
    )
    assert converted is not None  # it converts in place only when told to
    return converted
