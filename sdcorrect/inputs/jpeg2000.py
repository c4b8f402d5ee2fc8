"""Read what Pillow does not read in a JPEG 2000: colour profiles, and depths other than 8 bits."""

import struct
from collections.abc import Iterator
from dataclasses import dataclass

import imagecodecs
import numpy as np
from PIL import Image

from sdcorrect.errors import PictureError
from sdcorrect.inputs.samples import Decoded, over_full_range, to_eight_bits

CODESTREAM = b"\xff\x4f\xff\x51"
BOXES = 1000  #: at most in a file
ENUMERATED, PROFILE = 1, 2  #: the two methods of a colr box to specify colours
SRGB, GREY = 16, 17  #: enumerated colours (ISO 15444-1, I.5.3.3)


@dataclass(frozen=True)
class Outline:
    """The file's description of its samples, read before decoding."""

    size: tuple[int, int]  #: width and height, px
    depths: tuple[int, ...]  #: bits of each channel, plus 128 if signed
    colours: int | None = None  #: enumerated
    profile: bytes | None = None  #: ICC

    @property
    def is_read_by_pillow(self) -> bool:
        """Whether Pillow decodes it correctly: above 8 bits, it turns white to black."""
        return set(self.depths) == {8}


def outline_of(data: bytes) -> Outline:
    """Read the outline of a JPEG 2000. Raises PictureError if it is none."""
    start, colours, profile = (0 if data.startswith(CODESTREAM) else None), None, None
    for kind, begin, end in () if start == 0 else _boxes(data, 0, len(data)):
        if kind == b"jp2c":
            start = begin
            break
        if kind == b"jp2h":
            for inner, first, last in _boxes(data, begin, end):
                if inner == b"colr" and data[first] == ENUMERATED:
                    colours = int.from_bytes(data[first + 3 : first + 7], "big")
                elif inner == b"colr" and data[first] == PROFILE:
                    profile = data[first + 3 : last]
    if start is None or not data.startswith(CODESTREAM, start):
        raise PictureError("damaged or not decodable: no JPEG 2000 codestream")
    right, bottom, left, top, *_, channels = struct.unpack_from(">8IH", data, start + 8)
    if channels > 4:
        raise PictureError(f"a JPEG 2000 with {channels} channels; save it with at most 4")
    depths = tuple((d & 0x80) + (d & 0x7F) + 1 for d in data[start + 42 : start + 42 + 3 * channels : 3])
    return Outline((right - left, bottom - top), depths, colours, profile)


def _boxes(data: bytes, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """The kind of each box, and where its content starts and ends (ISO 15444-1, I.4)."""
    for _ in range(BOXES):
        if start + 8 > end:
            return
        length, head = int.from_bytes(data[start : start + 4], "big"), 8
        if length == 1:
            length, head = int.from_bytes(data[start + 8 : start + 16], "big"), 16
        stop = end if length == 0 else start + length
        if not start + head <= stop <= end:
            return
        yield data[start + 4 : start + 8], start + head, stop
        start = stop


def decode_deep_jpeg2000(data: bytes, outline: Outline) -> Decoded:
    """Decode a JPEG 2000 with a depth other than 8 bits.

    Raises:
        PictureError: its channels or colours are of an unsupported kind.
    """
    bits = outline.depths[0]
    if set(outline.depths) != {bits} or bits > 16 or outline.colours not in {None, SRGB, GREY}:
        depths = ", ".join(str(depth & 0x7F) for depth in outline.depths)
        raise PictureError(f"an unsupported kind of JPEG 2000: {depths} bits; save it with 8 bits")
    samples = np.asarray(imagecodecs.jpeg2k_decode(data))
    samples = over_full_range(samples[..., None] if samples.ndim == 2 else samples, bits)
    if samples.shape[-1] in {1, 3}:
        return Decoded(samples, None, outline.profile)
    alpha = Image.fromarray(to_eight_bits(samples[..., -1]))
    return Decoded(samples[..., :-1], alpha, outline.profile)
