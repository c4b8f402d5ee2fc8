"""The prompts that web UIs, and sdcorrect itself, write into the pictures that they make.

AUTOMATIC1111's web UI and those after it have one text: the prompt, then `Negative prompt: ...`, then a
line of settings that begins with `Steps: 20`. It is a PNG's text `parameters`, else EXIF's UserComment.
"""

import io
import json
import re
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, NamedTuple

from PIL import ExifTags, Image
from PIL.PngImagePlugin import iTXt

from sdcorrect.errors import PictureError
from sdcorrect.inputs.formats import FIRST_BYTES, format_of
from sdcorrect.inputs.png import without_pixels
from sdcorrect.reading import open_file

KEYWORD = "parameters"
NEGATIVE = "Negative prompt:"
SETTINGS = re.compile(r"(.*,)?\s*Steps:\s*\d+\s*(,|$)")
#: EXIF 2.3, 4.6.5: eight bytes name the encoding of a UserComment.
CODES = {b"UNICODE\0": ("utf-16-be", "utf-16-le", "utf-8"), b"ASCII\0\0\0": ("utf-8", "latin-1")}
CODE = 8  #: bytes
WITHOUT = "the prompt needs {parameters}, and there are none in it that a web UI writes"


class Prompts(NamedTuple):
    """What a picture was made by."""

    prompt: str
    negative_prompt: str  #: empty where it had none


def prompts_in(file: Path) -> Prompts:
    """The prompts that are written in a picture; its pixels are not read.

    Raises:
        PictureError: there are none, it is no picture, or it cannot be read.
    """
    try:
        with open_file(file) as stream:
            return split(_text_in(stream))
    except OSError as error:
        raise PictureError(f"cannot be read: {error.strerror or error}") from None


def split(text: str) -> Prompts:
    """The prompts of a web UI's text, as these UIs themselves part it."""
    lines = [line.strip() for line in text.strip().split("\n")]
    ends = [number for number, line in enumerate(lines) if SETTINGS.match(line)]
    told = lines[: ends[-1]] if ends else lines
    first = next((n for n, line in enumerate(told) if line.startswith(NEGATIVE)), len(told))
    negative = "\n".join(told[first:]).removeprefix(NEGATIVE)
    return Prompts("\n".join(told[:first]).strip(), negative.strip())


def _text_in(stream: BinaryIO) -> str:
    format = format_of(stream.read(FIRST_BYTES))
    if format is None:
        raise PictureError("not a picture that can be read")
    text = None if format == "HEIF" else _written_in(stream, format)
    if text is None:
        raise PictureError(WITHOUT)
    if _is_json(text):
        raise PictureError(f"{WITHOUT}: they are JSON, which other programs write")
    return text


def _written_in(stream: BinaryIO, format: str) -> str | None:
    try:
        stream.seek(0)
        if format == "PNG":
            stream = io.BytesIO(without_pixels(stream, KEYWORD.encode()))
        with Image.open(stream, formats=[format]) as image:
            text = image.info.get(KEYWORD) if format == "PNG" else None
            # not the format's own: PNG's would look for more behind the pixels
            return _comment(Image.Image.getexif(image)) if text is None else _as_written(text)
    except PictureError:
        raise
    # on damaged bytes, the decoders raise whatever the reading of nonsense leads to
    except Exception:
        raise PictureError("the prompt needs {parameters}, and its metadata are damaged") from None


def _as_written(text: str) -> str:
    """A PNG's text. Its plain kind is Latin-1, and there are programs that write UTF-8 into it."""
    if isinstance(text, iTXt):
        return str(text)
    try:
        return text.encode("latin-1").decode("utf-8")
    except UnicodeError:
        return text


def _comment(exif: Image.Exif) -> str | None:
    """The UserComment, if a web UI wrote it; cameras and people write there too."""
    content = exif.get_ifd(ExifTags.IFD.Exif).get(ExifTags.Base.UserComment)
    if isinstance(content, str):
        content = content.encode("utf-8")
    text = _decoded(content) if isinstance(content, bytes) else ""
    return text if _has_settings(text) or _is_json(text) else None


def _decoded(content: bytes) -> str:
    """A UserComment.

    Programs differ in the byte order of their UTF-16, and some write UTF-8. Of the readings that are
    possible, one with settings in it is right, else the one with the most ASCII characters.
    """
    encodings, rest = CODES.get(content[:CODE]), content[CODE:]
    if encodings is None:
        encodings, rest = ("utf-8", "latin-1"), content
    read, even = [], rest[: len(rest) // 2 * 2]
    for encoding in encodings:
        with suppress(UnicodeDecodeError):
            units = even if encoding.startswith("utf-16") else rest
            read.append(units.decode(encoding).rstrip("\0").removeprefix("\ufeff"))
    texts = [text for text in read if "\0" not in text]  # UTF-16 can be read as UTF-8 with NULs
    return max(texts, key=lambda t: (_has_settings(t), sum(" " <= c <= "~" for c in t)), default="")


def _has_settings(text: str) -> bool:
    return any(SETTINGS.match(line.strip()) for line in text.split("\n"))


def _is_json(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False
