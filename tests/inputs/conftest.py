"""Folders as they lie about, and the pictures that a job finds in them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sdcorrect.config import load_job
from sdcorrect.inputs.items import Found, Item
from sdcorrect.inputs.items import find as find_pictures


@pytest.fixture
def look(tmp_path: Path) -> Callable[..., Found]:
    """What a job of a path finds, and what it tells."""

    def look(path: Any, **settings: Any) -> Found:
        defaults = {"prompt": "in oil", "output.path": str(tmp_path / "out"), "input.path": str(path)}
        given = {key.replace("__", "."): value for key, value in settings.items()}
        return find_pictures(load_job(None, defaults | given))

    return look


@pytest.fixture
def find(look: Callable[..., Found]) -> Callable[..., list[Item]]:
    return lambda path, **settings: look(path, **settings).items


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """ImageNet's layout, with what else lies about in real folders."""
    folder = tmp_path / "tree"
    for path in (
        "root.png",
        "notes.md",
        ".DS_Store",
        "n01440764/a.JPEG",
        "n01440764/._a.JPEG",
        "n02085620/b.jpg",
        "n02085620/deep/c.webp",
        ".cache/d.png",
    ):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(b"")
    return folder
