"""Capture what the U-Net computes on the source: attention, skip tensors and resnet features."""

from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import Attention
from torch import Tensor

from sdcorrect.core.attention import SelfAttention, merge_heads, self_attention_of, split_heads
from sdcorrect.core.plan import Block, Injection, blocks_of
from sdcorrect.core.sites import Processor, attention_block_at, block_at


@dataclass
class Captured:
    """The tensors captured from one U-Net evaluation on `batch` pictures, by block."""

    #: `A_k` of each transformer layer of the block
    self_attention: dict[Block, list[SelfAttention]] = field(default_factory=dict)
    #: `S_k`: (batch, channels, height, width)
    skip: dict[Block, Tensor] = field(default_factory=dict)
    #: the hidden states before the shortcut: (batch, channels, height, width)
    resnet: dict[Block, Tensor] = field(default_factory=dict)
    #: the input (batch, tokens, channels) of each self-attention layer, which Q, K and V are made from
    self_attention_input: dict[Block, list[Tensor]] = field(default_factory=dict)


class AllCaptured(Exception):
    """Ends an evaluation early, once everything is captured."""


@contextmanager
def capture(
    unet: UNet2DConditionModel, injections: Collection[Injection], *, then_stop: bool = False
) -> Iterator[Captured]:
    """Capture from the next evaluation of `unet` everything that `injections` will put back.

    The result of the evaluation is unchanged; with `then_stop` there is no result, and AllCaptured is
    raised as soon as the last tensor is captured.

    Raises:
        UsageError: the U-Net lacks a block, or the block has no self-attention.
        RuntimeError: a site is being captured or injected already.
    """
    captured = Captured()
    awaited = _Awaited(then_stop)
    with ExitStack() as stack:
        mapped = blocks_of(injections, "self-attention")
        projected = blocks_of(injections, "query", "key-value")
        captured.self_attention.update({name: [] for name in mapped})
        captured.self_attention_input.update({name: [] for name in projected})
        for name in dict.fromkeys((*mapped, *projected)):
            block = attention_block_at(unet, name)
            maps, inputs = captured.self_attention.get(name), captured.self_attention_input.get(name)
            for layer in block.self_attention:
                recorder = _Recorder(layer.processor, maps, inputs, awaited)
                stack.enter_context(block.attention_through(layer, recorder))
        for name in blocks_of(injections, "skip"):
            stack.enter_context(block_at(unet, name).skip_through(_Keeper(captured.skip, name, awaited)))
        for name in blocks_of(injections, "resnet"):
            stack.enter_context(
                block_at(unet, name).resnet_through(_Keeper(captured.resnet, name, awaited))
            )
        yield captured


@dataclass
class _Awaited:
    """Counts the sites that are still to be captured."""

    stop: bool
    sites: int = 0

    def one_came(self) -> None:
        self.sites -= 1
        if self.stop and self.sites == 0:
            raise AllCaptured


@dataclass
class _Keeper:
    """A hook that keeps a tensor and returns it unchanged."""

    kept: dict[Block, Tensor]
    name: Block
    awaited: _Awaited

    def __post_init__(self) -> None:
        self.awaited.sites += 1

    def __call__(self, tensor: Tensor) -> Tensor:
        self.kept[self.name] = tensor
        self.awaited.one_came()
        return tensor


@dataclass
class _Recorder:
    """A processor that keeps a layer's input, its attention, or both."""

    unchanged: Processor
    maps: list[SelfAttention] | None
    inputs: list[Tensor] | None
    awaited: _Awaited

    def __post_init__(self) -> None:
        self.awaited.sites += 1

    def __call__(self, layer: Attention, hidden_states: Tensor, **_: object) -> Tensor:
        if self.inputs is not None:
            self.inputs.append(hidden_states)
        if self.maps is None:
            self.awaited.one_came()
            return self.unchanged(layer, hidden_states)
        attention = self_attention_of(layer, hidden_states)
        self.maps.append(attention)
        self.awaited.one_came()
        value = split_heads(layer.to_v(hidden_states), layer.heads)
        return merge_heads(layer, attention.attend(value[None])[0])

    def probabilities(self, _layer: Attention, _hidden_states: Tensor) -> Tensor | None:
        """The probabilities that were kept, (1, pictures, heads, tokens, tokens)."""
        return self.maps[-1].probabilities[None] if self.maps else None
