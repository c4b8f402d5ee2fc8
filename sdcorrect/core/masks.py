"""Where a picture is edited: by a given mask, or where the U-Net attends to given words."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

import numpy as np
import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import Attention
from numpy.typing import NDArray
from torch import Tensor, unflatten
from torch.nn.functional import interpolate

from sdcorrect.core.attention import attention_probabilities
from sdcorrect.core.plan import Block
from sdcorrect.core.sites import Processor, attention_block_at
from sdcorrect.core.text import Text


@dataclass(frozen=True)
class Mask:
    """Where latents are edited; elsewhere they follow the source (Avrahami et al., CVPR 2022).

    Works as diffusers' inpainting pipeline does with four-channel U-Nets.
    """

    weights: Tensor  #: 0 to 1, (batch, 1, height, width) at the size of the latents
    x0: Tensor
    source_at: Callable[[Tensor], Tensor]  #: timestep -> the source's latents there

    def source(self, following: Tensor) -> Tensor:
        """The source's latents at the first timestep of `following`; clean if there is none left."""
        return self.source_at(following[0]) if len(following) else self.x0

    def blend(self, latents: Tensor, source: Tensor) -> Tensor:
        """`latents` inside the mask, those of the source outside."""
        return self.weights * latents + (1 - self.weights) * source


def at_latents(weights: Tensor, latents: Tensor) -> Tensor:
    """Pixel weights (batch, 1, height, width) resized to `latents`.

    Each latent takes the weight of the first of its pixels, as in diffusers' inpainting pipeline.
    """
    return interpolate(weights, latents.shape[-2:]).to(latents)


def feathered(inside: NDArray[np.bool_], feather: float) -> NDArray[np.float32]:
    """The weights of a mask, (height, width), which fall off over the last `feather` pixels to its edge.

    Nothing outside the mask is edited; a mask that covers everything has no edge.
    """
    if not feather or inside.all():
        return inside.astype(np.float32)
    import cv2  # slow to import, and most jobs do not need it

    distance = cv2.distanceTransform(inside.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return np.clip(distance / (feather + 1), 0, 1).astype(np.float32)


def word_maps(
    unet: UNet2DConditionModel,
    latents: Tensor,
    t: Tensor,
    text: Text,
    tokens: Sequence[Sequence[int]],
    blocks: Sequence[Block],
) -> Tensor:
    """How much each latent attends to some `tokens` of `text`: (batch, 1, height, width) as `latents`.

    The mean cross-attention over blocks, layers, heads and tokens in one evaluation of `latents` at `t`
    (Tang et al., DAAM, ACL 2023), scaled to a minimum of 0 and a maximum of 1 in each picture.

    Args:
        tokens: for each picture, the positions of its words' tokens in the prompt.
    """
    heard: list[Tensor] = []
    with ExitStack() as stack:
        for name in blocks:
            block = attention_block_at(unet, name)
            for layer in block.cross_attention:
                listener = _Listener(layer.processor, heard, tokens)
                stack.enter_context(block.attention_through(layer, listener))
        unet(latents.to(unet.conv_in.weight.dtype), t, **text.arguments)
    shape = latents.shape[-2:]
    attended = torch.stack([_as_map(places, shape) for places in heard]).mean(dim=0)
    least, most = attended.amin((1, 2, 3), keepdim=True), attended.amax((1, 2, 3), keepdim=True)
    return (attended - least) / (most - least).clamp(min=1e-12)


def _as_map(places: Tensor, shape: torch.Size) -> Tensor:
    """Resize (batch, places), from any resolution of the U-Net, to (batch, 1, *shape)."""
    height, width = shape
    scale = (height * width / places.shape[1]) ** 0.5
    rows = round(height / scale)
    return interpolate(unflatten(places, 1, (1, rows, -1)), shape, mode="bilinear")


@dataclass
class _Listener:
    """A processor that keeps how much a layer attends to some tokens: (batch, places)."""

    unchanged: Processor
    heard: list[Tensor] = field(repr=False)
    tokens: Sequence[Sequence[int]]

    def __call__(
        self, layer: Attention, hidden_states: Tensor, encoder_hidden_states: Tensor, **more: object
    ) -> Tensor:
        probabilities = attention_probabilities(layer, hidden_states, encoder_hidden_states).float()
        self.heard.append(
            torch.stack(
                [
                    of_picture[..., list(places)].mean(dim=(0, -1))
                    for of_picture, places in zip(probabilities, self.tokens, strict=True)
                ]
            )
        )
        return self.unchanged(layer, hidden_states, encoder_hidden_states=encoder_hidden_states, **more)
