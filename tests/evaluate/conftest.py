"""A folder that sdcorrect translate has written, and tiny networks to measure it with."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from backbones import save_blip, save_clip, save_convolutional_clip, save_vit
from click.testing import Result
from PIL import Image
from typer.testing import CliRunner

from sdcorrect.cli import app

EXAMPLES = Path(__file__).parents[2] / "sdcorrect" / "assets" / "pictures"
CAPTIONS = {"bicycle": "a bicycle", "church": "a church on a hill", "sub/ghost": "a ghost"}


class Folders(NamedTuple):
    pictures: Path
    out: Path


def sdcorrect(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture(scope="session")
def networks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the networks clip, vit and blip."""
    root = tmp_path_factory.mktemp("networks")
    kinds = {
        "clip": save_clip,
        "convolutional": save_convolutional_clip,
        "vit": save_vit,
        "blip": save_blip,
    }
    for name, save in kinds.items():
        save(root / name)
    return root


@pytest.fixture(scope="session")
def _translated(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    root = tmp_path_factory.mktemp("translated")
    folders = Folders(root / "pictures", root / "out")
    for name, caption in CAPTIONS.items():
        picture = folders.pictures / f"{name}.png"
        picture.parent.mkdir(parents=True, exist_ok=True)
        Image.open(EXAMPLES / f"{picture.name}").convert("RGB").save(picture)
        picture.with_suffix(".txt").write_text(caption)
    quick = ("--steps", 2, "--strength", 1, "--set", "size=32", "--set", "variants=[sdedit, correct]")
    prompts = ("-p", "in 3d render style", "--set", "source_prompt=in flat design style")
    result = sdcorrect("translate", folders.pictures, "-o", folders.out, *quick, *prompts)
    assert result.exit_code == 0, result.stderr
    return folders


@pytest.fixture
def folders(_translated: Folders) -> Folders:
    """The pictures and what was made of them, as new: tests may change both."""
    for folder, kept in zip(_translated, _kept(_translated), strict=True):
        if kept.is_dir():
            shutil.rmtree(folder, ignore_errors=True)
            shutil.copytree(kept, folder)
        else:
            shutil.copytree(folder, kept)
    return _translated


def _kept(folders: Folders) -> list[Path]:
    return [folder.with_name(f"{folder.name}-kept") for folder in folders]


@pytest.fixture
def evaluate(folders: Folders, networks: Path) -> Callable[..., Result]:
    """Evaluate the translated folder with the tiny CLIP."""

    def run(*arguments: object) -> Result:
        return sdcorrect("evaluate", folders.out, "--clip", networks / "clip", *arguments)

    return run
