"""The attention of a diffusers layer, step by step, so that its parts can be kept and replaced."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from diffusers.models.attention_processor import Attention
from torch import Tensor, einsum, unflatten
from torch.nn.functional import scaled_dot_product_attention

#: With this many tokens or more, Q and K are kept, because probabilities would fill memory: 40 MiB
#: against 5 MiB in each of 20 layers of SDXL at 1,024 px, and 256 MiB against 5 MiB on the finest level
#: of SD 1.5 at 512 px.
MANY_TOKENS = 1024


@runtime_checkable
class ReportsAttention(Protocol):
    """A processor of a self-attention layer whose probabilities may not come from the layer's input."""

    def probabilities(self, layer: Attention, hidden_states: Tensor) -> Tensor | None:
        """(branches, pictures, heads, tokens, tokens), with one entry for branches that share them.

        None if they come from the layer's input.
        """


class SelfAttention(Protocol):
    """The self-attention of one layer on some pictures, kept to be put back."""

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """All tensors that are kept."""

    @property
    def probabilities(self) -> Tensor:
        """softmax(QK^T / sqrt(d)): (pictures, heads, tokens, tokens)."""

    def attend(self, values: Tensor) -> Tensor:
        """The probabilities times V, (branches, pictures, heads, tokens, channels), for each branch."""


@dataclass(frozen=True)
class Maps:
    """Self-attention kept as probabilities, (pictures, heads, tokens, tokens)."""

    probabilities: Tensor

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        return (self.probabilities,)

    def attend(self, values: Tensor) -> Tensor:
        # one product for all branches, without copying the probabilities
        return einsum("bhqk,rbhkc->rbhqc", self.probabilities, values)


@dataclass(frozen=True)
class QueryKey:
    """Self-attention kept as Q and K, (pictures, heads, tokens, channels) each."""

    query: Tensor
    key: Tensor
    scale: float

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        return self.query, self.key

    @property
    def probabilities(self) -> Tensor:
        return _probabilities(self.query, self.key, self.scale)

    def attend(self, values: Tensor) -> Tensor:
        branches = len(values)
        query, key = (part.expand(branches, *part.shape).flatten(0, 1) for part in self.tensors)
        attended = scaled_dot_product_attention(query, key, values.flatten(0, 1), scale=self.scale)
        return unflatten(attended, 0, (branches, -1))


def self_attention_of(layer: Attention, hidden_states: Tensor) -> SelfAttention:
    """The self-attention of (pictures, tokens, channels), kept in the form that needs less memory."""
    if hidden_states.shape[1] < MANY_TOKENS:
        return Maps(attention_probabilities(layer, hidden_states))
    query, key = (
        split_heads(project(hidden_states), layer.heads) for project in (layer.to_q, layer.to_k)
    )
    return QueryKey(query, key, layer.scale)


def attention_probabilities(
    layer: Attention, hidden_states: Tensor, context: Tensor | None = None
) -> Tensor:
    """softmax(QK^T / sqrt(d)) of (rows, tokens, channels): (rows, heads, tokens, keys).

    In cross-attention, the keys come from `context`, the text.
    """
    query = split_heads(layer.to_q(hidden_states), layer.heads)
    key = split_heads(layer.to_k(hidden_states if context is None else context), layer.heads)
    return _probabilities(query, key, layer.scale)


def _probabilities(query: Tensor, key: Tensor, scale: float) -> Tensor:
    # always in float32: half precision overflows before the softmax
    scores = query.float() @ key.float().transpose(-1, -2) * scale
    return scores.softmax(dim=-1).to(query.dtype)


def split_heads(tokens: Tensor, heads: int) -> Tensor:
    """(rows, tokens, channels) -> (rows, heads, tokens, channels / heads)."""
    return unflatten(tokens, -1, (heads, -1)).transpose(1, 2)


def merge_heads(layer: Attention, values: Tensor) -> Tensor:
    """(rows, heads, tokens, channels / heads) -> the layer's output, (rows, tokens, channels)."""
    projection, dropout = layer.to_out
    return dropout(projection(values.transpose(1, 2).flatten(2)))
