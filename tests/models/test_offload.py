"""On another device nothing is left on the CPU; offloaded to it, each part comes when it is called."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from accelerator import ACCELERATOR, accelerator
from checkpoints import Family, controlnet
from PIL import Image
from torch import nn

from sdcorrect.models import Model, load
from sdcorrect.models.machine import place_on_device
from sdcorrect.recipes import BUILT_IN
from sdcorrect.settings import ModelSettings
from sdcorrect.translate import Request, Translator

Where = Callable[[Family, str], Path]
RECIPES = [
    BUILT_IN["correct"],
    BUILT_IN["masactrl"].model_copy(update={"steps": None, "inversion_steps": None}),
]


def residents(model: Model) -> set[str]:
    """The parts of `model` that are on the accelerator."""
    parts = model.pipe.components | {"controlnets": model.controlnets}
    return {
        name
        for name, part in parts.items()
        if isinstance(part, nn.Module) and next(part.parameters()).device.type == ACCELERATOR.type
    }


def translate(model: Model, image: Image.Image) -> list[bytes]:
    names = [recipe.name for recipe in RECIPES]
    translator = Translator(model, RECIPES, steps=2, strength=1, guidance_scale=5)
    hints = [image] if model.controlnets else []
    request = Request(image, 1, "a (red:1.3) [cat]", "blurry", "an icon", hints)
    results = translator([request], variants=names)
    return [result.pictures[0].tobytes() for result in results.values()]


@pytest.mark.slow
@pytest.mark.parametrize(("family", "syntax"), [("sd1", "plain"), ("sdxl", "weighted")])
def test_offloaded_parts_make_the_same_pictures(
    checkpoint: Where,
    tmp_path: Path,
    icon: Image.Image,
    monkeypatch: pytest.MonkeyPatch,
    family: Family,
    syntax: str,
) -> None:
    # this accelerator has no cache of memory
    monkeypatch.setattr("diffusers.pipelines.pipeline_utils.empty_device_cache", lambda _: None)
    controlnet(family).save_pretrained(tmp_path)
    settings: dict[str, Any] = {
        "model": str(checkpoint(family, "folder")),
        "controlnets": [str(tmp_path)],
        "prompt_syntax": syntax,
        "device": "cpu",
    }
    on_cpu, there, offloaded = (load(ModelSettings(**settings)) for _ in range(3))
    with accelerator():
        for model, offload in ((there, False), (offloaded, True)):
            settings = ModelSettings(cpu_offload=offload)
            place_on_device(model.pipe, model.controlnets, settings, ACCELERATOR)
            model.device = ACCELERATOR
        encoders = {"text_encoder", "text_encoder_2"} & set(there.pipe.components)
        assert residents(there) == {"unet", "vae", "controlnets"} | encoders
        assert residents(offloaded) == {"controlnets"}

        seen: list[set[str]] = []
        offloaded.pipe.unet.conv_in.register_forward_pre_hook(
            lambda *_: seen.append(residents(offloaded))
        )
        pictures = translate(offloaded, icon)
        assert len(set(pictures)) == 2
        assert pictures == translate(there, icon)
        assert all("unet" in parts and not parts & encoders for parts in seen)
        assert residents(offloaded) == {"vae", "controlnets"}
    assert pictures == translate(on_cpu, icon)
