"""The same equalities on every family: SD 1.x, SD 2.x and SDXL, in float32 and bfloat16."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from checkpoints import FAMILIES, Family, save_folder, tiny
from click.testing import Result
from diffusers import LatentConsistencyModelPipeline
from PIL import Image
from sampling import NEGATIVE, PROMPT, of_diffusers, relative, sdedit

from sdcorrect.core.branches import Branches
from sdcorrect.core.capture import capture
from sdcorrect.core.inject import inject
from sdcorrect.core.plan import Injection
from sdcorrect.core.sites import attention_block_at
from sdcorrect.models import Model, load
from sdcorrect.recipes import BUILT_IN
from sdcorrect.settings import ModelSettings
from sdcorrect.translate import Request, Translator

Where = Callable[[Family, str], Path]


def load_family(checkpoint: Where, family: Family, **settings: object) -> Model:
    settings = {"model": str(checkpoint(family, "folder")), "device": "cpu"} | settings
    return load(ModelSettings.model_validate(settings))


@pytest.mark.parametrize("negative", [NEGATIVE, ""])
@pytest.mark.parametrize("family", FAMILIES)
def test_without_blocks_it_is_diffusers_img2img_of_that_family(
    checkpoint: Where, icon: Image.Image, family: Family, negative: str
) -> None:
    model = load_family(checkpoint, family)
    wide = icon.resize((128, 64))  # SDXL is told width and height
    expected = of_diffusers(model, wide, negative=negative or None)
    assert relative(sdedit(model, wide, negative=negative), expected) < 1e-4


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
def test_each_kind_of_prediction_goes_through_the_schedulers_own_code(
    checkpoint: Where, icon: Image.Image, kind: str
) -> None:
    model = load_family(checkpoint, "sd1", prediction_type=kind)
    assert relative(sdedit(model, icon), of_diffusers(model, icon)) < 1e-4
    other = load_family(checkpoint, "sd2", prediction_type=kind)
    assert model.decisive != load_family(checkpoint, "sd1").decisive
    assert other.scheduler.config.prediction_type == kind


@pytest.mark.parametrize("family", FAMILIES)
def test_injected_attention_is_the_captured_one_in_every_layer(
    checkpoint: Where, icon: Image.Image, family: Family
) -> None:
    model = load_family(checkpoint, family)
    unet, first = model.pipe.unet, model.layout.attention_levels[0]
    assert first == ((0, 1, 2) if family == "sdxl" else (3, 4, 5))
    layers = [len(attention_block_at(unet, block).self_attention) for block in first]
    assert layers == ([3, 3, 3] if family == "sdxl" else [1, 1, 1])
    plan = BUILT_IN["correct-attention"].plan(model.layout)
    assert plan.injections == (Injection("self-attention", first),)

    x0 = model.encode([icon], torch.zeros(1, 4, 8, 8))
    text = model.text([PROMPT], icon.size)
    with capture(unet, plan.injections) as captured:
        plain = unet(x0, 301, **text.arguments).sample
    with inject(
        unet, plan.injections, captured=captured, branches=Branches.of("captured", guided=False)
    ):
        again = unet(x0, 301, **text.arguments).sample
        other = unet(x0.flip(-1), 301, **text.arguments).sample
    assert relative(again, plain) < 1e-5
    assert relative(other, unet(x0.flip(-1), 301, **text.arguments).sample) > 1e-5
    for block, count in zip(first, layers, strict=True):
        assert len(captured.self_attention[block]) == count


@pytest.mark.parametrize("family", FAMILIES)
def test_every_recipe_runs_on_every_family(checkpoint: Where, icon: Image.Image, family: Family) -> None:
    model = load_family(checkpoint, family)
    recipes = [BUILT_IN[name] for name in ("sdedit", "correct", "correct-features", "ddim", "masactrl")]
    translator = Translator(model, recipes, steps=2, strength=1, guidance_scale=5)
    images = [icon, icon.transpose(Image.Transpose.FLIP_LEFT_RIGHT)]
    requests = [Request(image, 1 + i, PROMPT, "", "an icon") for i, image in enumerate(images)]
    results = translator(requests, variants=[recipe.name for recipe in recipes])
    pictures = {name: result.pictures[0].tobytes() for name, result in results.items()}
    assert len(set(pictures.values())) == len(recipes)
    assert results["correct"].evaluations == 1 + 2 * 2


@pytest.mark.parametrize("form", ["folder", "safetensors", pytest.param("ckpt", marks=pytest.mark.slow)])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_folder_is_translated_in_float32_and_in_bfloat16(
    checkpoint: Where,
    sdcorrect: Callable[..., Result],
    pictures: Path,
    tmp_path: Path,
    family: Family,
    form: str,
) -> None:
    made = {}
    for dtype in ("float32", "bfloat16"):
        out = tmp_path / dtype
        arguments = ["-o", out, "-p", PROMPT, "--model", checkpoint(family, form), "--dtype", dtype]
        base = "base_config=" + ("null" if form == "folder" else str(checkpoint(family, "folder")))
        result = sdcorrect(
            "translate", pictures, *arguments, "--steps", 2, "--set", base, "--set", "size=64"
        )
        assert result.exit_code == 0, result.output
        assert json.loads((out / "job.json").read_text())["counts"]["correct"]["done"] == 3
        with Image.open(out / "correct" / "bicycle.png") as picture:
            made[dtype] = np.asarray(picture, dtype=float)
    assert 0 < np.abs(made["float32"] - made["bfloat16"]).mean() < 6


@pytest.mark.parametrize(("guidance_scale", "branches"), [(0, 1), (1, 1), (1.5, 2)])
def test_without_guidance_there_is_one_branch_and_it_is_counted_so(
    checkpoint: Where, icon: Image.Image, guidance_scale: float, branches: int
) -> None:
    model = load_family(checkpoint, "sd2", timestep_spacing="trailing")
    expected = of_diffusers(model, icon, steps=2, guidance_scale=guidance_scale)
    ours = sdedit(model, icon, steps=2, guidance_scale=guidance_scale)
    assert relative(ours, expected) < 1e-4
    translator = Translator(
        model, [BUILT_IN["correct"]], steps=2, strength=1, guidance_scale=guidance_scale
    )
    assert translator.methods["correct"].solver(model.scheduler)[1].tolist() == [999, 499]
    results = translator([Request(icon, 1, PROMPT)], variants=["correct"])
    assert results["correct"].evaluations == 1 + 2 * branches


def test_a_model_that_follows_guidance_is_told_it_as_diffusers_tells_it(
    icon: Image.Image, tmp_path: Path
) -> None:
    folder = save_folder(tiny("sd1", time_cond_proj_dim=16), tmp_path / "lcm")
    model = load(ModelSettings(model=str(folder), device="cpu"))
    assert model.follows_guidance
    text = model.text([PROMPT], icon.size, guidance_scale=8)
    expected = LatentConsistencyModelPipeline.get_guidance_scale_embedding(
        model.pipe, torch.tensor([7.0]), embedding_dim=16
    )
    assert torch.equal(text.guidance, expected)
    ours = sdedit(model, icon, guidance_scale=8)
    assert relative(ours, of_diffusers(model, icon, guidance_scale=8)) < 1e-4
    assert relative(ours, sdedit(model, icon, guidance_scale=2)) > 1e-6
