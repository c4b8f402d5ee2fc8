"""Record what the decoder sees: self-attention probabilities and skip tensors."""

from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import Attention
from torch import Tensor

from sdcorrect.core.plan import Injection, blocks_of
from sdcorrect.core.sites import attention_block_at, block_at


@dataclass
class Captured:
    """What one U-Net evaluation on `batch` pictures left behind, by decoder block number."""

    #: `A_k`: a tensor (batch, heads, tokens, tokens) for each transformer layer of the block
    self_attention: dict[int, list[Tensor]] = field(default_factory=dict)
    #: `S_k`: (batch, channels, height, width)
    skip: dict[int, Tensor] = field(default_factory=dict)


@contextmanager
def capture(unet: UNet2DConditionModel, injections: Collection[Injection]) -> Iterator[Captured]:
    """Record all that `injections` will put back from the next evaluation of `unet`.

    The evaluation's own result is that of the unchanged U-Net.

    Raises:
        UsageError: a block that the U-Net lacks, or that has no self-attention.
        RuntimeError: a site is being captured or injected already.
    """
    captured = Captured()

    def keep_skip(number: int, skip: Tensor) -> Tensor:
        captured.skip[number] = skip
        return skip

    with ExitStack() as stack:
        for number in blocks_of(injections, "self-attention"):
            block = attention_block_at(unet, number)
            maps = captured.self_attention[number] = []
            for layer in range(len(block.self_attention)):
                stack.enter_context(block.self_attention_through(layer, _Recorder(maps)))
        for number in blocks_of(injections, "skip"):
            stack.enter_context(block_at(unet, number).skip_through(partial(keep_skip, number)))
        yield captured


@dataclass
class _Recorder:
    """Self-attention written out, so that its post-softmax probabilities can be kept."""

    maps: list[Tensor]

    def __call__(self, layer: Attention, hidden_states: Tensor, **_: object) -> Tensor:
        probabilities = attention_probabilities(layer, hidden_states)
        self.maps.append(probabilities)
        value = split_heads(layer.to_v(hidden_states), layer.heads)
        return merge_heads(layer, probabilities @ value)


def attention_probabilities(layer: Attention, hidden_states: Tensor) -> Tensor:
    """softmax(QK^T / sqrt(d)) of (rows, tokens, channels): (rows, heads, tokens, tokens)."""
    query = split_heads(layer.to_q(hidden_states), layer.heads)
    key = split_heads(layer.to_k(hidden_states), layer.heads)
    # in float32 whatever the model's precision: half precision overflows before the softmax
    scores = query.float() @ key.float().transpose(-1, -2) * layer.scale
    return scores.softmax(dim=-1).to(hidden_states.dtype)


def split_heads(tokens: Tensor, heads: int) -> Tensor:
    """(rows, tokens, channels) -> (rows, heads, tokens, channels / heads)."""
    return torch.unflatten(tokens, -1, (heads, -1)).transpose(1, 2)


def merge_heads(layer: Attention, values: Tensor) -> Tensor:
    """(rows, heads, tokens, channels / heads) -> the layer's output, (rows, tokens, channels)."""
    projection, dropout = layer.to_out
    output: Tensor = dropout(projection(values.transpose(1, 2).flatten(2)))
    return output
