"""Real components at tiny size: the embedded model, and folders of small pictures."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import Result
from diffusers import UNet2DConditionModel
from PIL import Image
from typer.testing import CliRunner

from sdcorrect.cli import app
from sdcorrect.models import Model, load
from sdcorrect.settings import ModelSettings

TESTS = Path(__file__).parent
EXAMPLES = TESTS.parent / "sdcorrect" / "assets" / "pictures"


@pytest.fixture(autouse=True)
def _inference() -> Iterator[None]:
    with torch.inference_mode():
        yield


@pytest.fixture(scope="session")
def model() -> Model:
    return load(ModelSettings(device="cpu"))


@pytest.fixture(scope="session")
def unet(model: Model) -> UNet2DConditionModel:
    return model.pipe.unet


@pytest.fixture
def icon() -> Image.Image:
    """An example picture at the embedded model's own size, 64 x 64 px."""
    return Image.open(EXAMPLES / "church.png").convert("RGB").resize((64, 64))


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder with three different pictures, one of them in a subfolder."""
    folder = tmp_path / "pictures"
    (folder / "sub").mkdir(parents=True)
    for source, target in {
        "bicycle": "bicycle.png",
        "church": "church.jpg",
        "ghost": "sub/ghost.png",
    }.items():
        Image.open(EXAMPLES / f"{source}.png").convert("RGB").save(folder / target)
    return folder


@pytest.fixture
def sdcorrect() -> Callable[..., Result]:
    """Run the command line in this process: `sdcorrect("translate", folder, "-o", out)`."""

    def run(*arguments: Any) -> Result:
        return CliRunner().invoke(app, [str(argument) for argument in arguments])

    return run


@pytest.fixture
def translate(sdcorrect: Callable[..., Result]) -> Callable[..., Result]:
    """Translate at the smallest size and in the fewest steps that still do everything."""

    def run(*arguments: Any) -> Result:
        quick = ("-p", "in 3d render style", "--steps", "2", "--strength", "1", "--set", "size=32")
        return sdcorrect("translate", *quick, *arguments)

    return run
