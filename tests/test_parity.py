"""Recipes against final latents that the public implementations of their methods gave."""

import json
from pathlib import Path
from typing import Any

import pytest
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file
from sampling import relative
from torch import Tensor

from sdcorrect.core.alignment import Alignment, Prompt
from sdcorrect.core.layout import UNetLayout
from sdcorrect.core.sampler import denoise, invert, start
from sdcorrect.core.schedule import ddim_scheduler, spaced, timesteps_from
from sdcorrect.core.text import Text
from sdcorrect.recipes import BUILT_IN

pytestmark = pytest.mark.slow
PACK = Path(__file__).parent / "parity"
CASES = json.loads((PACK / "recipes.json").read_text())["cases"]
TOKENS = json.loads((PACK / "tokens.json").read_text())


@pytest.fixture(scope="module")
def unet() -> UNet2DConditionModel:
    return UNet2DConditionModel.from_pretrained(PACK / "unet").eval()


@pytest.fixture(scope="module")
def pack() -> dict[str, Tensor]:
    return load_file(PACK / "recipes.safetensors")


def prompt_of(name: str) -> Prompt:
    read = TOKENS["texts"][name]
    words, positions = tuple(read["text"].split()), tuple(map(tuple, read["positions"]))
    return Prompt(read["text"], tuple(read["tokens"]), words, positions)


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_a_recipe_gives_the_latents_of_the_public_code(
    unet: UNet2DConditionModel, pack: dict[str, Tensor], case: dict[str, Any]
) -> None:
    recipe = BUILT_IN[case["recipe"]]
    under = case.get("inversion_prompt", "null")
    assert recipe.inversion_prompt == ("empty" if under == "null" else "source")
    plan = recipe.plan(UNetLayout.from_config(unet.config))
    scheduler = spaced(ddim_scheduler(), case.get("steps_offset", recipe.steps_offset))
    timesteps = timesteps_from(scheduler, recipe.steps, 1.0)

    def text(name: str) -> Text:
        return Text(pack[f"text.{name}"])

    source = invert(unet, scheduler, pack["x0"], text("null"), plan, timesteps, prompt=text(under))
    begun = start(scheduler, pack["x0"], pack["x0"], source, plan, timesteps)
    if f"inverted.{case['name']}" in pack:
        assert relative(begun, pack[f"inverted.{case['name']}"]) < 1e-4
    alignment = recipe.words and Alignment.of(
        [prompt_of(under)], [prompt_of(case["cond"])], recipe.words, {}, TOKENS["length"]
    )
    ours = denoise(
        unet,
        scheduler,
        begun,
        timesteps,
        cond=text(case["cond"]),
        uncond=text(case["uncond"]),
        guidance_scale=case["guidance_scale"],
        source=source,
        plan=plan,
        alignment=alignment,
    )
    assert relative(ours, pack[f"final.{case['name']}"]) < 1e-4
