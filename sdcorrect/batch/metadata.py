"""Encode pictures with their prompt and settings inside, where web UIs look for them."""

import io
import json
from typing import Any, Literal

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from sdcorrect.config import Job
from sdcorrect.errors import PictureError, one_line
from sdcorrect.inputs.exif import with_comment
from sdcorrect.inputs.pictures import Picture, on_background
from sdcorrect.inputs.samples import in_profile

#: After PNG's filters little but noise is left, and runs are nearly all that zlib can find (Z_RLE).
FAST = {"compress_level": 1, "compress_type": 3}
PIL_FORMATS = {"png": "PNG", "jpg": "JPEG", "webp": "WEBP"}


def parameters(prompt: str, negative_prompt: str, fields: dict[str, Any]) -> str:
    """The text that AUTOMATIC1111's web UI writes and reads as `parameters`."""
    lines = [prompt]
    if negative_prompt:
        lines.append(f"Negative prompt: {negative_prompt}")
    lines.append(", ".join(f"{name}: {_quoted(value)}" for name, value in fields.items()))
    return "\n".join(lines)


def _quoted(value: object) -> str:
    text = str(value)
    return json.dumps(text, ensure_ascii=False) if any(c in text for c in ',:\n"') else text


def as_file(image: Image.Image, picture: Picture, job: Job, text: str | None) -> bytes:
    """The file of `image`, made from `picture`, with `text` and what the job keeps of the source.

    Raises:
        PictureError: its format cannot hold it.
    """
    if picture.profile:
        image = in_profile(image, picture.profile)
    image = on_background(image, picture, job.background)
    kept = picture.exif, picture.profile
    return encode(image, job.output.format, text, job.output.png_compression, *kept)


def encode(
    image: Image.Image,
    suffix: str,
    text: str | None,
    png_compression: int | Literal["fast"],
    exif: bytes | None = None,
    profile: bytes | None = None,
) -> bytes:
    """Encode `image` in the format of `suffix`, with `text` as metadata: the text `parameters` in PNG,
    EXIF UserComment in JPEG and WebP.

    Args:
        exif: of its source, whose UserComment `text` replaces.
        profile: ICC, of the colours of `image`; without one they are sRGB's.

    Raises:
        PictureError: the format cannot hold the text or a picture of this size.
    """
    more: dict[str, Any] = FAST if png_compression == "fast" else {"compress_level": png_compression}
    more, keeps_exif = more | {"quality": 95}, exif is not None
    if text is not None and suffix == "png":
        more["pnginfo"] = PngInfo()
        more["pnginfo"].add_text("parameters", text)
        exif = exif and with_comment(exif, None)  # which web UIs would read instead
    elif text is not None:
        # EXIF 2.3, 4.6.5: eight bytes name the encoding; these UIs read big-endian UTF-16 under this one
        exif = with_comment(exif, b"UNICODE\0" + text.encode("utf-16-be"))
    more |= {key: value for key, value in (("exif", exif), ("icc_profile", profile)) if value}
    stream = io.BytesIO()
    try:
        image.save(stream, PIL_FORMATS[suffix], **more)
    except (OSError, ValueError) as error:
        ways = ["choose output.format: png"]
        ways += ["a shorter prompt", "--no-embed-metadata"] if text is not None else []
        ways += ["leave exif out of output.keep"] if keeps_exif else []
        advice = ", or ".join(ways)
        raise PictureError(f"cannot be written as {suffix}: {one_line(error)}; {advice}") from None
    return stream.getvalue()
