"""What makes a model fit a machine changes how it is computed, and not what."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from checkpoints import Family, save_folder, tiny
from diffusers import UNet2DConditionModel
from PIL import Image

from sdcorrect.core.regions import compile_regions
from sdcorrect.errors import UsageError
from sdcorrect.models import Model, load
from sdcorrect.models.machine import choose_vae_dtype, convolves_skips_once, lays_channels_last, tf32
from sdcorrect.recipes import BUILT_IN
from sdcorrect.settings import ModelSettings
from sdcorrect.translate import Request, Translator

Where = Callable[[Family, str], Path]
RECIPES = ("correct", "pnp", "masactrl")


def load_with(**settings: Any) -> Model:
    return load(ModelSettings.model_validate({"device": "cpu", **settings}))


def translate(model: Model, image: Image.Image, *names: str) -> dict[str, np.ndarray]:
    quick = {"steps": None, "inversion_steps": None}
    recipes = [BUILT_IN[name].model_copy(update=quick) for name in names]
    translator = Translator(model, recipes, steps=2, strength=1, guidance_scale=5)
    prompts = {"prompt": "in 3d render style", "source_prompt": "an icon"}
    results = translator([Request(image, seed, **prompts) for seed in (1, 2)], variants=names)
    return {name: np.asarray(result.pictures[0], dtype=float) for name, result in results.items()}


@pytest.mark.parametrize("setting", ["vae_slicing", "channels_last", "skips_once"])
def test_economy_rounds_otherwise_at_most(model: Model, icon: Image.Image, setting: str) -> None:
    thrifty = load_with(**{setting: True})
    plain, ours = (translate(each, icon, "correct")["correct"] for each in (model, thrifty))
    assert np.abs(ours - plain).max() <= 1  # one step of 8 bits
    # a folder's pictures are all of one rounding
    assert thrifty.decisive == model.decisive | {setting: True}


def test_the_signature_of_a_processor_is_found_out_once(model: Model) -> None:
    processors = model.pipe.unet.attn_processors.values()
    assert all("__signature__" in vars(type(processor).__call__) for processor in processors)


@pytest.mark.parametrize("asked", ["auto", True, False])
def test_convolutions_are_laid_out_for_cuda_there_and_as_asked_elsewhere(asked: Any) -> None:
    settings = ModelSettings(channels_last=asked)
    assert lays_channels_last(settings, torch.device("cuda")) is (asked is not False)
    assert lays_channels_last(settings, torch.device("cpu")) is (asked is True)


@pytest.mark.parametrize(
    ("asked", "device", "width", "expected"),
    [
        ("auto", "cpu", 1280, True),
        ("auto", "cpu", 192, False),
        ("auto", "cuda", 1280, False),
        (True, "cuda", 192, True),
        (False, "cpu", 1280, False),
    ],
)
def test_constant_skips_are_convolved_once_where_that_pays_or_is_asked(
    asked: Any, device: str, width: int, expected: bool
) -> None:
    with torch.device("meta"):
        unet = UNet2DConditionModel(
            block_out_channels=(32, width),
            down_block_types=("DownBlock2D",) * 2,
            up_block_types=("UpBlock2D",) * 2,
            mid_block_type=None,
        )
    assert convolves_skips_once(asked, unet, torch.device(device)) is expected


def test_the_setting_reaches_the_plan_of_a_method(model: Model) -> None:
    for asked, loaded in ((False, model), (True, load_with(skips_once=True))):
        translator = Translator(loaded, [BUILT_IN["correct"]], steps=2, strength=1, guidance_scale=5)
        assert translator.methods["correct"].plan.skips_once is asked


def test_settings_are_passed_to_the_pipeline() -> None:
    thrifty = load_with(vae_slicing=True, vae_tiling=True, channels_last=True)
    assert thrifty.pipe.vae.use_slicing
    assert thrifty.pipe.vae.use_tiling
    weight = thrifty.pipe.unet.conv_in.weight
    assert weight.is_contiguous(memory_format=torch.channels_last)
    assert not load_with().pipe.unet.conv_in.weight.is_contiguous(memory_format=torch.channels_last)
    assert thrifty.decisive["vae_tiling"] != load_with().decisive["vae_tiling"]


def distilled(tmp_path: Path) -> Path:
    """A U-Net as BK-SDM's: one layer a block, and no middle."""
    return save_folder(tiny("sd1", layers_per_block=1, mid_block_type=None), tmp_path / "bk-sdm")


