"""Read TIFFs that Pillow refuses or misreads: above 8 bits, of rare depths, or with separate planes."""

import io
from collections.abc import Callable

import numpy as np
from PIL import Image
from tifffile import COMPRESSION, PHOTOMETRIC, PLANARCONFIG, SAMPLEFORMAT, TiffFile, TiffPage

from sdcorrect.errors import PictureError
from sdcorrect.inputs.samples import Decoded, Samples, over_full_range, to_eight_bits

BITS_PER_SAMPLE, PLANAR_CONFIGURATION, ORIENTATION, ICC_PROFILE = 258, 284, 274, 34675
CHANNELS: dict[int, int] = {
    PHOTOMETRIC.MINISWHITE: 1,
    PHOTOMETRIC.MINISBLACK: 1,
    PHOTOMETRIC.RGB: 3,
    PHOTOMETRIC.SEPARATED: 4,
}
#: Compressions whose output has a known size, so that no strip can unpack to more.
COMPRESSIONS = {
    COMPRESSION.NONE,
    COMPRESSION.LZW,
    COMPRESSION.ADOBE_DEFLATE,
    COMPRESSION.DEFLATE,
    COMPRESSION.PACKBITS,
}
PREMULTIPLIED = 1  #: value of ExtraSamples


def is_read_by_pillow(image: Image.Image) -> bool:
    """Whether Pillow decodes this TIFF correctly."""
    tags = getattr(image, "tag_v2", {})
    bits = tags.get(BITS_PER_SAMPLE, (1,))
    return max(bits) <= 8 and tags.get(PLANAR_CONFIGURATION, 1) == 1


def decode_tiff(data: bytes, check_size: Callable[[tuple[int, int]], None]) -> Decoded:
    """Decode the first picture of a TIFF.

    Args:
        check_size: called with width and height, px, before anything is decoded; may raise.

    Raises:
        PictureError: its samples are of an unsupported kind, or parts of them are missing.
    """
    with TiffFile(io.BytesIO(data)) as file:
        page = _first(file)
        check_size((page.imagewidth, page.imagelength))
        _check_kind(page, len(data))
        samples = page.asarray()
    if samples.dtype == np.bool_:
        samples = samples.view(np.uint8)
    if samples.ndim == 2:
        samples = samples[..., None]
    elif page.planarconfig == PLANARCONFIG.SEPARATE:
        samples = np.moveaxis(samples, 0, -1)
    colours, alpha = _parted(over_full_range(samples, page.bitspersample), page)
    profile, orientation = page.tags.get(ICC_PROFILE), page.tags.get(ORIENTATION)
    return Decoded(
        colours,
        None if alpha is None else Image.fromarray(to_eight_bits(alpha)),
        profile.value if profile else None,
        orientation.value if orientation else 1,
    )


def _first(file: TiffFile) -> TiffPage:
    try:
        page = file.pages.first
    except IndexError:
        raise PictureError("damaged or not decodable: it contains no picture") from None
    assert isinstance(page, TiffPage)
    return page


def _check_kind(page: TiffPage, size: int) -> None:
    bits, kind = page.bitspersample, page.sampleformat
    if kind != SAMPLEFORMAT.UINT or bits > 16:
        name = "floating-point" if kind == SAMPLEFORMAT.IEEEFP else "integer"
        raise PictureError(
            f"its samples have {bits} bits ({name}) without a defined range; save it with 8 or 16 bits"
        )
    channels = CHANNELS.get(page.photometric)
    if channels is None or not channels <= page.samplesperpixel <= channels + 1 or page.imagedepth > 1:
        raise PictureError(
            f"an unsupported kind of TIFF: photometric {int(page.photometric)}, "
            f"{page.samplesperpixel} samples of {bits} bits; save it as RGB"
        )
    if page.compression not in COMPRESSIONS:
        raise PictureError(
            f"a TIFF of {bits} bits with an unsupported compression, {int(page.compression)}; "
            "save it with LZW or none"
        )
    parts = list(zip(page.dataoffsets, page.databytecounts, strict=True))
    # tifffile would leave missing parts black
    if not parts or any(not count or not 0 < offset <= size - count for offset, count in parts):
        raise PictureError("damaged or not decodable: parts of its samples are missing")


def _parted(samples: Samples, page: TiffPage) -> tuple[Samples, Samples | None]:
    """Split into colours (higher values are lighter, except in CMYK), and alpha if there is one."""
    channels = CHANNELS[page.photometric]
    colours = samples[..., :channels]
    if page.photometric == PHOTOMETRIC.MINISWHITE:
        colours = 65535 - colours
    # RGB with a fourth sample of unknown meaning is RGBA, as in Pillow; 0 means that it is not alpha
    kind = page.extrasamples[0] if page.extrasamples else 2
    if page.samplesperpixel == channels or kind == 0:
        return colours, None
    alpha = samples[..., channels]
    if kind == PREMULTIPLIED:
        divisor = np.maximum(alpha, 1)[..., None].astype(np.uint32)
        colours = np.minimum(colours.astype(np.uint32) * 65535 // divisor, 65535).astype(np.uint16)
    return colours, alpha
