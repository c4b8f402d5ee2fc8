"""Attention over many tokens is kept as Q and K: the same pictures, and never the tokens squared."""

import json
from math import prod
from pathlib import Path
from typing import Any

import check_conformance
import numpy as np
import pytest
import torch
from diffusers import UNet2DConditionModel
from PIL import Image
from safetensors.torch import load_file
from torch.utils._python_dispatch import TorchDispatchMode

from sdcorrect.core import attention
from sdcorrect.core.branches import Branches
from sdcorrect.core.capture import capture
from sdcorrect.core.inject import inject
from sdcorrect.core.plan import Injection
from sdcorrect.models import Model
from sdcorrect.recipes import BUILT_IN
from sdcorrect.translate import Request, Translator

PACK = Path(__file__).parents[1] / "conformance"


def translate(model: Model, image: Image.Image, name: str, weight: float) -> np.ndarray:
    recipe = BUILT_IN[name].model_copy(update={"steps": None, "inversion_steps": None})
    weighed = tuple(part.model_copy(update={"weight": weight}) for part in recipe.inject)
    recipe = recipe.model_copy(update={"inject": weighed})
    translator = Translator(model, [recipe], steps=3, strength=1, guidance_scale=5)
    pictures = (image, image.rotate(90))
    asked = [Request(p, n, "in 3d", source_prompt="in 2d") for n, p in enumerate(pictures)]
    result = translator(asked, variants=[name])
    return np.stack([np.asarray(picture, dtype=int) for picture in result[name].pictures])


SLOW = [("correct", 0.5), ("pnp", 0.5), ("p2p", 1.0)]


@pytest.mark.parametrize(
    ("name", "weight"),
    [
        ("correct", 1.0),
        ("pnp", 1.0),
        *(pytest.param(*each, marks=pytest.mark.slow) for each in SLOW),
    ],
)
def test_pictures_are_the_same_but_for_rounding(
    model: Model, icon: Image.Image, monkeypatch: pytest.MonkeyPatch, name: str, weight: float
) -> None:
    small = icon.resize((32, 32))
    by_maps = translate(model, small, name, weight)
    monkeypatch.setattr(attention, "MANY_TOKENS", 1)
    assert np.abs(translate(model, small, name, weight) - by_maps).max() <= 1


@pytest.mark.parametrize("case", ["attn345", pytest.param("attn34_skip45", marks=pytest.mark.slow)])
def test_it_conforms(monkeypatch: pytest.MonkeyPatch, case: str) -> None:
    monkeypatch.setattr(attention, "MANY_TOKENS", 1)
    cases = {each["name"]: each for each in json.loads((PACK / "cases.json").read_text())}
    unet = UNet2DConditionModel.from_pretrained(PACK / "unet").eval()
    pack = load_file(PACK / "tensors.safetensors")
    assert check_conformance.relative_error(unet, pack, cases[case]) < check_conformance.BAR


class _Largest(TorchDispatchMode):
    """How many elements the largest tensor has that is computed within."""

    elements = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        for one in result if isinstance(result, tuple | list) else [result]:
            if isinstance(one, torch.Tensor):
                self.elements = max(self.elements, prod(one.shape))
        return result


@pytest.mark.parametrize("beside", ["captured", "inverted"])
def test_no_tensor_has_the_tokens_squared(unet: UNet2DConditionModel, model: Model, beside: Any) -> None:
    latents, tokens = torch.randn(1, 4, 32, 32), 32**2
    injections = [Injection("self-attention", (8,))]
    with capture(unet, injections) as captured:
        unet(latents, 1, model.embed("").embeddings)
    assert sum(t.numel() for t in captured.self_attention[8][0].tensors) < tokens**2 / 4
    branches = Branches.of(beside, guided=True)
    rows = len(branches.donors)
    known = captured if beside == "captured" else None
    with inject(unet, injections, captured=known, branches=branches), _Largest() as largest:
        unet(latents.expand(rows, -1, -1, -1), 1, model.embed("").embeddings.expand(rows, -1, -1))
    assert 0 < largest.elements < 4 * tokens**2 / 2  # of 4 heads
