"""The Python interface, against the command line."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import Result
from diffusers import StableDiffusionPipeline
from PIL import Image

import sdcorrect
from sdcorrect.errors import SdcorrectError, UsageError
from sdcorrect.models import Model

QUICK = {"steps": 2, "strength": 1.0, "size": 32, "progress": False}
ROOT = Path(__file__).parents[1]
PROMPT = "in 3d render style"
EXAMPLE = ROOT / "sdcorrect" / "assets" / "pictures" / "church.png"


@pytest.fixture
def command(request: pytest.FixtureRequest) -> Callable[..., Result]:
    """The command line, whose fixture has the name of the package."""
    run: Callable[..., Result] = request.getfixturevalue("sdcorrect")
    return run


@pytest.fixture(scope="session")
def loaded(model: Model) -> sdcorrect.StableDiffusion:
    return sdcorrect.StableDiffusion(model)


def test_files_become_what_the_command_line_makes_of_them(
    loaded: sdcorrect.StableDiffusion, pictures: Path, tmp_path: Path, translate: Callable[..., Result]
) -> None:
    Image.open(pictures / "bicycle.png").crop((0, 0, 200, 120)).save(pictures / "wide.png")
    out = tmp_path / "out"
    assert translate(pictures, "-o", out, "--variants", "sdedit,correct").exit_code == 0
    files = sorted(path for path in pictures.rglob("*.*"))
    made = loaded.translate(files, PROMPT, variants=["sdedit", "correct"], **QUICK)
    assert list(made) == ["sdedit", "correct"]
    for name, of_variant in made.items():
        for file, result in zip(files, of_variant, strict=True):
            expected = Image.open((out / name / file.relative_to(pictures)).with_suffix(".png"))
            assert result.image.tobytes() == expected.tobytes()
    one, two = (made[name][0] for name in made)
    assert (one.evaluations, two.evaluations) == (4, 5)
    assert one.seed == two.seed and one.seconds > 0


def test_what_is_in_memory_is_what_its_pixels_are(
    loaded: sdcorrect.StableDiffusion, icon: Image.Image
) -> None:
    """Whatever holds them; and what is transparent lies on white."""
    clear = icon.convert("RGBA")
    clear.putalpha(Image.new("L", icon.size, 255))
    alone = loaded.translate(icon, PROMPT, **QUICK).image.tobytes()
    array = np.asarray(icon)
    assert loaded.translate(array, PROMPT, **QUICK).image.tobytes() == alone
    for other in (clear, icon.convert("CMYK"), icon.convert("L")):
        assert loaded.translate(other, PROMPT, **QUICK).image.size == (32, 32)


def test_a_pipeline_of_ones_own_is_used_and_left_as_it_was(
    loaded: sdcorrect.StableDiffusion, pictures: Path
) -> None:
    pipe = StableDiffusionPipeline(**loaded.model.pipe.components, requires_safety_checker=False)
    scheduler, processors = pipe.scheduler, dict(pipe.unet.attn_processors)
    ours = sdcorrect.from_pipe(pipe)
    file = pictures / "bicycle.png"
    made = [m.translate(file, PROMPT, **QUICK).image.tobytes() for m in (ours, loaded)]
    assert made[0] == made[1]
    assert pipe.scheduler is scheduler and pipe.unet.attn_processors == processors


@pytest.mark.slow
def test_the_readme_makes_the_pictures_of_the_command_line(
    tmp_path: Path, command: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sdcorrect").symlink_to(ROOT / "sdcorrect")
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    exec(code, {})
    church = ROOT / "sdcorrect" / "assets" / "pictures" / "church.png"
    options = ("-p", PROMPT, "--variants", "sdedit,correct", "--seed", "1")
    assert command("translate", church, "-o", "out", *options).exit_code == 0
    for name in ("sdedit", "correct"):
        ours, expected = (Image.open(file) for file in (f"{name}.png", f"out/{name}/church.png"))
        assert ours.tobytes() == expected.tobytes()


@pytest.mark.slow
def test_the_manual_and_its_notebook_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    cells = json.loads((ROOT / "docs" / "python.ipynb").read_text())["cells"]
    notebook = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    manual = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "python.md").read_text(), re.DOTALL)
    for pieces in (notebook, manual):
        names: dict[str, object] = {}
        for piece in pieces:
            exec(piece, names)


def test_a_transparent_background_is_that_of_the_source(
    loaded: sdcorrect.StableDiffusion, icon: Image.Image
) -> None:
    alpha = icon.convert("L").point([0] * 128 + [255] * 128)
    source = icon.copy()
    source.putalpha(alpha)
    made = loaded.translate(source, PROMPT, **QUICK | {"size": 64}, background="transparent")
    assert made.image.getchannel("A").tobytes() == alpha.tobytes()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"strenght": 0.5}, "strenght: there is no such setting; did you mean strength?"),
        ({"dtype": "float16"}, "dtype: is a setting of sdcorrect.load, not of translate"),
        ({"limit": 3}, "limit: is a setting of the command line, not of translate"),
        ({"strength": 2.0}, "strength: "),
        ({"method": "corect"}, "did you mean correct?"),
        ({"method": "correct", "variants": ["sdedit"]}, "method and variants: give only one"),
        ({"variants": "sdedit"}, "variants: should be a list of recipes, such as ['sdedit', 'correct']"),
        ({"negative_prompt": "{parameters}"}, "negative_prompt: {parameters} is filled in by the"),
    ],
)
def test_bad_settings_are_told_in_a_line(
    loaded: sdcorrect.StableDiffusion, icon: Image.Image, settings: dict[str, object], message: str
) -> None:
    with pytest.raises(UsageError) as error:
        loaded.translate(icon, PROMPT, **settings)
    assert message in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("pictures", "message"),
    [
        (5, "picture 0: should be a path, a Pillow image or an array; found 5"),
        ([EXAMPLE, None], "picture 1: should be a path, a Pillow image or an array; found None"),
        (torch.zeros(3, 8, 8), "picture 0: should be a path, a Pillow image or an array; found tensor("),
        (np.zeros((1, 8, 8, 3), np.uint8), "shape (1, 8, 8, 3) and uint8 is no picture; give (height,"),
    ],
)
def test_what_is_no_picture_is_told_in_a_line(
    loaded: sdcorrect.StableDiffusion, pictures: Any, message: str
) -> None:
    with pytest.raises(SdcorrectError) as error:
        loaded.translate(pictures, PROMPT, **QUICK)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_an_empty_prompt_is_told_in_words_of_python(
    loaded: sdcorrect.StableDiffusion, icon: Image.Image
) -> None:
    with pytest.raises(UsageError, match=r"^prompt: is empty; say what the pictures should become$"):
        loaded.translate(icon, "", **QUICK)


def test_a_picture_that_cannot_be_read_is_named(
    loaded: sdcorrect.StableDiffusion, tmp_path: Path
) -> None:
    (tmp_path / "broken.png").write_bytes(b"no picture")
    for file in (tmp_path / "broken.png", tmp_path / "gone.png"):
        with pytest.raises(SdcorrectError, match=file.name):
            loaded.translate(file, PROMPT, **QUICK)
    with pytest.raises(UsageError, match="device"):
        sdcorrect.load(device="cuda:9")
    with pytest.raises(UsageError, match="devise: there is no such setting; did you mean device?"):
        sdcorrect.load(devise="cpu")
    with pytest.raises(UsageError, match="strength: is a setting of translate, not of load"):
        sdcorrect.load(strength=0.5)
    with pytest.raises(UsageError, match="from_pipe: str has no .*; give a Stable Diffusion pipeline"):
        sdcorrect.from_pipe("mini")
