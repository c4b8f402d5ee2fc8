"""Where each picture goes: its own relative path with the output's suffix, no two to one file."""

import hashlib
import os
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from itertools import count
from posixpath import basename, dirname, join, splitext

from sdcorrect.errors import UsageError, printable

#: What tells a picture among other files, and what an output's suffix takes the place of.
SUFFIXES = {
    *(".png", ".apng", ".jpg", ".jpeg", ".jfif", ".webp", ".gif", ".bmp", ".tif", ".tiff"),
    *(".avif", ".heic", ".heif"),
}
NAME_BYTES = 255  #: the longest name that file systems take


def output_names(
    keys: Collection[str], suffix: str, given: Mapping[str, str] | None = None
) -> dict[str, str]:
    """The output of each key, relative to a variant's folder and never outside of it.

    `sub/a.jpg` goes to `sub/a.png`. Where several would be one file, or a file one of the folders,
    each of these keeps its own suffix too (`sub/a.jpg.png`); where that does not part them, or is
    longer than file systems take, a hash of its key stands in the name. Names that differ by letter
    case or Unicode form alone count as one, as they do on some systems. So a name depends on those
    that it collides with and on no other picture.

    Args:
        keys: the pictures' relative paths, each once; a root and `..` are left out of the output.
        suffix: the output format's, without its dot.
        given: the outputs that some of the keys must have.

    Raises:
        UsageError: two of the given outputs are one file, or one is another picture's folder.
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
                f"output {printable(given[first])}, given to {printable(first)}, "
                "is also another picture's file or folder; give each its own"
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
    """The same for all paths that are one file where letter case and Unicode form do not count."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", path).casefold())


def _folders(paths: Collection[str]) -> set[str]:
    """All folders on the way to `paths`, but for the one that they are relative to."""
    folders: set[str] = set()
    for path in paths:
        while (path := dirname(path)) and path not in folders:
            folders.add(path)
    return folders
