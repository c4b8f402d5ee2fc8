"""Where what goes with a picture lies in a folder of such: its hint, its truth, its mask."""

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
    """Where a picture is below the input folder; of one that is not below it, where its output is.

    The key of a picture that a list names by an absolute path, or by one with `..`, would lead out of
    the folder of companions, and to the picture itself.
    """
    if os.path.isabs(item.key) or ".." in Path(item.key).parts:
        return item.output.as_posix()
    return Path(item.key).with_name(item.source.name).as_posix()  # the key of a second one ends in #2


def find_companion(what: str, folder: Path, item: Item) -> Path:
    """The file at the picture's relative path in `folder`, by any suffix; its own where it is there.

    Args:
        what: it is, as messages say.

    Raises:
        PictureError: there is none, or there are several.
    """
    own = folder / companion_path(item)
    stem = own.with_suffix("")
    suffixes = sorted({*_suffixes(), *map(str.upper, _suffixes())} - {own.suffix})
    # not whether it is a file: what else stands there is refused when it is read
    there = [file for file in (own, *(stem.with_name(stem.name + s) for s in suffixes)) if lexists(file)]
    if not there:
        raise PictureError(f"has no {what}: there is no {printable(stem)}.png (or .jpg, ...)")
    # where letter case does not count, one file has two of these names
    if own not in there and len({file.lstat().st_ino for file in there}) > 1:
        raise PictureError(f"has several {what}s, {listed([str(file) for file in there])}; keep one")
    return there[0]


def companion_limits(limits: Input) -> Input:
    """What `limits` of a job's pictures say of what goes with them: how large it may be, and no more."""
    return Input(path=limits.path, max_pixels=limits.max_pixels)


def problem_of(folder: Path) -> str | None:
    """Why no companion can be had from `folder`, if so."""
    if not folder.is_dir():
        return "there is no such folder"
    try:
        return None if any(folder.iterdir()) else "the folder is empty"
    except OSError as error:
        return f"the folder cannot be listed: {error.strerror}"


@cache
def _suffixes() -> set[str]:
    """Those of all formats that are opened."""
    known = Image.registered_extensions().items()
    return SUFFIXES | {suffix for suffix, format in known if format in MAGIC}
