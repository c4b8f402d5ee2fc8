"""Convert decoded samples to 8 bits, sRGB, on white."""

from dataclasses import dataclass
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from PIL import Image

SAMPLE_BYTES = 8  #: at most per pixel: four 16-bit samples
METADATA_BYTES = 1 << 24  #: at most in a file, beside its samples
MODES = {1: "L", 3: "RGB", 4: "CMYK"}  #: by number of channels
#: A mode without alpha -> the colour space in the header of a matching profile.
SPACES = {"L": b"GRAY", "RGB": b"RGB ", "CMYK": b"CMYK"}
#: A mode -> the transform's name of its colour space.
TRANSFORMED = {"L": "gray", "RGB": "rgb", "CMYK": "cmyk"}
PROFILE_HEADER = 128  #: bytes
PROFILE_TAGS = 2048  #: the bytes that contain a profile's table of tags
TABLES = (b"A2B", b"B2A")
#: littlecms's cmsFLAGS_NOOPTIMIZE: with its precomputed tables, dark colours are 10 levels off.
EXACT = 0x100

Samples = NDArray[np.unsignedinteger[Any]]


@dataclass(frozen=True)
class Decoded:
    """A picture's samples as decoded, not upright yet."""

    #: L, RGB or CMYK; above 8 bits, (height, width, 1, 3 or 4 channels) from 0 to 65535
    colours: Image.Image | Samples
    alpha: Image.Image | None  #: mode L, white where opaque
    profile: bytes | None = None  #: ICC
    orientation: int = 1  #: as EXIF numbers them
    whole: tuple[int, int] | None = None  #: width and height, px, if the samples may be fewer

    @property
    def mode(self) -> str:
        if isinstance(self.colours, Image.Image):
            return self.colours.mode
        return MODES[self.colours.shape[-1]]


def on_white(decoded: Decoded) -> tuple[Image.Image, str | None]:
    """The picture in sRGB, on white where transparent, and why its profile was ignored, if so."""
    opaque, reason = None, None
    if decoded.profile is not None:
        reason = _misfit(decoded.profile, decoded.mode)
        if reason is None:
            try:
                opaque = _transformed(decoded.colours, decoded.mode, decoded.profile)
            except imagecodecs.CmsError:
                reason = "its colour profile is damaged"
    if opaque is None:
        opaque = _as_image(decoded.colours).convert("RGB")
    if decoded.alpha is not None:
        white = Image.new("RGB", opaque.size, "white")
        opaque = Image.composite(opaque, white, decoded.alpha)
    return opaque, reason


def unfit_for_results(profile: bytes) -> str | None:
    """Why no result, which is in RGB, can be in the colours of a source's profile."""
    space = profile[16:20].decode("latin-1").strip()
    if space != "RGB":
        return f"its colour profile is for {space} pictures, and what is made of it is RGB"
    try:
        in_profile(Image.new("RGB", (1, 1)), profile)
    except imagecodecs.CmsError:
        return "its colour profile leads to other colours, and from none back"
    return None


def in_profile(picture: Image.Image, profile: bytes) -> Image.Image:
    """An sRGB picture in the colours of an RGB profile, in which it looks the same."""
    srgb = imagecodecs.cms_profile("srgb")
    return Image.fromarray(_converted(np.asarray(picture), "RGB", srgb, profile))


def _misfit(profile: bytes, mode: str) -> str | None:
    if len(profile) < PROFILE_HEADER or profile[36:40] != b"acsp":
        return "its colour profile is damaged"
    space = profile[16:20]
    if space != SPACES[mode]:
        return f"its colour profile is for {space.decode('latin-1').strip()}, its samples are {mode}"
    return None


def _transformed(colours: Image.Image | Samples, mode: str, profile: bytes) -> Image.Image:
    samples = np.asarray(colours)
    if mode == "L":
        # transform each grey level once
        ramp = np.arange(np.iinfo(samples.dtype).max + 1, dtype=samples.dtype)[None]
        return Image.fromarray(_to_srgb(ramp, mode, profile)[0][samples.reshape(samples.shape[:2])])
    return Image.fromarray(_to_srgb(samples, mode, profile))


def _to_srgb(samples: Samples, mode: str, profile: bytes) -> NDArray[np.uint8]:
    return _converted(samples, mode, profile, imagecodecs.cms_profile("srgb"))


def _converted(samples: Samples, mode: str, profile: bytes, to: bytes) -> NDArray[np.uint8]:
    # for 8 bits and profiles without tables, littlecms has a fast path that is exact
    has_tables = any(table in of[:PROFILE_TAGS] for table in TABLES for of in (profile, to))
    is_fast = samples.dtype == np.uint8 and mode == "RGB" and not has_tables
    return np.asarray(
        imagecodecs.cms_transform(
            samples,
            profile,
            to,
            colorspace=TRANSFORMED[mode],
            outcolorspace="rgb",
            outdtype="uint8",
            flags=0 if is_fast else EXACT,
        )
    )


def _as_image(colours: Image.Image | Samples) -> Image.Image:
    if isinstance(colours, Image.Image):
        return colours
    eight = to_eight_bits(colours)
    mode = MODES[eight.shape[-1]]
    return Image.frombytes(mode, (eight.shape[1], eight.shape[0]), eight.tobytes())


def to_eight_bits(samples: Samples) -> NDArray[np.uint8]:
    """Samples from 0 to 65535 scaled to 0 to 255 and rounded; Pillow's own conversion clips them."""
    return _ramp(65535, 255, np.uint8)[samples]


def over_full_range(samples: Samples, bits: int) -> Samples:
    """Samples of `bits` bits, up to 16, scaled to 0 to 65535."""
    return samples if bits == 16 else _ramp(2**bits - 1, 65535, np.uint16)[samples]


def _ramp(most: int, full: int, dtype: Any) -> NDArray[Any]:
    """A table that scales samples from 0 to `most` to `full`; arithmetic would need more memory."""
    return np.round(np.linspace(0, full, most + 1)).astype(dtype)
