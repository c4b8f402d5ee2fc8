"""Put the source's tensors back while the U-Net denoises (METHOD, step 4)."""

from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import Attention
from torch import Tensor

from sdcorrect.core.capture import Captured, attention_probabilities, merge_heads, split_heads
from sdcorrect.core.plan import Injection, blocks_of
from sdcorrect.core.sites import attention_block_at, block_at


@contextmanager
def inject(
    unet: UNet2DConditionModel,
    injections: Collection[Injection],
    *,
    captured: Captured | None,
    batch: int,
) -> Iterator[None]:
    """Within this context `unet` uses the source's tensors; after it, `unet` is as it was before.

    Rows are ordered branch by branch, `batch` pictures each, and every branch of a picture gets that
    picture's tensors: those of `captured`, or where that is None, those of the first branch, which
    is then the source running along.

    Raises:
        UsageError: a block that the U-Net lacks, or that has no self-attention.
        RuntimeError: a site is being captured or injected already.
    """
    with ExitStack() as stack:
        for number in blocks_of(injections, "self-attention"):
            block = attention_block_at(unet, number)
            for layer in range(len(block.self_attention)):
                kept = captured.self_attention[number][layer] if captured else None
                processor = _SourceAttention(kept, batch)
                stack.enter_context(block.self_attention_through(layer, processor))
        for number in blocks_of(injections, "skip"):
            replace = partial(_source_skip, captured.skip[number] if captured else None, batch)
            stack.enter_context(block_at(unet, number).skip_through(replace))
        yield


@dataclass
class _SourceAttention:
    """Self-attention whose softmax(QK^T) is the source's `A_k`: its output is `A_k V` (correlations).

    Q and K are computed for the source alone, and not at all where `A_k` was captured.
    """

    captured: Tensor | None  # (batch, heads, tokens, tokens)
    batch: int

    def __call__(self, layer: Attention, hidden_states: Tensor, **_: object) -> Tensor:
        probabilities = self.captured
        if probabilities is None:
            probabilities = attention_probabilities(layer, hidden_states[: self.batch])
        value = split_heads(layer.to_v(hidden_states), layer.heads)
        value = torch.unflatten(value, 0, (-1, self.batch))  # (branches, batch, heads, tokens, channels)
        branches = value.shape[0]
        # The branches of a picture share A_k, so side by side they are one matrix product.
        beside = value.permute(1, 2, 3, 0, 4).flatten(3)
        attended = torch.unflatten(probabilities @ beside, 3, (branches, -1))
        return merge_heads(layer, attended.permute(3, 0, 1, 2, 4).flatten(0, 1))


def _source_skip(captured: Tensor | None, batch: int, skip: Tensor) -> Tensor:
    """The source's `S_k` for every branch of (branches * batch, channels, height, width) (features)."""
    source = skip[:batch] if captured is None else captured
    return source.repeat(skip.shape[0] // batch, 1, 1, 1)
