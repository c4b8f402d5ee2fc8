"""Tiny networks that measure, random and whole: CLIPs, ViT and BLIP as transformers saves them."""

from pathlib import Path

import torch
from checkpoints import text_config, tokenizer
from transformers import (
    BlipConfig,
    BlipForConditionalGeneration,
    BlipTextConfig,
    BlipVisionConfig,
    CLIPConfig,
    CLIPModel,
    CLIPVisionConfig,
    EfficientNetConfig,
    VisionTextDualEncoderConfig,
    VisionTextDualEncoderModel,
    ViTConfig,
    ViTModel,
)
from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

_TOWER = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": 32,
    "patch_size": 8,
}


def save_clip(folder: Path) -> Path:
    torch.manual_seed(3)
    text, vision = text_config(32, "quick_gelu"), CLIPVisionConfig(**_TOWER)
    config = CLIPConfig(text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=24)
    CLIPModel(config).half().save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size=32).save_pretrained(folder)
    return folder


def save_convolutional_clip(folder: Path) -> Path:
    torch.manual_seed(6)
    text = text_config(32, "quick_gelu")
    vision = EfficientNetConfig(
        image_size=64,
        width_coefficient=1.0,
        depth_coefficient=1.0,
        in_channels=[32, 8, 16],
        out_channels=[8, 16, 24],
        kernel_sizes=[3, 5, 3],
        strides=[1, 2, 2],
        num_block_repeats=[1, 2, 1],
        expand_ratios=[1, 2, 2],
        hidden_dim=1280,
        hidden_size=1280,
        initializer_range=0.5,  # by default a signal dies out
    )
    config = VisionTextDualEncoderConfig(
        text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=24
    )
    VisionTextDualEncoderModel(config).save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    CLIPImageProcessorPil(size={"shortest_edge": 64}, crop_size=64).save_pretrained(folder)
    return folder


def save_vit(folder: Path) -> Path:
    torch.manual_seed(4)
    ViTModel(ViTConfig(**_TOWER), add_pooling_layer=False).save_pretrained(folder)
    return folder


def save_blip(folder: Path) -> Path:
    torch.manual_seed(5)
    words = tokenizer()
    text = BlipTextConfig(
        vocab_size=len(words),
        hidden_size=32,
        encoder_hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=24,
        bos_token_id=words.bos_token_id,
        eos_token_id=words.eos_token_id,
        pad_token_id=words.pad_token_id,
        sep_token_id=words.eos_token_id,
    )
    vision = BlipVisionConfig(**_TOWER)
    config = BlipConfig(text_config=text.to_dict(), vision_config=vision.to_dict())
    BlipForConditionalGeneration(config).save_pretrained(folder)
    words.save_pretrained(folder)
    BlipImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder
