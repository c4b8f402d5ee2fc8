"""Name the outputs: each picture's relative path with the output's suffix, all different."""

import hashlib
import os
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from itertools import count
from posixpath import basename, dirname, join, splitext

from sdcorrect.errors import UsageError, printable

#: The suffixes of pictures; an output's suffix replaces them.
SUFFIXES = {
    *(".png", ".apng", ".jpg", ".jpeg", ".jfif", ".webp", ".gif", ".bmp", ".tif", ".tiff"),
    *(".avif", ".heic", ".heif"),
}
NAME_BYTES = 255  #: the longest name that file systems allow


def output_names(
    keys: Collection[str], suffix: str, given: Mapping[str, str] | None = None
) -> dict[str, str]:
    """The output of each key, relative to a variant's folder and never outside it.

    `sub/a.jpg` becomes `sub/a.png`. If several would be the same file, or a file would be a folder,
    each of them also keeps its own suffix (`sub/a.jpg.png`); if that does not separate them, or is too
    long for file systems, the name gets a hash of its key. Names that differ only in letter case or
    Unicode form count as equal, as they do on some systems. So a name depends only on those that it
    collides with.

    Args:
        keys: the pictures' relative paths, each once; a root and `..` are removed from the output.
        suffix: the output format's suffix, without the dot.
        given: the outputs that some of the keys must have.

    Raises:
        UsageError: two of the given outputs are the same file, or one is another picture's folder.
    """
    given = given or {}
    candidates = {key: _candidates(key, suffix) for key in keys if key not in given}
    names = {key: next(tries) for key, tries in candidates.items()} | dict(given)
    colliding = set(names)
    while colliding:
        taken = Counter(map(_folded, names.values()))
        taken.update(_folders(taken))
        colliding = {key for key, name in names.items() if taken[_folded(name)] > 1}
        movable = colliding - given.keys()
        if colliding and not movable:
            first = min(colliding)
            raise UsageError(
                f"output {printable(given[first])} of {printable(first)} "
                "is also another picture's file or folder; give each picture its own"
            )
        for key in movable:
            names[key] = next(candidates[key])
    return names


def _candidates(key: str, suffix: str) -> Iterator[str]:
    path = "/".join(part for part in key.split("/") if part not in {"", ".", ".."})
    stem, own = splitext(path)
    short = stem if own.lower() in SUFFIXES else path
    for name in (f"{short}.{suffix}", f"{path}.{suffix}"):
        if len(os.fsencode(basename(name))) <= NAME_BYTES:
            yield name
    for attempt in count():
        digest = hashlib.sha256(os.fsencode(f"{attempt} {key}")).hexdigest()[:12]
        ending = f"-{digest}.{suffix}"
        name = basename(path)
        while len(os.fsencode(name + ending)) > NAME_BYTES:
            name = name[:-1]
        yield join(dirname(path), name + ending)


def _folded(path: str) -> str:
    """A form that is equal for paths that differ only in letter case or Unicode form."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", path).casefold())


def _folders(paths: Collection[str]) -> set[str]:
    """All folders above `paths`, except the one that they are relative to."""
    folders: set[str] = set()
    for path in paths:
        while (path := dirname(path)) and path not in folders:
            folders.add(path)
    return folders
