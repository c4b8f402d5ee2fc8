"""Put the source's tensors back while the U-Net denoises (METHOD, step 4)."""

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby

from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import Attention
from torch import Tensor, add, cat, chunk, split, stack, unflatten
from typing_extensions import Self

from sdcorrect.core.adain import with_statistics_of
from sdcorrect.core.alignment import Alignment
from sdcorrect.core.attention import (
    SelfAttention,
    attention_probabilities,
    merge_heads,
    self_attention_of,
    split_heads,
)
from sdcorrect.core.branches import CAPTURED, Branches, Donors
from sdcorrect.core.capture import Captured
from sdcorrect.core.control import Control
from sdcorrect.core.plan import Block, Injection
from sdcorrect.core.sites import Processor, attention_block_at, block_at


@contextmanager
def inject(
    unet: UNet2DConditionModel,
    injections: Collection[Injection],
    *,
    captured: Captured | None,
    branches: Branches,
    alignment: Alignment | None = None,
    control: Control | None = None,
) -> Iterator[None]:
    """Within this context `unet` uses the source's tensors; afterwards it is as it was before.

    The tensors come from `captured`, or if that is None, from the source's branch in the same U-Net
    call. Cross-attention is mapped through `alignment`. The residual of `control` is added to skips that
    are put back, as to the U-Net's own.

    Raises:
        UsageError: the U-Net lacks a block, or the block lacks the tensor.
        RuntimeError: a site is being captured or injected already.
    """
    with ExitStack() as changes:
        for injection in injections:
            put_back = _PutBack(injection, branches.donors_of(injection), captured, alignment, control)
            for name in injection.blocks:
                for change in put_back.at(unet, name):
                    changes.enter_context(change)
        yield


#: (layer, hidden_states) -> the attention probabilities of each branch
_Probabilities = Callable[[Attention, Tensor], Tensor]


@dataclass(frozen=True)
class _WhereSmall:
    """Changes a layer up to the injection's limit of tokens, and leaves it unchanged above."""

    attend: Processor
    unchanged: Processor
    limit: int | None
    told: _Probabilities | None  #: for self-attention

    def __call__(
        self, layer: Attention, hidden_states: Tensor, *args: Tensor, **kwargs: Tensor
    ) -> Tensor:
        chosen = self.attend if self._applies(hidden_states) else self.unchanged
        return chosen(layer, hidden_states, *args, **kwargs)

    def probabilities(self, layer: Attention, hidden_states: Tensor) -> Tensor | None:
        """The probabilities of self-attention, if changed; see ReportsAttention."""
        return self.told(layer, hidden_states) if self.told and self._applies(hidden_states) else None

    def _applies(self, hidden_states: Tensor) -> bool:
        return self.limit is None or hidden_states.shape[1] <= self.limit


#: A layer's input -> the tensor to read instead, of the same shape.
_Reads = Callable[[Tensor], Tensor]


def _own(hidden_states: Tensor) -> Tensor:
    return hidden_states


@dataclass(frozen=True)
class _Projected:
    """Self-attention with the source's Q, or with its K and V."""

    unchanged: Processor
    branches: int
    query: _Reads = _own
    key_value: _Reads = _own

    @classmethod
    def over(cls, processor: Processor, branches: int, injection: Injection, reads: _Reads) -> Self:
        """Change one part of the layer that `processor` computes; a change of the other part remains."""
        below = processor if isinstance(processor, cls) else cls(processor, branches)
        if injection.tensor == "query":
            return replace(below, query=reads)
        return replace(below, key_value=reads)

    def __call__(self, layer: Attention, hidden_states: Tensor, **_: object) -> Tensor:
        asking, answering = self.query(hidden_states), self.key_value(hidden_states)
        return self.unchanged(layer, asking, encoder_hidden_states=answering)

    def probabilities(self, layer: Attention, hidden_states: Tensor) -> Tensor | None:
        """The probabilities; see ReportsAttention."""
        asking, answering = self.query(hidden_states), self.key_value(hidden_states)
        if asking is answering:
            return None
        return unflatten(attention_probabilities(layer, asking, answering), 0, (self.branches, -1))


