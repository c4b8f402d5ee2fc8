"""Decode the bytes of a file to a picture: upright, in sRGB, opaque."""

import io
import re
from collections.abc import Callable, Collection
from functools import partial
from typing import NamedTuple

import numpy as np
from PIL import AvifImagePlugin, Image, UnidentifiedImageError

from sdcorrect.config.job import Input, Keep
from sdcorrect.errors import FilteredOut, PictureError, one_line
from sdcorrect.inputs.exif import of_the_result
from sdcorrect.inputs.formats import FIRST_BYTES, format_of
from sdcorrect.inputs.jpeg import checked_jpeg
from sdcorrect.inputs.jpeg2000 import decode_deep_jpeg2000, outline_of
from sdcorrect.inputs.png import decode_deep, lean_png, profile_of_png
from sdcorrect.inputs.samples import Decoded, Samples, on_white, to_eight_bits, unfit_for_results
from sdcorrect.inputs.tiff import decode_tiff, is_read_by_pillow

PNG_DEPTH = 24  #: offset of the bits per sample in a PNG
EXIF_ITEM = re.compile(rb"(infe.{8})Exif", re.DOTALL)  #: in an AVIF's table of contents
ORIENTATION = 0x0112  #: EXIF's tag
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
#: Those that exchange width and height.
QUARTERS = [UPRIGHT[number] for number in (5, 6, 7, 8)]
#: (width, height) of a picture -> the smallest size at which it may be decoded, px. It must treat both
#: sides alike, because the picture may not be upright yet.
Least = Callable[[tuple[int, int]], tuple[int, int]]


class Shown(NamedTuple):
    """A picture as it should be shown, and notices of what was ignored in its file."""

    image: Image.Image  #: RGB
    notices: list[str]
    whole: tuple[int, int]  #: full width and height, px; the image may have been decoded smaller
    alpha: Image.Image | None = None  #: mode L, white where opaque; None without alpha
    #: if asked for and there: EXIF for the result, and the ICC profile, which is for RGB
    exif: bytes | None = None
    profile: bytes | None = None


def decode(data: bytes, limits: Input, least: Least | None = None, keep: Collection[Keep] = ()) -> Shown:
    """Decode the picture in `data`; if it has several, the first.

    A JPEG may be decoded at a half, quarter or eighth of its size, from its low frequencies alone
    (libjpeg's scaled inverse DCT), if that is not below `least`.

    Args:
        keep: what to keep of the file beside the picture.

    Raises:
        FilteredOut: the job's filters in `limits` exclude its size or shape.
        PictureError: it is not a picture, is damaged, or is larger than `limits` allow.
    """
    try:
        notices: list[str] = []
        decoded = _decode(data, partial(_check_size, limits=limits), notices.append, least)
        image, reason = on_white(decoded)
        if reason:
            notices.append(f"{reason}: ignored")
        profile = decoded.profile if "profile" in keep and not reason else None
        if profile and (unfit := unfit_for_results(profile)):
            notices.append(f"{unfit}: written in sRGB")
            profile = None
        width, height = decoded.whole or image.size
        turn, alpha = UPRIGHT.get(decoded.orientation), decoded.alpha
        if turn is not None:
            image, alpha = image.transpose(turn), alpha and alpha.transpose(turn)
        whole = (height, width) if turn in QUARTERS else (width, height)
        exif = _kept_exif(data, notices.append) if "exif" in keep else None
        return Shown(image, notices, whole, alpha, exif, profile)
    except PictureError:
        raise
    except Image.DecompressionBombError:
        raise PictureError(f"has more than the {limits.max_pixels:,} px of input.max_pixels") from None
    # on damaged bytes, decoders raise all kinds of exceptions
    except Exception as error:
        raise PictureError(f"damaged or not decodable: {_reason(error)}") from None


def _reason(error: Exception) -> str:
    said = one_line(error)
    # the message of a LookupError is only the key
    if isinstance(error, LookupError) or not said:
        return f"{type(error).__name__} {said}".strip()
    return said


