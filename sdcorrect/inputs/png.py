"""Read what Pillow does not handle in a PNG: long texts, colour chunks, and 16-bit samples."""

import io
import os
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO

import imagecodecs
import numpy as np
from PIL import PngImagePlugin

from sdcorrect.errors import PictureError
from sdcorrect.inputs.samples import METADATA_BYTES, Samples

SIGNATURE = 8  #: bytes
MOST_CHUNKS = 100_000
TEXTS = (b"tEXt", b"zTXt", b"iTXt")
#: The texts that may contain the picture's orientation.
ORIENTING = (b"XML:com.adobe.xmp\0", b"Raw profile type exif\0")

SRGB_GAMMA = 1 / 2.2
GAMMA_TOLERANCE = 0.05  #: libpng's own, below which a difference is not corrected
PRIMARIES = {"sRGB": (0.64, 0.33, 0.30, 0.60, 0.15, 0.06), "P3": (0.68, 0.32, 0.265, 0.69, 0.15, 0.06)}
D65 = (0.3127, 0.3290)
#: The codes of a cICP chunk (ITU-T H.273): primaries and transfer function.
SRGB_CODES, P3_CODES = (1, 13), (12, 13)
HDR_TRANSFERS = {16: "PQ", 18: "HLG"}

# printer profiles have megabytes; texts, which share this limit in Pillow, are removed first
PngImagePlugin.MAX_TEXT_CHUNK = METADATA_BYTES


def lean_png(data: bytes) -> bytes:
    """`data` without its texts, and with all chunks that decide how it is shown before its pixels.

    Raises:
        PictureError: it has more chunks than any encoder makes.
    """
    before: list[bytes] = []
    rest: list[bytes] = []
    end, seen_pixels = SIGNATURE, False
    for kind, start, end in _chunks(io.BytesIO(data)):
        seen_pixels = seen_pixels or kind == b"IDAT"
        if kind in TEXTS and not data.startswith(ORIENTING, start + 8):
            continue
        late = seen_pixels and (kind in TEXTS or kind == b"eXIf")
        (before if late or not seen_pixels else rest).append(data[start:end])
    return b"".join((data[:SIGNATURE], *before, *rest, data[end:]))


def without_pixels(stream: BinaryIO, keyword: bytes) -> bytes:
    """A PNG of the header, the EXIF and the texts of `keyword` alone, wherever in `stream` they stand.

    Raises:
        PictureError: they are larger, or it is in more pieces, than any program makes.
    """
    kept: list[bytes] = []
    for kind, start, end in _chunks(stream):
        wanted = kind in (b"IHDR", b"eXIf", b"IEND")
        if kind in TEXTS:
            stream.seek(start + 8)
            begins = stream.read(max(map(len, (keyword, *ORIENTING))) + 1)
            wanted = begins.startswith((keyword + b"\0", *ORIENTING))
        if wanted and end - start > METADATA_BYTES:
            raise PictureError(f"has metadata of more than {METADATA_BYTES:,} bytes")
        if wanted:
            stream.seek(start)
            kept.append(stream.read(end - start))
    stream.seek(0)
    return b"".join((stream.read(SIGNATURE), *kept))


def _chunks(stream: BinaryIO) -> Iterator[tuple[bytes, int, int]]:
    """The kind, start and end of each complete chunk."""
    size, start = stream.seek(0, os.SEEK_END), SIGNATURE
    for _ in range(MOST_CHUNKS):
        stream.seek(start)
        length, kind = stream.read(4), stream.read(4)
        end = start + 12 + int.from_bytes(length, "big")
        if end > size:
            return
        yield kind, start, end
        if kind == b"IEND":
            return
        start = end
    raise PictureError(f"has more than {MOST_CHUNKS:,} chunks")


def decode_deep(data: bytes) -> Samples:
    """Decode a 16-bit PNG: (height, width, 1 to 4); with 2 or 4 channels, the last is alpha."""
    samples = np.asarray(imagecodecs.png_decode(data))
    return samples[..., None] if samples.ndim == 2 else samples


def profile_of_png(
    data: bytes, info: Mapping[str | tuple[int, int], Any], grey: bool
) -> tuple[bytes | None, str | None]:
    """A colour profile for the colours of a PNG, and a notice of what was ignored.

    cICP overrides a profile, sRGB overrides gAMA and cHRM (PNG, third edition, 4.3).

    Raises:
        PictureError: it is HDR.
    """
    told = _cicp(data)
    icc = info.get("icc_profile")
    if told is not None:
        primaries, transfer = told
        if transfer in HDR_TRANSFERS:
            raise PictureError(f"an HDR picture ({HDR_TRANSFERS[transfer]}); save it in sRGB")
        if told == P3_CODES:
            return _rgb_profile(D65, PRIMARIES["P3"], None), None
        if told == SRGB_CODES:
            return None, None
        return icc, f"its cICP colours (primaries {primaries}, transfer {transfer}) are not supported"
    gamma = info.get("gamma")
    if icc or "srgb" in info or not gamma:
        return icc, None
    if not 0.1 <= gamma <= 10:
        return None, f"its gAMA, {gamma:g}, is impossible"
    colours: tuple[float, ...] = info.get("chromaticity", (*D65, *PRIMARIES["sRGB"]))
    is_srgb_gamma = abs(gamma / SRGB_GAMMA - 1) < GAMMA_TOLERANCE
    if grey:
        return None if is_srgb_gamma else imagecodecs.cms_profile("gray", gamma=1 / gamma), None
    if is_srgb_gamma and np.allclose(colours, (*D65, *PRIMARIES["sRGB"]), atol=0.002):
        return None, None
    return _rgb_profile(colours[:2], colours[2:], 1 / gamma), None


def _cicp(data: bytes) -> tuple[int, int] | None:
    for kind, start, _ in _chunks(io.BytesIO(data)):
        if kind == b"IDAT":
            break
        if kind == b"cICP":
            return data[start + 8], data[start + 9]
    return None


def _rgb_profile(white: tuple[float, ...], primaries: tuple[float, ...], gamma: float | None) -> bytes:
    """The profile of a display with these chromaticities (x, y each); `gamma` None is sRGB's curve."""
    curve = None
    if gamma is None:
        value = np.linspace(0, 1, 4096)
        linear = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
        curve = np.round(linear * 65535).astype(np.uint16)
    points = [part for x, y in np.reshape(primaries, (3, 2)) for part in (x, y, 1.0)]
    return bytes(
        imagecodecs.cms_profile(
            "rgb", whitepoint=[*white, 1.0], primaries=points, transferfunction=curve, gamma=gamma
        )
    )
