"""Find the companion of a picture (hint, true picture or mask) in a folder."""

import os
from functools import cache
from os.path import lexists
from pathlib import Path

from PIL import Image

from sdcorrect.config import Input
from sdcorrect.errors import PictureError, listed, printable
from sdcorrect.inputs.formats import MAGIC
from sdcorrect.inputs.items import Item
from sdcorrect.inputs.names import SUFFIXES


def companion_path(item: Item) -> str:
    """The picture's path relative to the input folder; for a picture outside it, its output's path.

    In a list, a picture can have an absolute path or one with `..`, which would lead out of the folder
    of companions, to the picture itself.
    """
    if os.path.isabs(item.key) or ".." in Path(item.key).parts:
        return item.output.as_posix()
    return Path(item.key).with_name(item.source.name).as_posix()  # keys of repeated pictures end in #2


def find_companion(what: str, folder: Path, item: Item) -> Path:
    """The file at the picture's relative path in `folder`, with any suffix, its own preferred.

    Args:
        what: the kind of companion, for messages.

    Raises:
        PictureError: there is none, or there are several.
    """
    own = folder / companion_path(item)
    stem = own.with_suffix("")
    suffixes = sorted({*_suffixes(), *map(str.upper, _suffixes())} - {own.suffix})
    # anything that exists: what is not a file is refused when it is read
    there = [file for file in (own, *(stem.with_name(stem.name + s) for s in suffixes)) if lexists(file)]
    if not there:
        raise PictureError(f"has no {what}: there is no {printable(stem)}.png (or .jpg, ...)")
    # on file systems without letter case, one file has several of these names
    if own not in there and len({file.lstat().st_ino for file in there}) > 1:
        raise PictureError(f"has several {what}s, {listed([str(file) for file in there])}; keep one")
    return there[0]


def companion_limits(limits: Input) -> Input:
    """The limits for companions: only max_pixels of the job's `limits` applies to them."""
    return Input(path=limits.path, max_pixels=limits.max_pixels)


def problem_of(folder: Path) -> str | None:
    """Why `folder` cannot provide companions; None if it can."""
    if not folder.is_dir():
        return "there is no such folder"
    try:
        return None if any(folder.iterdir()) else "the folder is empty"
    except OSError as error:
        return f"the folder cannot be listed: {error.strerror}"


@cache
def _suffixes() -> set[str]:
    """The suffixes of all formats that can be opened."""
    known = Image.registered_extensions().items()
    return SUFFIXES | {suffix for suffix, format in known if format in MAGIC}
