"""The masks of a batch of pictures: given, or found by words of the prompt; and how they are applied."""

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
    """A job's settings for its masks."""

    threshold: float = 0.5  #: of the attention to words, which is scaled to 0..1 in each picture
    feather: float = 0.0  #: px, from the edge inwards
    inverted: bool = False
    by_words: bool = False  #: whether masks are found by words, which takes one evaluation


@dataclass(frozen=True)
class PictureMasks:
    """The masks of a batch, as weights from 0 (keep) to 1 (edit)."""

    weights: Tensor | None = None  #: (batch, 1, height, width) in pixels; None edits everywhere
    rows: int = 0  #: U-Net evaluations spent on finding the masks

    @classmethod
    def of(
        cls, masks: Sequence[Image.Image | NDArray[np.bool_]], masking: Masking, device: torch.device
    ) -> Self:
        """Build from masks of one size, nonzero where to edit; without masks, edit everywhere."""
        if not masks:
            return cls()
        inside = [(np.asarray(mask) > 0) ^ masking.inverted for mask in masks]
        weights = np.stack([feathered(one, masking.feather) for one in inside])
        return cls(torch.from_numpy(weights)[:, None].to(device))

    def over(self, x0: Tensor, source_at: Callable[[Tensor], Tensor]) -> Mask | None:
        """The masks at the resolution of the latents `x0`."""
        return None if self.weights is None else Mask(at_latents(self.weights, x0), x0, source_at)

    def applied(
        self, pictures: Sequence[Image.Image | None], sources: Sequence[Image.Image]
    ) -> list[Image.Image | None]:
        """`pictures` inside the mask, and the unchanged pixels of `sources` outside."""
        if self.weights is None:
            return list(pictures)
        levels = (self.weights[:, 0] * 255).round().byte().cpu().numpy()
        return [
            picture and Image.composite(picture, source, Image.fromarray(level))
            for picture, source, level in zip(pictures, sources, levels, strict=True)
        ]

    def shares(self, batch: int) -> list[float | None]:
        """For each picture, the share of its area inside the mask."""
        if self.weights is None:
            return [None] * batch
        return [float(share) for share in (self.weights > 0).float().mean(dim=(1, 2, 3))]


def masks_of_words(
    model: Model, x0: Tensor, text: Text, prompts: Sequence[str], words: Sequence[str], threshold: float
) -> list[NDArray[np.bool_]]:
    """For each picture, where the model sees its `words`: (height, width) in pixels.

    Reads the cross-attention of the whole decoder in one evaluation on the clean latents, at the
    paper's timestep.

    Args:
        text: the encoded `prompts`.
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
    """The positions of the tokens of `words` (separated by spaces) in `prompt`.

    Raises:
        UsageError: a word is not in the prompt, or beyond what the text encoder reads.
    """
    if model.prompt_syntax != "plain":
        raise UsageError("mask: words works only with plain prompts; set prompt_syntax: plain")
    read = model.tokenize(prompt)
    tokens: list[int] = []
    for word in words.split():
        found = tokens_of(word, read, "mask_words")
        if not found:
            raise UsageError(
                f"mask_words: {word!r} comes after the {model.text_length} tokens of {prompt!r} that "
                "the model reads; shorten the prompt"
            )
        tokens += found
    return tokens
