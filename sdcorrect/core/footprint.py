"""How much memory a plan needs per picture, computed from a U-Net's configuration."""

from collections.abc import Mapping
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor

from sdcorrect.core.capture import Captured
from sdcorrect.core.plan import Plan
from sdcorrect.core.sampler import invert_one_step
from sdcorrect.core.text import Text

TOKENS = 77  #: in a prompt; the result does not depend on it


def kept_bytes(
    config: Mapping[str, Any], plan: Plan, latent_size: tuple[int, int], dtype: torch.dtype, steps: int
) -> int:
    """The bytes of `A_k`, `S_k` and the like that are kept while one picture is denoised.

    Computed by running the inversion on meta tensors. A full inversion instead keeps its latents at
    the timesteps of the `steps` that are sampled, in float32.

    Args:
        latent_size: height and width of the latents.
    """
    height, width = latent_size
    if plan.inversion == "none":
        return 0
    if plan.inversion == "full":
        return int(config["in_channels"]) * height * width * torch.float32.itemsize * steps
    with torch.device("meta"):
        unet = UNet2DConditionModel.from_config(dict(config)).to(dtype)
        x0 = torch.empty(1, unet.config.in_channels, height, width)
        captured = invert_one_step(unet, x0, _empty_text(unet), plan)
    return sum(tensor.numel() * tensor.itemsize for tensor in tensors_of(captured))


def tensors_of(captured: Captured) -> list[Tensor]:
    """All tensors in `captured`."""
    attention = [
        tensor for kept in captured.self_attention.values() for a in kept for tensor in a.tensors
    ]
    inputs = [tensor for kept in captured.self_attention_input.values() for tensor in kept]
    return [*captured.skip.values(), *captured.resnet.values(), *attention, *inputs]


def _empty_text(unet: UNet2DConditionModel) -> Text:
    config = unet.config
    embeddings = torch.empty(1, TOKENS, config.cross_attention_dim, dtype=unet.dtype)
    if config.addition_embed_type != "text_time":
        return Text(embeddings)
    pooled = config.projection_class_embeddings_input_dim - 6 * config.addition_time_embed_dim
    added = {"text_embeds": torch.empty(1, pooled, dtype=unet.dtype), "time_ids": torch.empty(1, 6)}
    return Text(embeddings, added)
