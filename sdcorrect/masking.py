"""The masks of a batch of pictures: given, or told by the words of a prompt; applied to what is made."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate
from typing_extensions import Self

from sdcorrect.core.alignment import tokens_of
from sdcorrect.core.masks import Mask, at_latents, feathered, word_maps
from sdcorrect.core.plan import ONE_STEP
from sdcorrect.core.text import Text
from sdcorrect.errors import UsageError
from sdcorrect.models import Model


@dataclass(frozen=True)
class Masking:
    """What is done with all masks of a job."""

    threshold: float = 0.5  #: of the attention to words, relative to its most in the picture
    feather: float = 0.0  #: px, from the edge inwards
    inverted: bool = False
    by_words: bool = False  #: whether words tell them, which takes one evaluation


@dataclass(frozen=True)
class PictureMasks:
    """Where the pictures of a batch are edited."""

    weights: Tensor | None = None  #: (batch, 1, height, width) in pixels; None: all over, with no mask
    rows: int = 0  #: that the U-Net evaluated to find out

    @classmethod
    def of(
        cls, masks: Sequence[Image.Image | NDArray[np.bool_]], masking: Masking, device: torch.device
    ) -> Self:
        """Of masks of one size, not 0 where the pictures are edited; of none, there are none."""
        if not masks:
            return cls()
        inside = [(np.asarray(mask) > 0) ^ masking.inverted for mask in masks]
        weights = np.stack([feathered(one, masking.feather) for one in inside])
        return cls(torch.from_numpy(weights)[:, None].to(device))

    def over(self, x0: Tensor, source_at: Callable[[Tensor], Tensor]) -> Mask | None:
        """The mask of latents as large as `x0`."""
        return None if self.weights is None else Mask(at_latents(self.weights, x0), x0, source_at)

    def applied(
        self, pictures: Sequence[Image.Image | None], sources: Sequence[Image.Image]
    ) -> list[Image.Image | None]:
        """`pictures` within the mask; outside, the pixels of `sources` as they are."""
        if self.weights is None:
            return list(pictures)
        levels = (self.weights[:, 0] * 255).round().byte().cpu().numpy()
        return [
            picture and Image.composite(picture, source, Image.fromarray(level))
            for picture, source, level in zip(pictures, sources, levels, strict=True)
        ]

    def shares(self, batch: int) -> list[float | None]:
        """Of each picture, how much of it is within the mask."""
        if self.weights is None:
            return [None] * batch
        return [float(share) for share in (self.weights > 0).float().mean(dim=(1, 2, 3))]


def masks_of_words(
    model: Model,
    x0: Tensor,
    text: Text,
    prompts: Sequence[str],
    words: Sequence[str],
    threshold: float,
) -> list[NDArray[np.bool_]]:
    """For each picture where its `words` are seen: (height, width) in pixels.

    By the cross-attention of the whole decoder in one evaluation on the clean latents, at the paper's
    timestep.

    Args:
        text: what the U-Net is told of `prompts`.
    """
    attended = word_maps(
        model.pipe.unet,
        x0,
        torch.tensor(ONE_STEP),
        text,
        [tokens_of_words(model, w, prompt) for w, prompt in zip(words, prompts, strict=True)],
        [block for level in model.layout.attention_levels for block in level],
    )
    fine = interpolate(attended, scale_factor=model.pipe.vae_scale_factor, mode="bilinear")
    return [*(fine[:, 0] >= threshold).cpu().numpy()]


def tokens_of_words(model: Model, words: str, prompt: str) -> list[int]:
    """Where `words`, which spaces part, stand in `prompt`.

    Raises:
        UsageError: one of them stands nowhere, or beyond what the text encoder reads.
    """
    if model.prompt_syntax != "plain":
        raise UsageError("mask: words finds those of a plain prompt; set prompt_syntax: plain")
    read = model.tokenize(prompt)
    tokens: list[int] = []
    for word in words.split():
        found = tokens_of(word, read, "mask_words")
        if not found:
            raise UsageError(
                f"mask_words: {word!r} stands in {prompt!r} behind the {model.text_length} tokens that "
                "the model reads; shorten the prompt"
            )
        tokens += found
    return tokens
