import io
from collections.abc import Callable
from pathlib import Path

import piexif
import pytest
from click.testing import Result
from piexif.helper import UserComment
from PIL import Image

from sdcorrect.batch.metadata import encode, parameters
from sdcorrect.errors import PictureError

TEXT = parameters("a “render”, 3d", "blurry", {"Steps": 20, "Seed": 7, "Model": 'a, "b": c'})


def test_parameters_are_as_the_web_uis_write_them() -> None:
    *prompts, settings = TEXT.split("\n")
    assert prompts == ["a “render”, 3d", "Negative prompt: blurry"]
    assert settings == r'Steps: 20, Seed: 7, Model: "a, \"b\": c"'
    assert parameters("p", "", {"Steps": 1}) == "p\nSteps: 1"


def saved(icon: Image.Image, suffix: str, text: str | None) -> Image.Image:
    return Image.open(io.BytesIO(encode(icon, suffix, text, 6)))


def test_a_png_has_them_as_text(icon: Image.Image) -> None:
    assert saved(icon, "png", TEXT).info["parameters"] == TEXT
    assert "parameters" not in saved(icon, "png", None).info


@pytest.mark.parametrize("suffix", ["jpg", "webp"])
def test_a_jpeg_or_webp_has_them_in_the_exif_user_comment(icon: Image.Image, suffix: str) -> None:
    # read as these UIs read it
    exif = piexif.load(saved(icon, suffix, TEXT).info["exif"])
    assert UserComment.load(exif["Exif"][piexif.ExifIFD.UserComment]) == TEXT
    assert not saved(icon, suffix, None).getexif()


def test_a_text_too_long_for_the_format_is_told(icon: Image.Image) -> None:
    with pytest.raises(PictureError, match=r"cannot be written as jpg: .*; choose output.format: png"):
        encode(icon, "jpg", "word " * 7000, 6)


def test_settings_are_those_of_the_recipe(
    translate: Callable[..., Result], pictures: Path, tmp_path: Path
) -> None:
    own = "{name: own, scheduler: unipc, steps: 3, guidance_scale: 2}"
    result = translate(pictures / "bicycle.png", "-o", tmp_path, "--set", f"method={own}")
    assert result.exit_code == 0, result.stderr
    text = Image.open(tmp_path / "own" / "bicycle.png").info["parameters"]
    assert "Steps: 3, Sampler: UniPC, CFG scale: 2" in text
