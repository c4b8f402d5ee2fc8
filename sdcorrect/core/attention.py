"""Attention of a diffusers layer written out, so that its parts can be kept and replaced."""

from typing import Protocol, runtime_checkable

from diffusers.models.attention_processor import Attention
from torch import Tensor, unflatten


@runtime_checkable
class ReportsAttention(Protocol):
    """What computes a self-attention layer by probabilities that may not be those of its input."""

    def probabilities(self, layer: Attention, hidden_states: Tensor) -> Tensor | None:
        """(branches, pictures, heads, tokens, tokens); branches that share them are one.

        None where they are those of its input.
        """


def attention_probabilities(
    layer: Attention, hidden_states: Tensor, context: Tensor | None = None
) -> Tensor:
    """softmax(QK^T / sqrt(d)) of (rows, tokens, channels): (rows, heads, tokens, keys).

    The keys are those of `context`, the text, in cross-attention.
    """
    query = split_heads(layer.to_q(hidden_states), layer.heads)
    key = split_heads(layer.to_k(hidden_states if context is None else context), layer.heads)
    # in float32 whatever the model's precision: half precision overflows before the softmax
    scores = query.float() @ key.float().transpose(-1, -2) * layer.scale
    return scores.softmax(dim=-1).to(hidden_states.dtype)


def split_heads(tokens: Tensor, heads: int) -> Tensor:
    """(rows, tokens, channels) -> (rows, heads, tokens, channels / heads)."""
    return unflatten(tokens, -1, (heads, -1)).transpose(1, 2)


def merge_heads(layer: Attention, values: Tensor) -> Tensor:
    """(rows, heads, tokens, channels / heads) -> the layer's output, (rows, tokens, channels)."""
    projection, dropout = layer.to_out
    output: Tensor = dropout(projection(values.transpose(1, 2).flatten(2)))
    return output