@dataclass(frozen=True)
class _PutBack:
    """One injection, ready to be entered at each of its blocks."""

    injection: Injection
    donors: Donors
    captured: Captured | None
    alignment: Alignment | None
    control: Control | None

    def at(self, unet: UNet2DConditionModel, name: Block) -> Iterator[AbstractContextManager[None]]:
        match self.injection.tensor:
            case "skip":
                skip = self.captured.skip[name] if self.captured else None
                yield block_at(unet, name).skip_through(partial(self._skip, skip, name))
            case "resnet":
                features = self.captured.resnet[name] if self.captured else None
                yield block_at(unet, name).resnet_through(partial(self._blend, features))
            case "self-attention":
                kept = self.captured.self_attention[name] if self.captured else None
                block = attention_block_at(unet, name)
                for i, layer in enumerate(block.self_attention):
                    source = kept[i] if kept else None
                    told = partial(self._source_probabilities, source)
                    attend = partial(self._self_attention, source)
                    yield block.attention_through(layer, self._where_small(layer, attend, told))
            case "query" | "key-value":
                inputs = self.captured.self_attention_input[name] if self.captured else None
                block = attention_block_at(unet, name)
                for i, layer in enumerate(block.self_attention):
                    reads = partial(self._read, inputs[i] if inputs else None)
                    over = _Projected.over(layer.processor, len(self.donors), self.injection, reads)
                    yield block.attention_through(layer, over, self.injection.sites)
            case "cross-attention":
                block = attention_block_at(unet, name)
                for layer in block.cross_attention:
                    yield block.attention_through(layer, self._where_small(layer, self._cross_attention))

    def _where_small(
        self, layer: Attention, attend: Processor, told: _Probabilities | None = None
    ) -> _WhereSmall:
        return _WhereSmall(attend, layer.processor, self.injection.max_tokens, told)

    def _blend(self, captured: Tensor | None, own: Tensor) -> Tensor:
        """The source's tensor for each branch of `own`, (branches * batch, ...) (features)."""
        rows = self._rows(own)
        return self._between(rows, self._sources(captured, rows))

    def _skip(self, captured: Tensor | None, name: Block, own: Tensor) -> Tensor:
        """`S_k`, plus the ControlNet's residual if there is one."""
        if self.control is None:
            return self._blend(captured, own)
        residual = self.control.residual(int(name))
        sources = self._sources(captured, self._rows(own - residual))
        return self._between(self._rows(own), [*map(add, sources, self._rows(residual))])

    def _by_branch(self, rows: Tensor) -> Tensor:
        """(branches * batch, ...) -> (branches, batch, ...)."""
        return unflatten(rows, 0, (len(self.donors), -1))

    def _rows(self, own: Tensor) -> tuple[Tensor, ...]:
        """(branches * batch, ...) -> (batch, ...) of each branch, in the memory layout of `own`."""
        return chunk(own, len(self.donors))

    def _sources(self, captured: Tensor | None, rows: Sequence[Tensor]) -> list[Tensor]:
        """The tensor that replaces each branch's own of `rows`, with the injection's statistics."""
        known = rows if captured is None else [*rows, captured]
        sources = [known[donor] for donor in self.donors]
        if self.injection.statistics == "own":
            return [*map(with_statistics_of, rows, sources)]
        return sources

    def _between(self, rows: Sequence[Tensor], sources: Sequence[Tensor]) -> Tensor:
        """The `rows` of the branches blended with their `sources`; unchanged rows keep every bit."""
        weight = self.injection.weight
        blended = [
            row if donor == branch else row.lerp(source, weight) if weight < 1 else source
            for branch, (donor, row, source) in enumerate(zip(self.donors, rows, sources, strict=True))
        ]
        return cat(blended)

    def _self_attention(
        self, captured: SelfAttention | None, layer: Attention, hidden_states: Tensor, **_: object
    ) -> Tensor:
        """Self-attention with the source's `A_k`: returns `A_k V` (correlations)."""
        value = split_heads(layer.to_v(hidden_states), layer.heads)
        # (branches, pictures, heads, tokens, channels)
        values, sources = self._by_branch(value), self._attentions(captured, layer, hidden_states)
        branches = [(donor, len([*run])) for donor, run in groupby(self.donors)]
        parts = split(values, [count for _, count in branches])
        attended = [sources[donor].attend(v) for (donor, _), v in zip(branches, parts, strict=True)]
        by_source = attended[0] if len(attended) == 1 else cat(attended)
        if self.injection.weight == 1:
            return merge_heads(layer, by_source.flatten(0, 1))
        # A V is linear in A: blending the products blends the probabilities
        own = self_attention_of(layer, hidden_states).attend(value[None])[0]
        return merge_heads(layer, self._between(self._rows(own), [*by_source]))

    def _attentions(
        self, captured: SelfAttention | None, layer: Attention, hidden_states: Tensor
    ) -> dict[int, SelfAttention]:
        """Self-attention by donor; Q and K are computed only for donors that were not captured."""
        rows = self._rows(hidden_states)
        return {
            donor: captured
            if captured is not None and donor == CAPTURED
            else self_attention_of(layer, rows[donor])
            for donor in set(self.donors)
        }

    def _source_probabilities(
        self, captured: SelfAttention | None, layer: Attention, hidden_states: Tensor
    ) -> Tensor:
        """`A_k` of each branch, (branches, batch, heads, tokens, tokens); one entry if all share it."""
        maps = {
            donor: attention.probabilities
            for donor, attention in self._attentions(captured, layer, hidden_states).items()
        }
        if self.injection.weight < 1:
            own = self._rows(attention_probabilities(layer, hidden_states))
            return self._by_branch(self._between(own, [maps[donor] for donor in self.donors]))
        shared = len(maps) == 1
        return maps[self.donors[0]][None] if shared else stack([maps[d] for d in self.donors])

    def _read(self, captured: Tensor | None, hidden_states: Tensor) -> Tensor:
        """The tensor to compute Q, or K and V, from instead of the layer's input `hidden_states`.

        They are linear in it, so blending the inputs blends them.
        """
        limit = self.injection.max_tokens
        if limit is not None and hidden_states.shape[1] > limit:
            return hidden_states
        return self._blend(captured, hidden_states)

    def _cross_attention(
        self, layer: Attention, hidden_states: Tensor, encoder_hidden_states: Tensor, **_: object
    ) -> Tensor:
        """Cross-attention with the source's probabilities, mapped to the target's words."""
        assert self.alignment is not None, "cross-attention needs an alignment"
        probabilities = attention_probabilities(layer, hidden_states, encoder_hidden_states)
        rows = self._rows(probabilities)
        edited = [
            own if donor == branch else self.alignment.edit(rows[donor], own)
            for branch, (donor, own) in enumerate(zip(self.donors, rows, strict=True))
        ]
        value = split_heads(layer.to_v(encoder_hidden_states), layer.heads)
        return merge_heads(layer, self._between(rows, edited) @ value)
