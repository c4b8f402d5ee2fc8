"""Check by its configurations that a diffusers folder is a Stable Diffusion that can translate pictures.

Architectures that this program does not support are refused by name: they might load, and run wrongly.
"""

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from sdcorrect.errors import UsageError, printable

TOKENIZERS = ("tokenizer", "tokenizer_2")
CLIP = {"CLIPTextModel", "CLIPTextModelWithProjection"}
CLIP_TOKENIZERS = {"CLIPTokenizer", "CLIPTokenizerFast"}
#: The supported parts of a pipeline, and their classes.
DRIVEN = {
    "unet": {"UNet2DConditionModel"},
    "vae": {"AutoencoderKL"},
    "text_encoder": CLIP,
    "text_encoder_2": CLIP,
    **dict.fromkeys(TOKENIZERS, CLIP_TOKENIZERS),
}
#: Parts that are read in other ways, or that only IP-Adapters use.
BESIDE = {"scheduler", "safety_checker", "feature_extractor", "image_encoder"}
WANTED = "give SD 1.x, SD 2.x or SDXL base"
#: Models whose U-Nets take more than the 4 channels of a latent, by number of channels.
CHANNELS = {
    5: "a depth model",
    7: "an upscaling model",
    8: "an InstructPix2Pix model",
    9: "an inpainting model",
}
#: The supported values of settings of a U-Net; others need inputs beyond latents, texts and sizes.
USUAL = {
    "class_embed_type": (None,),
    "num_class_embeds": (None,),
    "class_embeddings_concat": (None, False),
    "attention_type": (None, "default"),
    "addition_embed_type": (None, "text_time"),
    "encoder_hid_dim_type": (None, "text_proj"),
    "only_cross_attention": (None, False),
    "dual_cross_attention": (None, False),
    "out_channels": (4,),
    "mid_block_type": (None, "UNetMidBlock2D", "UNetMidBlock2DCrossAttn"),
}
MEANING = {
    "class_embed_type": "a class embedding, as in unCLIP",
    "num_class_embeds": "classes instead of texts",
    "attention_type": "GLIGEN's boxes",
    "addition_embed_type": "more than texts and sizes",
    "encoder_hid_dim_type": "pictures beside the text",
    "only_cross_attention": "attention without self-attention",
}
BLOCKS = {"DownBlock2D", "CrossAttnDownBlock2D", "UpBlock2D", "CrossAttnUpBlock2D"}


def check_folder(what: str, folder: Path, index: Mapping[str, Any]) -> None:
    """Refuse a diffusers folder of another architecture.

    Args:
        what: begins every message, such as "model fine-tune".
        index: the content of its model_index.json.

    Raises:
        UsageError: the architecture is not supported, or a configuration cannot be read.
    """
    parts = _parts(index)
    xl = "text_encoder_2" in parts
    _check_parts(what, index)
    _check_tokenizers(what, folder, parts)
    _check_unet(what, read_config(what, folder, "unet"), xl=xl)
    check_latents(f"{what}: its VAE", read_config(what, folder, "vae"), xl=xl)


def read_config(what: str, folder: Path, part: str, name: str = "config.json") -> dict[str, Any]:
    """The configuration of a part of a diffusers folder.

    Args:
        what: begins every message, such as "model fine-tune".
        name: that of the file.

    Raises:
        UsageError: it is missing, or is not a configuration.
    """
    try:
        config = json.loads((folder / part / name).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{what}: {part}/{name} cannot be read: {error}") from None
    if not isinstance(config, dict):
        raise UsageError(f"{what}: {part}/{name} is not a model's configuration")
    return config


def _parts(index: Mapping[str, Any]) -> dict[str, str]:
    """The class of each part that a pipeline has."""
    pairs = {part: value for part, value in index.items() if isinstance(value, list) and value[1:]}
    return {part: value[1] for part, value in pairs.items() if value[1] is not None}


def _check_parts(what: str, index: Mapping[str, Any]) -> None:
    parts, kind = _parts(index), printable(index.get("_class_name", "of unknown class"))
    if parts.get("unet") != "UNet2DConditionModel":
        raise UsageError(f"{what}: not a Stable Diffusion pipeline but {kind}; {WANTED}")
    if "text_encoder" not in parts:
        raise UsageError(f"{what}: has no first text encoder, like the SDXL refiner; {WANTED}")
    for part, its_class in parts.items():
        if part in BESIDE or its_class in DRIVEN.get(part, ()):
            continue
        raise UsageError(
            f"{what}: not a Stable Diffusion pipeline but {kind}, which has "
            f"{printable(part)}: {printable(its_class)}; {WANTED}"
        )


def _check_tokenizers(what: str, folder: Path, parts: Collection[str]) -> None:
    for part in parts:
        files = {file.name for file in (folder / part).glob("*")}
        if (
            part in TOKENIZERS
            and "tokenizer.json" not in files
            and not files >= {"vocab.json", "merges.txt"}
        ):
            raise UsageError(
                f"{what}: its {part} has neither tokenizer.json nor vocab.json and merges.txt"
            )


def _check_unet(what: str, config: Mapping[str, Any], *, xl: bool) -> None:
    refuse_other_inputs(what, config.get("in_channels", 4))
    for key, usual in USUAL.items():
        value = config.get(key, usual[0])
        value = any(value) if key == "only_cross_attention" and isinstance(value, list) else value
        if value not in usual:
            meaning = f", which is {MEANING[key]}" if key in MEANING else ""
            raise UsageError(
                f"{what}: its U-Net has {key}: {printable(value)}{meaning}; {WANTED}, without it"
            )
    for side in ("down_block_types", "up_block_types"):
        for block in config.get(side, ()):
            if block not in BLOCKS:
                raise UsageError(f"{what}: its U-Net has {printable(block)}; {WANTED}")
    if xl != (config.get("addition_embed_type") == "text_time"):
        raise UsageError(f"{what}: its U-Net and text encoders belong to different families; {WANTED}")


def refuse_other_inputs(what: str, channels: int) -> None:
    """Refuse a U-Net that takes more than a latent.

    Raises:
        UsageError: it takes another number of channels.
    """
    if channels != 4:
        raise UsageError(
            f"{what}: its U-Net takes {channels} channels, so it is "
            f"{CHANNELS.get(channels, 'another model')}; give a model that takes the 4 of a latent"
        )


def check_latents(what: str, config: Mapping[str, Any], *, xl: bool) -> None:
    """Refuse a VAE whose latents do not fit the model's family.

    Args:
        what: begins the message.
        config: the VAE's configuration.
        xl: whether the family is SDXL, whose pipelines know latents_mean and latents_std.

    Raises:
        UsageError: they do not fit.
    """
    if config.get("shift_factor"):
        raise UsageError(
            f"{what} has shift_factor: {config['shift_factor']}, which no supported Stable Diffusion has"
        )
    given = [key for key in ("latents_mean", "latents_std") if config.get(key) is not None]
    if len(given) == 1:
        raise UsageError(f"{what} has {given[0]} alone; latents_mean and latents_std must come together")
    if given and not xl:
        raise UsageError(
            f"{what} has latents_mean and latents_std, which no SD 1.x or 2.x was trained with; "
            "give another VAE"
        )
