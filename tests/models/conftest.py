"""Tiny checkpoints of each family, written once."""

from collections.abc import Callable
from pathlib import Path

import pytest
from checkpoints import FAMILIES, Family, save_folder, save_single, tiny

Where = Callable[[Family, str], Path]


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Where:
    """The path of a family's checkpoint as "folder", "safetensors" or "ckpt"."""
    root = tmp_path_factory.mktemp("checkpoints")
    for family in FAMILIES:
        pipe = tiny(family)
        save_folder(pipe, root / family)
        save_single(pipe, root / f"{family}.safetensors")
        save_single(pipe, root / f"{family}.ckpt")

    def where(family: Family, form: str) -> Path:
        return root / family if form == "folder" else root / f"{family}.{form}"

    return where
