"""What the embedded model is warned about: pictures that are no icons, or far from its size."""

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result
from PIL import Image, ImageDraw, ImageFilter

import sdcorrect as package
from sdcorrect.config import Input
from sdcorrect.inputs.icons import doubt_of, looks_like_icon
from sdcorrect.inputs.items import Item
from sdcorrect.inputs.pictures import Picture, Sizing, read_image
from sdcorrect.models import Model

ASSETS = Path(package.__file__).parent / "assets"
ITEM = Item(Path("a.png"), "a.png", Path("a.png"), "", "")
Run = Callable[..., Result]


def noise(side: int) -> Image.Image:
    """Like a photograph: colours and edges at every scale, and grain."""
    random, picture = np.random.default_rng(0), Image.new("RGB", (side, side), "grey")
    for scale in (side // 2, side // 8, side // 32, 1):
        grain = random.integers(0, 256, (side // scale, side // scale, 3)).astype(np.uint8)
        layer = Image.fromarray(grain).resize((side, side), Image.Resampling.BICUBIC)
        picture = Image.blend(picture, layer, 0.4)
    return picture


def test_no_packaged_icon_is_doubted() -> None:
    # a part of each folder: all 384 take seconds, and none of them was doubted either
    files = [file for folder in ("pictures", "icons") for file in sorted((ASSETS / folder).rglob("*.*"))]
    pictures = files[:: max(1, len(files) // 60)]
    assert len(pictures) >= 48
    for file in pictures:
        image, _ = read_image(file, Input(path=file))
        assert looks_like_icon(Sizing("fit", 64, 32).apply(image)), file


def test_what_is_plainly_no_icon_is_known() -> None:
    assert not looks_like_icon(noise(256).resize((64, 64)))
    soft = noise(256).filter(ImageFilter.GaussianBlur(4)).resize((64, 64))
    assert not looks_like_icon(soft)
    # a flag fills its picture, a gradient its ground
    flag = Image.new("RGB", (64, 64), "white")
    ImageDraw.Draw(flag).rectangle((0, 0, 64, 20), fill="red")
    ImageDraw.Draw(flag).rectangle((20, 0, 30, 64), fill="blue")
    assert looks_like_icon(flag)
    assert looks_like_icon(Image.linear_gradient("L").resize((64, 64)).convert("RGB"))


def test_it_is_told_once_a_run(translate: Run, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for name in ("a photo.png", "another.png"):
        noise(64).save(tmp_path / "in" / name)
    quick = ("-o", tmp_path / "out", "--method", "sdedit", "--steps", 1)
    for told in (1, 0):  # what is done is not looked at again
        result = translate(tmp_path / "in", *quick)
        assert result.exit_code == 0
        lines = [line for line in result.stderr.splitlines() if line.startswith("warning: ")]
        assert len(lines) == told
        assert all("icons, and a photo.png does not look like one" in line for line in lines)


def test_a_size_far_from_its_own_is_told(model: Model, icon: Image.Image) -> None:
    def doubt(width: int, height: int) -> str | None:
        image = icon.resize((width, height))
        return doubt_of(model, [Picture(ITEM, "", image, image.size)])

    for size in ((64, 64), (128, 128), (32, 32), (64, 32)):
        assert doubt(*size) is None
    for size in ((160, 96), (512, 512), (16, 16)):
        assert f"trained at 64 px, and a.png has {size[0]}x{size[1]} px" in str(doubt(*size))


@pytest.mark.slow
def test_from_python_it_is_told_too(
    model: Model, icon: Image.Image, caplog: pytest.LogCaptureFixture
) -> None:
    loaded = package.StableDiffusion(model)
    quick = {"steps": 1, "strength": 1.0, "size": 64, "method": "sdedit", "progress": False}
    with caplog.at_level(logging.WARNING):
        loaded.translate(icon, "in ink", **quick)
        assert not caplog.messages
        loaded.translate([icon, noise(64)], "in ink", **quick)
    assert [("picture 1" in line and "does not look like" in line) for line in caplog.messages] == [True]
