"""List the files in a folder, by a glob pattern."""

import json
import logging
import os
from collections.abc import Collection, Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from sdcorrect.errors import UsageError, printable
from sdcorrect.inputs.left_out import LeftOut
from sdcorrect.reading import read_bytes

logger = logging.getLogger(__name__)

ANYWHERE = ("**", "*")  #: every file in it and in its subfolders
HERE = ("*",)  #: the files of the folder itself
#: Folders of network storage, systems and archives: thumbnails, bins, snapshots, resource forks.
OF_SYSTEMS = {
    *("@eadir", "@recycle", "@recently-snapshot", "@tmp", "#recycle", "#snapshot", "~snapshot"),
    *("$recycle.bin", "system volume information", "lost+found", "__macosx", "network trash folder"),
}
#: Files that a run leaves in its folder, with keys that distinguish them from others of that name.
LEFT_BY_RUNS = {"job.json": {"sdcorrect", "fingerprint"}, "dissect.json": {"settings", "units"}}
KEPT_BY_RUNS = {"records", "report"}  #: folders of a run beside its pictures, if it is itself the input
MOST_BYTES = 1 << 24  #: at most in such a file


def split_pattern(path: Path) -> tuple[Path, tuple[str, ...]] | None:
    """Split `path` into an existing folder and a glob pattern in it; None if it is not a pattern.

    Existing names are taken literally, because a folder may be called `[1]`.
    """
    parts = path.parts
    literal = next(n for n in range(len(parts), -1, -1) if os.path.isdir(Path(*parts[:n])))
    pattern = parts[literal:]
    is_pattern = any(character in part for part in pattern for character in "*?[")
    return (Path(*parts[:literal]), pattern) if is_pattern else None


def walk(
    folder: Path,
    pattern: Sequence[str],
    exclude: Path,
    companions: Collection[Path] = (),
    left_out: LeftOut | None = None,
) -> Iterator[str]:
    """The paths, relative to `folder`, of its files that match `pattern`, in no particular order.

    Links to folders are followed, except for loops, which cause a warning. Files are not opened, so that
    a hundred thousand take a second. The walk does not enter `exclude` and `companions`, nor, unless
    `pattern` names them, hidden folders, system folders, and outputs of earlier runs; it also skips
    hidden files. `left_out` collects all these except `exclude`.

    Args:
        pattern: one glob pattern for each part of the path; `**` matches any number of folders.

    Raises:
        UsageError: a folder cannot be listed, or `folder` is the excluded one.
    """
    root = os.path.realpath(folder)
    excluded, beside = os.path.realpath(exclude), {os.path.realpath(path) for path in companions}
    left_out = left_out or LeftOut()
    if root == excluded:
        raise UsageError(
            f"input {printable(folder)} is also the output folder; choose two different folders"
        )
    # the relative path of a folder, and the real paths of it and the folders above
    waiting: list[tuple[tuple[str, ...], tuple[str, ...]]] = [((), (root,))]
    while waiting:
        parts, real = waiting.pop()
        entries = _list(os.path.join(folder, *parts))
        of_run = KEPT_BY_RUNS if _is_left_by_run(entries) else set()
        if parts and of_run:
            left_out.outputs.append("/".join(parts))
            continue
        for entry in entries:
            path, name = (*parts, entry.name), entry.name
            hidden = name.startswith(".") and name not in pattern
            if not _is_folder(entry):
                if hidden and _matches(path, pattern):
                    left_out.hidden += 1
                elif _matches(path, pattern):
                    yield "/".join(path)
            elif not _leads_on(path, pattern):
                continue
            elif hidden or (name.casefold() in OF_SYSTEMS and name not in pattern):
                left_out.folders.append("/".join(path))
            elif name in of_run:
                left_out.outputs.append("/".join(path))
            else:
                link = entry.is_symlink()
                here = os.path.realpath(entry.path) if link else os.path.join(real[-1], name)
                if any(is_within(above, here) for above in real):
                    logger.warning("%s leads back to %s; not entered", printable(entry.path), here)
                elif here in beside:
                    left_out.companions.append("/".join(path))
                elif here != excluded:
                    waiting.append((path, (*real, here)))


def _is_left_by_run(entries: Sequence[os.DirEntry[str]]) -> bool:
    """Whether the folder of these `entries` is the output of a run."""
    return any(
        _keys(entry.path) >= LEFT_BY_RUNS[entry.name] for entry in entries if entry.name in LEFT_BY_RUNS
    )


def _keys(file: str) -> set[str]:
    try:
        content = json.loads(read_bytes(Path(file), MOST_BYTES))
    except (OSError, ValueError, RecursionError):
        return set()
    return set(content) if isinstance(content, dict) else set()


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
        return False  # a broken link: reading it reports that


def is_within(path: str, folder: str) -> bool:
    """Whether `path`, absolute and without links, is `folder` or inside it."""
    return os.path.commonpath((path, folder)) == folder


def _matches(path: Sequence[str], pattern: Sequence[str]) -> bool:
    if not pattern:
        return not path
    if pattern[0] == "**":
        return _matches(path, pattern[1:]) or (bool(path) and _matches(path[1:], pattern))
    return bool(path) and fnmatchcase(path[0], pattern[0]) and _matches(path[1:], pattern[1:])


def _leads_on(folder: Sequence[str], pattern: Sequence[str]) -> bool:
    """Whether a file in `folder` or its subfolders can match."""
    if not pattern:
        return False
    if pattern[0] == "**" or not folder:
        return True
    return fnmatchcase(folder[0], pattern[0]) and _leads_on(folder[1:], pattern[1:])
