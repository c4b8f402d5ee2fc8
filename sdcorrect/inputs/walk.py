"""The files below a folder, by glob pattern where one is given."""

import logging
import os
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from sdcorrect.errors import UsageError, printable

logger = logging.getLogger(__name__)

ANYWHERE = ("**", "*")  #: every file below
HERE = ("*",)  #: the files of the folder itself


def split_pattern(path: Path) -> tuple[Path, tuple[str, ...]] | None:
    """The folder that `path` starts at and the glob pattern below it; None where it is no pattern.

    What exists is taken literally: a folder may be called `[1]`.
    """
    parts = path.parts
    literal = next(n for n in range(len(parts), -1, -1) if os.path.isdir(Path(*parts[:n])))
    pattern = parts[literal:]
    is_pattern = any(character in part for part in pattern for character in "*?[")
    return (Path(*parts[:literal]), pattern) if is_pattern else None


def walk(folder: Path, pattern: Sequence[str], exclude: Path) -> Iterator[str]:
    """The paths, relative to `folder`, of the files there that match `pattern`, in no order.

    Links to folders are followed, but not back to a folder on the way, which is warned about. Hidden
    files and folders, and the folder `exclude`, are not entered. No file is looked at, so that a
    hundred thousand take a second.

    Args:
        pattern: one glob pattern for each part of the path; `**` is any number of folders.

    Raises:
        UsageError: a folder cannot be listed, or `folder` is the one excluded.
    """
    root = os.path.realpath(folder)
    excluded = os.path.realpath(exclude)
    if root == excluded:
        raise UsageError(f"input {printable(folder)} is the output folder too; choose another for one")
    # a folder's relative path, and where it and those on the way to it really are
    waiting: list[tuple[tuple[str, ...], tuple[str, ...]]] = [((), (root,))]
    while waiting:
        parts, real = waiting.pop()
        for entry in _list(os.path.join(folder, *parts)):
            if entry.name.startswith("."):
                continue
            path = (*parts, entry.name)
            if not _is_folder(entry):
                if _matches(path, pattern):
                    yield "/".join(path)
            elif _leads_on(path, pattern):
                here = (
                    os.path.realpath(entry.path)
                    if entry.is_symlink()
                    else os.path.join(real[-1], entry.name)
                )
                if any(is_within(above, here) for above in real):
                    logger.warning("%s leads back to %s; not entered", printable(entry.path), here)
                elif here != excluded:
                    waiting.append((path, (*real, here)))


def _list(folder: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError as error:
        raise UsageError(f"input {printable(folder)}: cannot be listed: {error.strerror}") from None


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False  # a link that leads nowhere: reading it will say so


def is_within(path: str, folder: str) -> bool:
    """Whether `path`, absolute and without links, is `folder` or below it."""
    return os.path.commonpath((path, folder)) == folder


def _matches(path: Sequence[str], pattern: Sequence[str]) -> bool:
    if not pattern:
        return not path
    if pattern[0] == "**":
        return _matches(path, pattern[1:]) or (bool(path) and _matches(path[1:], pattern))
    return bool(path) and fnmatchcase(path[0], pattern[0]) and _matches(path[1:], pattern[1:])


def _leads_on(folder: Sequence[str], pattern: Sequence[str]) -> bool:
    """Whether a file in `folder`, or further below, can match."""
    if not pattern:
        return False
    if pattern[0] == "**" or not folder:
        return True
    return fnmatchcase(folder[0], pattern[0]) and _leads_on(folder[1:], pattern[1:])