def _decode(
    data: bytes,
    check_size: Callable[[tuple[int, int]], None],
    notice: Callable[[str], None],
    least: Least | None,
) -> Decoded:
    format = format_of(data[:FIRST_BYTES])
    if format == "JPEG":
        data = checked_jpeg(data)
    elif format == "PNG":
        data = lean_png(data)
    try:
        image = _open(data, format)
    except UnidentifiedImageError:
        if format == "TIFF":
            return decode_tiff(data, check_size)
        raise PictureError("not a picture that can be read" if data else "the file is empty") from None
    with image:
        check_size(image.size)
        if format == "TIFF" and not is_read_by_pillow(image):
            return decode_tiff(data, check_size)
        if format == "PNG":
            return _of_png(image, data, notice)
        profile = image.info.get("icc_profile")
        if format == "JPEG2000":
            outline = outline_of(data)
            if outline.size != image.size:
                raise PictureError("damaged or not decodable: its headers give two different sizes")
            if not outline.is_read_by_pillow:
                return decode_deep_jpeg2000(data, outline)
            profile = outline.profile
        whole = image.size
        if format == "JPEG" and least:
            image.draft(None, least(whole))
        image.load()
        colours, alpha = _parted(image)
        return Decoded(colours, alpha, profile, _orientation(image, notice), whole)


def _open(data: bytes, format: str | None) -> Image.Image:
    stream = io.BytesIO(data)
    if format == "AVIF":
        return _open_avif(data)
    if format == "HEIF":
        try:
            from pillow_heif import HeifImageFile
        except ImportError:
            raise PictureError("a HEIC picture, which needs `pip install 'sdcorrect[heif]'`") from None
        return HeifImageFile(stream)
    return Image.open(stream, formats=[format] if format else [])


def _open_avif(data: bytes) -> Image.Image:
    """Open an AVIF, whatever its major brand."""
    try:
        return AvifImagePlugin.AvifImageFile(io.BytesIO(data))
    except Exception:
        # Pillow writes the container's orientation into the EXIF, and fails if that is damaged
        hidden = EXIF_ITEM.sub(rb"\1none", data)
        return AvifImagePlugin.AvifImageFile(io.BytesIO(hidden))


def _of_png(image: Image.Image, data: bytes, notice: Callable[[str], None]) -> Decoded:
    colours: Image.Image | Samples
    if data[PNG_DEPTH] == 16:
        samples = decode_deep(data)
        has_alpha = samples.shape[-1] in {2, 4}
        colours = samples[..., :-1] if has_alpha else samples
        alpha = Image.fromarray(to_eight_bits(samples[..., -1])) if has_alpha else None
    else:
        transparent = image.info.get("transparency")
        if image.mode == "L" and isinstance(transparent, int):
            # Pillow scales 2-bit and 4-bit samples, but not the transparent value
            image.info["transparency"] = transparent * 255 // (2 ** data[PNG_DEPTH] - 1)
        image.load()
        colours, alpha = _parted(image)
    grey = colours.mode == "L" if isinstance(colours, Image.Image) else colours.shape[-1] == 1
    profile, reason = profile_of_png(data, image.info, grey)
    if reason:
        notice(f"{reason}: ignored")
    return Decoded(colours, alpha, profile, _orientation(image, notice))


def _parted(image: Image.Image) -> tuple[Image.Image | Samples, Image.Image | None]:
    """Split into colours (L, RGB, CMYK or 16-bit grey), and alpha if there is one."""
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PPM"):
        return np.asarray(image).astype(np.uint16)[..., None], None
    if image.mode in {"I", "F"}:
        raise PictureError("its samples have 32 bits without a defined range; save it with 8 or 16 bits")
    if image.mode == "1":
        image = image.convert("L")
    if image.has_transparency_data:
        grey = image.mode in {"L", "LA", "La"}
        image = image.convert("LA" if grey else "RGBA")
        return image.convert("L" if grey else "RGB"), image.getchannel("A")
    return image if image.mode in {"L", "CMYK"} else image.convert("RGB"), None


def _kept_exif(data: bytes, notice: Callable[[str], None]) -> bytes | None:
    """The EXIF for the result; None if the picture has none."""
    format = format_of(data[:FIRST_BYTES])
    try:
        if format == "TIFF":
            of_tiff = Image.Exif()  # whose tags are its EXIF
            of_tiff.load(data)
            return of_the_result(of_tiff)
        with _open(lean_png(data) if format == "PNG" else data, format) as image:
            exif = Image.Image.getexif(image)
            if image.info.get("exif") and not exif:  # of JPEGs Pillow is content with nothing
                raise ValueError
            return of_the_result(exif)
    # damaged EXIF raises whatever the reading of nonsense leads to
    except Exception:
        notice("its EXIF is damaged: not kept")
        return None


def _orientation(image: Image.Image, notice: Callable[[str], None]) -> int:
    try:
        # not the format's own method: PNG's would decode the pixels again to find EXIF after them
        orientation = Image.Image.getexif(image).get(ORIENTATION, 1)
    # damaged EXIF raises all kinds of exceptions
    except Exception:
        notice("its EXIF is damaged: ignored, and the picture is taken as upright")
        return 1
    return orientation if isinstance(orientation, int) else 1


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
