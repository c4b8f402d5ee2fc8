"""Check what Pillow does not check in a JPEG: the number of scans, and whether it is complete."""

import re
from dataclasses import dataclass, field

import simplejpeg

from sdcorrect.errors import PictureError

#: Each scan decodes the whole picture once more; encoders write about a dozen, a bomb thousands.
MOST_SCANS = 40
MOST_SEGMENTS = 100_000
END = b"\xff\xd9"
#: In a scan's data, 0xff is followed by a stuffed 0, or begins a restart marker.
MARKER = re.compile(rb"\xff+[^\x00\xff\xd0-\xd7]")
START_OF_FRAME = {0xC0, 0xC1, 0xC2}  #: baseline, extended, progressive
COLOURS = {1: "GRAY", 3: "RGB", 4: "CMYK"}
COEFFICIENTS = 64


@dataclass
class _Outline:
    """The segments of a JPEG that show whether it is complete."""

    scans: list[bytes] = field(default_factory=list)  #: headers of the scans
    components: bytes = b""
    ended: bool = False

    @property
    def is_complete(self) -> bool:
        """Whether the scans contain all coefficients of all components, to the last bit."""
        missing = {(c, k) for c in self.components for k in range(COEFFICIENTS)}
        for scan in self.scans:
            count = scan[0]
            first, last, bits = scan[1 + 2 * count : 4 + 2 * count]
            if bits & 0xF == 0:
                missing -= {(c, k) for c in scan[1 : 1 + 2 * count : 2] for k in range(first, last + 1)}
        return bool(self.components) and not missing


def checked_jpeg(data: bytes) -> bytes:
    """`data`, with an end marker added if only that is missing.

    Raises:
        PictureError: it has too many scans or segments, or ends before its last pixel.
    """
    outline = _outline(data)
    if outline.ended or not outline.is_complete:
        return data  # the decoder reports what else is missing
    whole = data + END
    try:
        # libjpeg fills in what is missing and only warns; strict turns its warnings into errors
        simplejpeg.decode_jpeg(whole, COLOURS[len(outline.components)], strict=True)
    except (ValueError, KeyError):
        raise PictureError("damaged or not decodable: the file is truncated") from None
    return whole


def _outline(data: bytes) -> _Outline:
    outline = _Outline()
    position = len(b"\xff\xd8")
    for _ in range(MOST_SEGMENTS):
        marker = MARKER.search(data, position)
        if marker is None:
            return outline
        kind, position = data[marker.end() - 1], marker.end()
        if kind == END[1]:
            outline.ended = True
            return outline
        length = int.from_bytes(data[position : position + 2], "big")
        segment = data[position + 2 : position + length]
        position += length
        if kind in START_OF_FRAME and len(segment) >= 6:
            outline.components = segment[6 : 6 + 3 * segment[5] : 3]
        elif kind == 0xDA and len(segment) >= 4 and len(segment) == 4 + 2 * segment[0]:
            outline.scans.append(segment)
            if len(outline.scans) > MOST_SCANS:
                raise PictureError(f"has more than {MOST_SCANS} scans, each over the whole picture")
    raise PictureError(f"has more than {MOST_SEGMENTS:,} segments")
