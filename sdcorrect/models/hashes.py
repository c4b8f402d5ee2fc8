"""Hashes that identify the content of a file, or of the files that are loaded from a folder."""

import hashlib
import os
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

#: Weights of other libraries, and notes and pictures beside weights: neither loaded nor downloaded.
NOT_LOADED = ("*.msgpack", "*.h5", "*.onnx", "*.onnx_data", "*.md", "*.png", "*.jpg")


def hash_folder(folder: Path, patterns: Sequence[str]) -> str:
    """SHA-256 over the names and contents of a folder's files that match `patterns`."""
    digest = hashlib.sha256()
    names = {file: file.relative_to(folder).as_posix() for file in files_below(folder)}
    for file, name in sorted(names.items()):
        if matches(name, patterns) and not matches(name, NOT_LOADED):
            digest.update(name.encode())
            _feed(digest, file)
    return digest.hexdigest()


def files_below(folder: Path, above: tuple[str, ...] = ()) -> Iterator[Path]:
    """All files below `folder` except hidden ones, also in linked folders unless they form a loop.

    Args:
        above: the real paths of the folders above it.

    Raises:
        OSError: a folder cannot be listed.
    """
    here = os.path.realpath(folder)
    if here in above:
        return
    for path in folder.iterdir():
        if path.name.startswith("."):
            continue
        if path.is_dir():
            yield from files_below(path, (*above, here))
        else:
            yield path


def matches(name: str, patterns: Sequence[str]) -> bool:
    """Whether `name`, relative to a folder, matches one of the glob patterns; * matches / too."""
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def hash_file(file: Path) -> str:
    """SHA-256 of a file's content, the hash that model sites show."""
    digest = hashlib.sha256()
    _feed(digest, file)
    return digest.hexdigest()


def _feed(digest: "hashlib._Hash", file: Path) -> None:
    with file.open("rb") as stream:
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