def test_a_unet_without_a_middle_block_can_be_compiled(icon: Image.Image, tmp_path: Path) -> None:
    folder = str(distilled(tmp_path))
    compiled = load_with(model=folder, compile=True)
    kinds = Counter(type(m).__name__ for m in compiled.pipe.unet.modules() if "forward" in vars(m))
    assert kinds == {"GEGLU": 3 * 3}  # three levels, once on the way down and twice on the way up
    compile_regions(compiled.pipe.unet)  # as on a card
    with torch.compiler.set_stance("force_eager"):
        ours = translate(compiled, icon, "correct-attention", "masactrl")
    plain = translate(load_with(model=folder), icon, "correct-attention", "masactrl")
    for name, picture in plain.items():
        assert np.array_equal(ours[name], picture)


@pytest.mark.slow
def test_recipes_survive_compilation(model: Model, icon: Image.Image) -> None:
    compiled = load_with(compile=True)
    plain, ours = (translate(each, icon, *RECIPES) for each in (model, compiled))
    for name in RECIPES:
        assert np.abs(ours[name] - plain[name]).mean() < 1, name
    assert len({picture.tobytes() for picture in ours.values()}) == len(RECIPES)


@pytest.mark.parametrize(
    ("asked", "dtype", "force_upcast", "expected"),
    [
        ("auto", torch.float16, True, torch.float32),
        ("auto", torch.float16, False, torch.float16),
        ("auto", torch.bfloat16, True, torch.bfloat16),
        ("auto", torch.float32, True, torch.float32),
        ("float16", torch.float16, True, torch.float16),
        ("float32", torch.bfloat16, False, torch.float32),
    ],
)
def test_the_vae_is_upcast_where_float16_overflows_in_it(
    asked: Any, dtype: torch.dtype, force_upcast: bool, expected: torch.dtype
) -> None:
    assert choose_vae_dtype(ModelSettings(vae_dtype=asked), dtype, force_upcast) == expected


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_a_half_precision_model_with_its_vae_in_float32_translates(
    icon: Image.Image, model: Model, dtype: str
) -> None:
    half = load_with(dtype=dtype, vae_dtype="float32")
    assert half.pipe.vae.dtype == torch.float32
    assert half.dtype == getattr(torch, dtype)
    plain, ours = (translate(each, icon, "correct")["correct"] for each in (model, half))
    assert np.abs(ours - plain).mean() < 6


def test_offloading_to_the_cpu_from_the_cpu_is_refused() -> None:
    with pytest.raises(UsageError, match="cpu_offload: the model runs on the CPU anyway"):
        load_with(cpu_offload=True)


def allowed() -> tuple[bool, bool]:
    """Whether torch may compute products, and convolutions, in TF32."""
    return torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32


def test_float32_is_computed_in_float32_unless_tf32_is_asked_for() -> None:
    with tf32(True):  # what some other code left behind
        load_with()
        assert allowed() == (False, False)
        faster = load_with(tf32=True)
        assert allowed() == (True, True)
        with faster.in_float32():
            assert allowed() == (False, False)
        assert allowed() == (True, True)


def test_pictures_are_brought_to_and_from_tensors_as_diffusers_brings_them(model: Model) -> None:
    shades = Image.fromarray(np.arange(3072, dtype=np.uint8).reshape(32, 32, 3))
    ours = model._pixels([shades]) / 255 * 2 - 1
    assert torch.equal(ours, model.pipe.image_processor.preprocess([shades]))
    latents = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0)) * 3
    pixels = model.pipe.vae.decode(latents / model.pipe.vae.config.scaling_factor).sample
    expected = model.pipe.image_processor.postprocess(pixels)
    for picture, other in zip(model.decode(latents), expected, strict=True):
        assert picture is not None
        assert picture.tobytes() == other.tobytes()
