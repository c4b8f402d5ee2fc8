"""Encode pictures with their prompt and settings inside, where web UIs look for them."""

import io
import json
from typing import Any, Literal

from PIL import ExifTags, Image
from PIL.PngImagePlugin import PngInfo

from sdcorrect.errors import PictureError, one_line

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


def encode(
    image: Image.Image, suffix: str, text: str | None, png_compression: int | Literal["fast"]
) -> bytes:
    """Encode `image` in the format of `suffix`, with `text` as metadata: the text `parameters` in PNG,
    EXIF UserComment in JPEG and WebP.

    Raises:
        PictureError: the format cannot hold the text or a picture of this size.
    """
    more: dict[str, Any] = FAST if png_compression == "fast" else {"compress_level": png_compression}
    more = more | {"quality": 95}
    if text is not None and suffix == "png":
        more["pnginfo"] = PngInfo()
        more["pnginfo"].add_text("parameters", text)
    elif text is not None:
        more["exif"] = _user_comment(text)
    stream = io.BytesIO()
    try:
        image.save(stream, PIL_FORMATS[suffix], **more)
    except (OSError, ValueError) as error:
        advice = "choose output.format: png, or a shorter prompt, or --no-embed-metadata"
        raise PictureError(f"cannot be written as {suffix}: {one_line(error)}; {advice}") from None
    return stream.getvalue()


def _user_comment(text: str) -> bytes:
    exif = Image.Exif()
    # EXIF 2.3, 4.6.5: eight bytes name the encoding; these UIs read big-endian UTF-16 under this one
    comment = b"UNICODE\0" + text.encode("utf-16-be")
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.UserComment] = comment
    # Pillow writes the tag 0x9286 with type 1 (bytes); readers accept only type 7 (undefined)
    return exif.tobytes().replace(b"\x92\x86\x00\x01", b"\x92\x86\x00\x07", 1)
