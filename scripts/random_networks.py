"""Models with random weights, of the size of SD 1.5 or SDXL, to measure what they cost."""

from typing import Any, Literal

import torch
from diffusers import (
    AutoencoderKL,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, PreTrainedTokenizer

from sdcorrect.models import Model, load
from sdcorrect.models.machine import place_on_device
from sdcorrect.settings import ModelSettings

Family = Literal["sd15", "sdxl"]


def random_model(
    family: Family, device: torch.device, dtype: torch.dtype, *, small: bool = False, **settings: Any
) -> Model:
    """A model of the family with random weights, placed on `device` as in a job.

    Args:
        small: tiny networks of the same architecture, to try a script.
        settings: those of a job for its model.
    """
    mini, xl = load(ModelSettings(device="cpu")), family == "sdxl"
    tokenizer = mini.pipe.tokenizer
    tokenizer.model_max_length = 77
    torch.manual_seed(0)
    with torch.device(device):
        parts: dict[str, Any] = {
            "unet": UNet2DConditionModel(**(_unet_of_sdxl(small) if xl else _unet_of_sd15(small))),
            "vae": AutoencoderKL(
                block_out_channels=(8, 8, 16, 16) if small else (128, 256, 512, 512),
                layers_per_block=2,
                norm_num_groups=4 if small else 32,
                down_block_types=("DownEncoderBlock2D",) * 4,
                up_block_types=("UpDecoderBlock2D",) * 4,
                force_upcast=xl,
            ),
            "text_encoder": CLIPTextModel(_text(32 if small else 768, small, tokenizer)),
        }
        if xl:
            second = _text(48 if small else 1280, small, tokenizer)
            parts["text_encoder_2"] = CLIPTextModelWithProjection(second)
    parts = {name: part.to(dtype).eval() for name, part in parts.items()}
    parts |= {"scheduler": mini.scheduler, "tokenizer": tokenizer}
    if xl:
        pipe = StableDiffusionXLPipeline(**parts, tokenizer_2=tokenizer, add_watermarker=False)
    else:
        parts |= {"safety_checker": None, "feature_extractor": None}
        pipe = StableDiffusionPipeline(**parts, requires_safety_checker=False)
    asked = ModelSettings(**settings)
    place_on_device(pipe, None, asked, device)
    return Model(family, "random", {}, pipe, mini.scheduler, device, skips_once=asked.skips_once)


def sd15_sized() -> Model:
    """A model of SD 1.5's size on the CPU."""
    return random_model("sd15", torch.device("cpu"), torch.float32)


def _unet_of_sd15(small: bool) -> dict[str, Any]:
    return {
        "sample_size": 8 if small else 64,
        "block_out_channels": (16, 32, 32, 32) if small else (320, 640, 1280, 1280),
        "cross_attention_dim": 32 if small else 768,
        "attention_head_dim": 4 if small else 8,
        "norm_num_groups": 8 if small else 32,
    }


def _unet_of_sdxl(small: bool) -> dict[str, Any]:
    return {
        "sample_size": 8 if small else 128,
        "block_out_channels": (16, 32, 32) if small else (320, 640, 1280),
        "cross_attention_dim": 80 if small else 2048,
        "attention_head_dim": (2, 4, 4) if small else (5, 10, 20),
        "norm_num_groups": 8 if small else 32,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "transformer_layers_per_block": (1, 2, 3 if small else 10),
        "use_linear_projection": True,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 8 if small else 256,
        "projection_class_embeddings_input_dim": 96 if small else 2816,
    }


def _text(width: int, small: bool, tokenizer: PreTrainedTokenizer) -> CLIPTextConfig:
    return CLIPTextConfig(
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=2 if small else 12,
        projection_dim=width,
        num_attention_heads=4 if small else width // 64,
        vocab_size=49408,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
