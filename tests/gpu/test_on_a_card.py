"""What holds on the CPU holds on a card: `pytest -m gpu`, which takes the CPU where there is none."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import check_conformance
import numpy as np
import pytest
import torch
from diffusers import UNet2DConditionModel
from PIL import Image
from safetensors.torch import load_file

from sdcorrect.core import attention
from sdcorrect.models import Model, load
from sdcorrect.models.clock import Clock
from sdcorrect.models.machine import DTYPES, set_tf32
from sdcorrect.recipes import BUILT_IN
from sdcorrect.settings import DType, ModelSettings
from sdcorrect.translate import Request, Translator

pytestmark = pytest.mark.gpu
PACK = Path(__file__).parents[1] / "conformance"
CUDA = torch.cuda.is_available() and os.environ.get("SDCORRECT_TEST_DEVICE") != "cpu"
DEVICE = torch.device("cuda" if CUDA else "cpu")
needs_cuda = pytest.mark.skipif(not CUDA, reason="only CUDA has it")
#: How far from the CPU's float32 the pictures of a precision may be in the mean, in levels of 255.
NEAR = {"float32": 0.1, "float16": 4.0, "bfloat16": 12.0}


@pytest.fixture(scope="module", params=["float32", "float16", "bfloat16"])
def there(request: pytest.FixtureRequest) -> Model:
    return load(ModelSettings(device=str(DEVICE), dtype=request.param))


def translate(
    model: Model, name: str, images: Sequence[Image.Image], scheduler: str | None = None
) -> np.ndarray:
    own = {"steps": None, "inversion_steps": None} | ({"scheduler": scheduler} if scheduler else {})
    translator = Translator(
        model, [BUILT_IN[name].model_copy(update=own)], steps=4, strength=1, guidance_scale=5
    )
    asked = [Request(image, n, "in 3d", source_prompt="in 2d") for n, image in enumerate(images)]
    pictures = translator(asked, variants=[name])[name].pictures
    assert all(pictures)
    return np.stack([np.asarray(picture, dtype=int) for picture in pictures])


def test_the_command_runs_beside_what_is_installed_there(icon: Image.Image, tmp_path: Path) -> None:
    icon.save(tmp_path / "icon.png")
    job = ["translate", f"{tmp_path}/icon.png", "-o", f"{tmp_path}/out", "--device", str(DEVICE)]
    job += ["-p", "in 3d", "--steps", "2"]
    command = [sys.executable, "-c", f"from sdcorrect.cli import app; app({job})"]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert json.loads((tmp_path / "out" / "job.json").read_text())["device"] == str(DEVICE)


@pytest.mark.parametrize("name", ["correct", "correct-fast", "pnp-50", "p2p", "masactrl"])
def test_pictures_are_near_the_cpus_and_the_same_twice(
    there: Model, model: Model, icon: Image.Image, name: str
) -> None:
    once, twice = (translate(there, name, [icon]) for _ in range(2))
    assert np.array_equal(once, twice)
    far = np.abs(once - translate(model, name, [icon])).mean()
    assert far <= NEAR[str(there.dtype).removeprefix("torch.")]


@pytest.mark.parametrize("scheduler", ["dpm++", "unipc", "lcm"])
def test_solvers_step_as_on_the_cpu(
    there: Model, model: Model, icon: Image.Image, scheduler: str
) -> None:
    ours, theirs = (translate(each, "correct", [icon], scheduler) for each in (there, model))
    assert np.abs(ours - theirs).mean() <= NEAR[str(there.dtype).removeprefix("torch.")]


def test_a_picture_does_not_depend_on_what_else_is_in_its_batch(there: Model, icon: Image.Image) -> None:
    full = translate(there, "correct", [icon] * 8)
    mixed = translate(there, "correct", [icon, *[icon.rotate(90)] * 7])
    assert np.array_equal(full[0], mixed[0])


@pytest.mark.parametrize("case", ["sdedit", "attn345", "skip45", "attn34_skip45"])
@pytest.mark.parametrize("tokens", [1024, 1])
def test_it_conforms(case: str, tokens: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "MANY_TOKENS", tokens)
    set_tf32(False, False)
    cases = {each["name"]: each for each in json.loads((PACK / "cases.json").read_text())}
    unet = UNet2DConditionModel.from_pretrained(PACK / "unet").to(DEVICE).eval()
    pack = {name: one.to(DEVICE) for name, one in load_file(PACK / "tensors.safetensors").items()}
    assert check_conformance.relative_error(unet, pack, cases[case]) < check_conformance.BAR


@needs_cuda
@pytest.mark.parametrize("name", ["correct", "correct-fast", "pnp-50"])
def test_the_host_waits_only_for_the_pictures(icon: Image.Image, name: str) -> None:
    model = load(ModelSettings(device="cuda"))
    translate(model, name, [icon])
    decode, model_waits = model.decode, []

    def waiting(latents: torch.Tensor) -> list[Image.Image | None]:
        torch.cuda.set_sync_debug_mode("default")
        model_waits.append(1)
        return decode(latents)

    model.decode = waiting  # type: ignore[method-assign]
    torch.cuda.set_sync_debug_mode("error")
    try:
        translate(model, name, [icon])
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert model_waits == [1]


@needs_cuda
def test_spans_are_those_of_the_device() -> None:
    clock = Clock(DEVICE)
    large = torch.randn(4096, 4096, device=DEVICE)
    with clock.span("idle"):
        pass
    with clock.span("busy"):
        for _ in range(20):
            large = large @ large * 1e-4
    assert clock.seconds["busy"] > 10 * clock.seconds["idle"] > 0


@needs_cuda
def test_float32_is_whole_float32_unless_asked() -> None:
    a, b = torch.randn(2, 1024, 1024, device=DEVICE)
    images = torch.randn(2, 64, 64, 64, device=DEVICE)
    kernel = torch.randn(64, 64, 3, 3, device=DEVICE)
    load(ModelSettings(device="cuda", dtype="float32"))
    exact = a.double() @ b.double(), torch.conv2d(images.double(), kernel.double())
    for ours, expected in zip((a @ b, torch.conv2d(images, kernel)), exact, strict=True):
        assert float((ours - expected).norm() / expected.norm()) < 2e-6


@needs_cuda
def test_half_precision_and_channels_last_are_the_defaults() -> None:
    model = load(ModelSettings(device="cuda"))
    assert model.dtype == DTYPES["float16"]
    assert model.pipe.unet.conv_in.weight.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["correct", "pnp-50"])
def test_recipes_survive_compilation(icon: Image.Image, name: str, dtype: DType = "float32") -> None:
    plain, compiled = (
        load(ModelSettings(device=str(DEVICE), dtype=dtype, compile=on)) for on in (False, True)
    )
    ours, theirs = (translate(each, name, [icon]) for each in (compiled, plain))
    assert np.abs(ours - theirs).mean() < 1
