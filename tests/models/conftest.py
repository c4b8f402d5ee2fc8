"""Tiny checkpoints of each family, written when first asked for."""

from collections.abc import Callable
from pathlib import Path

import pytest
from checkpoints import Family, save_folder, save_single, tiny

Where = Callable[[Family, str], Path]


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Where:
    """The path of a family's checkpoint as "folder", "safetensors" or "ckpt"."""
    root = tmp_path_factory.mktemp("checkpoints")

    def where(family: Family, form: str) -> Path:
        path = root / (family if form == "folder" else f"{family}.{form}")
        if not path.exists():
            save = save_folder if form == "folder" else save_single
            save(tiny(family), path)
        return path

    return where
