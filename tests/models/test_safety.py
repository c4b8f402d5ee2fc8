"""The safety checker flags, and a flagged picture fails with that reason; none is black."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from checkpoints import Family, save_folder, tiny
from click.testing import Result
from diffusers.pipelines.stable_diffusion import StableDiffusionSafetyChecker
from PIL import Image
from transformers import CLIPConfig, CLIPImageProcessor, CLIPTextConfig, CLIPVisionConfig

from sdcorrect.errors import UsageError
from sdcorrect.models import load
from sdcorrect.settings import ModelSettings

Where = Callable[[Family, str], Path]


def with_checker(folder: Path, *, strict: bool) -> Path:
    """A checkpoint whose checker flags everything, or nothing."""
    save_folder(tiny("sd1"), folder)
    vision = CLIPVisionConfig(
        hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=32
    )
    torch.manual_seed(0)
    config = CLIPConfig(
        text_config=CLIPTextConfig().to_dict(), vision_config=vision.to_dict(), projection_dim=8
    )
    checker = StableDiffusionSafetyChecker(config)
    checker.concept_embeds_weights.data.fill_(-2.0 if strict else 2.0)
    checker.special_care_embeds_weights.data.fill_(2.0)
    checker.save_pretrained(folder / "safety_checker")
    size = {"height": 32, "width": 32}
    CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=size).save_pretrained(
        folder / "feature_extractor"
    )
    return folder


@pytest.mark.parametrize("strict", [True, False])
def test_a_flagged_picture_fails_and_is_never_black(
    translate: Callable[..., Result], pictures: Path, tmp_path: Path, strict: bool
) -> None:
    model = with_checker(tmp_path / "model", strict=strict)
    out = tmp_path / "out"
    arguments = ["--model", model, "--set", "size=64", "--set", "safety_checker=true"]
    result = translate(pictures, "-o", out, *arguments)
    made = list(out.rglob("correct/**/*.png"))
    if strict:
        assert result.exit_code == 3
        assert result.stderr.count("flagged by the safety checker, and not saved") == 3
        assert not made
    else:
        assert result.exit_code == 0, result.output
        assert len(made) == 3
        assert all(Image.open(picture).getbbox() for picture in made)


def test_it_is_off_unless_asked_for(tmp_path: Path, icon: Image.Image) -> None:
    folder = with_checker(tmp_path / "model", strict=True)
    off = load(ModelSettings(model=str(folder), device="cpu"))
    on = load(ModelSettings(model=str(folder), device="cpu", safety_checker=True))
    assert off.flagged([icon, None]) == [False, False]
    before = icon.tobytes()
    assert on.flagged([icon, None]) == [True, False]
    assert icon.tobytes() == before


@pytest.mark.parametrize(("family", "expected"), [("sd1", "none could be loaded"), ("sdxl", "SDXL")])
def test_a_checkpoint_without_one_is_told(checkpoint: Where, family: Family, expected: str) -> None:
    settings = {"model": str(checkpoint(family, "folder")), "device": "cpu", "safety_checker": True}
    with pytest.raises(UsageError, match=expected) as error:
        load(ModelSettings.model_validate(settings))
    assert "\n" not in str(error.value)
