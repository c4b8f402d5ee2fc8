"""What is no Stable Diffusion that is driven here is refused by name, before it is loaded."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoints import Family, original_names, save_folder, tiny
from diffusers import StableDiffusionXLImg2ImgPipeline
from PIL import Image
from safetensors.torch import save_file
from sampling import NEGATIVE, PROMPT, SEED, relative, sdedit

from sdcorrect.errors import UsageError
from sdcorrect.models import load
from sdcorrect.settings import ModelSettings

Where = Callable[[Family, str], Path]


def complaint(path: Path, **settings: Any) -> str:
    with pytest.raises(UsageError) as error:
        load(ModelSettings.model_validate({"model": str(path), "device": "cpu"} | settings))
    message = str(error.value)
    assert "\n" not in message
    return message


def edit(file: Path, **changes: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"class_embed_type": "projection"}, "class_embed_type: projection, which is a class embedding"),
        ({"num_class_embeds": 10}, "num_class_embeds: 10, which is classes instead of texts"),
        ({"attention_type": "gated"}, "attention_type: gated, which is GLIGEN's boxes"),
        ({"addition_embed_type": "image"}, "addition_embed_type: image, which is more than texts"),
        ({"encoder_hid_dim_type": "image_proj"}, "image_proj, which is pictures beside the text"),
        ({"only_cross_attention": [True, True, True, False]}, "only_cross_attention: True"),
        ({"dual_cross_attention": True}, "dual_cross_attention: True"),
        ({"out_channels": 8}, "out_channels: 8"),
        ({"in_channels": 8}, "takes 8 channels, so it is an InstructPix2Pix model"),
        ({"in_channels": 5}, "takes 5 channels, so it is a depth model"),
        ({"mid_block_type": "UNetMidBlock2DSimpleCrossAttn"}, "UNetMidBlock2DSimpleCrossAttn"),
        ({"up_block_types": ["UpBlock2D", "SimpleCrossAttnUpBlock2D"]}, "has SimpleCrossAttnUpBlock2D"),
        ({"addition_embed_type": "text_time"}, "belong to different families"),
    ],
)
def test_a_unet_that_asks_for_more_than_texts_is_refused(
    checkpoint: Where, tmp_path: Path, change: dict[str, Any], expected: str
) -> None:
    folder = shutil.copytree(checkpoint("sd1", "folder"), tmp_path / "model")
    edit(folder / "unet" / "config.json", **change)
    assert expected in complaint(folder)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (
            {"image_noising_scheduler": ["diffusers", "DDPMScheduler"]},
            "which has image_noising_scheduler",
        ),
        ({"controlnet": ["diffusers", "ControlNetModel"]}, "which has controlnet: ControlNetModel"),
        ({"motion_adapter": ["diffusers", "MotionAdapter"]}, "which has motion_adapter: MotionAdapter"),
        ({"vae": ["diffusers", "AutoencoderTiny"]}, "which has vae: AutoencoderTiny"),
        ({"text_encoder": ["kolors", "ChatGLMModel"]}, "which has text_encoder: ChatGLMModel"),
    ],
)
def test_a_pipeline_with_other_parts_is_refused(
    checkpoint: Where, tmp_path: Path, change: dict[str, Any], expected: str
) -> None:
    folder = shutil.copytree(checkpoint("sd1", "folder"), tmp_path / "model")
    edit(folder / "model_index.json", _class_name="OtherPipeline", **change)
    message = complaint(folder)
    assert "not a Stable Diffusion pipeline but OtherPipeline" in message
    assert expected in message


@pytest.mark.parametrize(
    ("tensors", "expected"),
    [
        (
            {
                "model.diffusion_model.label_emb.0.0.weight": (64, 96),
                "noise_augmentor.data_mean": (1, 48),
            },
            "a class embedding, as in unCLIP",
        ),
        ({"model.diffusion_model.position_net.linears.0.weight": (8, 8)}, "GLIGEN's boxes"),
    ],
)
def test_a_single_file_of_another_architecture_is_refused(
    checkpoint: Where, tmp_path: Path, tensors: dict[str, tuple[int, ...]], expected: str
) -> None:
    more = {key: torch.zeros(shape) for key, shape in tensors.items()}
    save_file(original_names(tiny("sd2")) | more, tmp_path / "model.safetensors")
    base = str(checkpoint("sd2", "folder"))
    assert expected in complaint(tmp_path / "model.safetensors", base_config=base)


@pytest.mark.parametrize("part", ["tokenizer", "tokenizer_2"])
def test_a_folder_without_a_tokenizer_is_told(checkpoint: Where, tmp_path: Path, part: str) -> None:
    folder = shutil.copytree(checkpoint("sdxl", "folder"), tmp_path / "model")
    shutil.rmtree(folder / part)
    assert f"model {folder}: its {part} has neither tokenizer.json nor" in complaint(folder)


STATISTICS = {"latents_mean": [-1.6, 1.9, -1.4, 2.5], "latents_std": [8.5, 5.9, 6.5, 5.2]}


def test_latents_have_the_mean_and_deviation_that_the_vae_says(
    tmp_path: Path, icon: Image.Image
) -> None:
    folder = save_folder(tiny("sdxl"), tmp_path / "model")
    edit(folder / "vae" / "config.json", scaling_factor=0.5, **STATISTICS)
    model = load(ModelSettings(model=str(folder), device="cpu"))
    parts = model.pipe.components | {"scheduler": model.scheduler}
    pipe = StableDiffusionXLImg2ImgPipeline(**parts, add_watermarker=False)
    pipe.set_progress_bar_config(disable=True)
    common: dict[str, Any] = {
        "prompt": PROMPT,
        "negative_prompt": NEGATIVE,
        "image": icon,
        "strength": 0.5,
        "num_inference_steps": 4,
        "guidance_scale": 5.0,
    }
    expected = pipe(**common, generator=torch.Generator().manual_seed(SEED), output_type="latent").images
    ours = sdedit(model, icon)
    assert relative(ours, expected) < 1e-4
    picture = pipe(**common, generator=torch.Generator().manual_seed(SEED)).images[0]
    (decoded,) = model.decode(ours)
    assert decoded is not None
    difference = torch.tensor(list(decoded.tobytes())) - torch.tensor(list(picture.tobytes()))
    assert difference.abs().max() <= 1


@pytest.mark.parametrize(
    ("family", "change", "expected"),
    [
        ("sd1", STATISTICS, "has latents_mean and latents_std, which no SD 1.x or 2.x was trained with"),
        ("sdxl", {"latents_mean": [0.0] * 4}, "has latents_mean alone"),
        ("sdxl", {"shift_factor": 0.1}, "has shift_factor: 0.1"),
    ],
)
def test_latents_that_no_model_here_is_trained_on_are_refused(
    checkpoint: Where, tmp_path: Path, family: Family, change: dict[str, Any], expected: str
) -> None:
    folder = shutil.copytree(checkpoint(family, "folder"), tmp_path / "model")
    edit(folder / "vae" / "config.json", **change)
    assert expected in complaint(folder)


@pytest.mark.parametrize("family", ["sd1", "sdxl"])
@pytest.mark.parametrize("suffix", ["safetensors", pytest.param("ckpt", marks=pytest.mark.slow)])
def test_a_text_encoder_of_older_names_is_the_same(
    checkpoint: Where, tmp_path: Path, family: Family, suffix: str
) -> None:
    older = {
        re.sub(r"((cond_stage_model|embedders\.0)\.transformer\.)text_model\.", r"\1", key): value
        for key, value in original_names(tiny(family)).items()
    }
    position_ids = "cond_stage_model.transformer.embeddings.position_ids"
    older[position_ids] = torch.arange(24)[None]
    file = tmp_path / f"older.{suffix}"
    torch.save({"state_dict": older}, file) if suffix == "ckpt" else save_file(older, file)
    base = str(checkpoint(family, "folder"))
    model = load(ModelSettings(model=str(file), base_config=base, device="cpu"))
    expected = tiny(family).text_encoder.state_dict()
    loaded = model.pipe.text_encoder.state_dict()
    assert loaded.keys() == expected.keys()
    for key, value in expected.items():
        assert torch.equal(loaded[key], value), key
    older.pop(next(key for key in older if key.endswith("final_layer_norm.bias")))
    torch.save({"state_dict": older}, file) if suffix == "ckpt" else save_file(older, file)
    assert "tensors of its text_encoder are missing" in complaint(file, base_config=base)
