"""Attention of a diffusers layer written out, so that its parts can be kept and replaced."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from diffusers.models.attention_processor import Attention
from torch import Tensor, einsum, unflatten
from torch.nn.functional import scaled_dot_product_attention

#: From so many tokens on a layer's attention is kept as Q and K, its probabilities would fill memory:
#: at 1,024 px 40 MiB a layer of SDXL, of 20 layers, where Q and K are 5 MiB; at 512 px 256 MiB on the
#: finest level of SD 1.5, where they are 5 MiB.
MANY_TOKENS = 1024


@runtime_checkable
class ReportsAttention(Protocol):
    """What computes a self-attention layer by probabilities that may not be those of its input."""

    def probabilities(self, layer: Attention, hidden_states: Tensor) -> Tensor | None:
        """(branches, pictures, heads, tokens, tokens); branches that share them are one.

        None where they are those of its input.
        """


class SelfAttention(Protocol):
    """What the tokens of some pictures attend to, kept to be attended by again."""

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """All that is kept."""

    @property
    def probabilities(self) -> Tensor:
        """softmax(QK^T / sqrt(d)): (pictures, heads, tokens, tokens)."""

    def attend(self, values: Tensor) -> Tensor:
        """The probabilities by V, (branches, pictures, heads, tokens, channels), for each branch."""


@dataclass(frozen=True)
class Maps:
    """The probabilities themselves."""

    probabilities: Tensor

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        return (self.probabilities,)

    def attend(self, values: Tensor) -> Tensor:
        # one product as wide as the branches are many, with no copy of the probabilities
        return einsum("bhqk,rbhkc->rbhqc", self.probabilities, values)


@dataclass(frozen=True)
class QueryKey:
    """Q and K, (pictures, heads, tokens, channels) each, from which the probabilities are made anew."""

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
    """That of (pictures, tokens, channels), in the form that suits so many tokens."""
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

    The keys are those of `context`, the text, in cross-attention.
    """
    query = split_heads(layer.to_q(hidden_states), layer.heads)
    key = split_heads(layer.to_k(hidden_states if context is None else context), layer.heads)
    return _probabilities(query, key, layer.scale)


def _probabilities(query: Tensor, key: Tensor, scale: float) -> Tensor:
    # in float32 whatever the model's precision: half precision overflows before the softmax
    scores = query.float() @ key.float().transpose(-1, -2) * scale
    return scores.softmax(dim=-1).to(query.dtype)


def split_heads(tokens: Tensor, heads: int) -> Tensor:
    """(rows, tokens, channels) -> (rows, heads, tokens, channels / heads)."""
    return unflatten(tokens, -1, (heads, -1)).transpose(1, 2)


def merge_heads(layer: Attention, values: Tensor) -> Tensor:
    """(rows, heads, tokens, channels / heads) -> the layer's output, (rows, tokens, channels)."""
    projection, dropout = layer.to_out
    output: Tensor = dropout(projection(values.transpose(1, 2).flatten(2)))
    return output
