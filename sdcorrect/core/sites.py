"""Decoder block number -> the modules of a diffusers U-Net, found by name and loud when absent."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from weakref import WeakKeyDictionary

from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import Attention
from torch import Tensor, nn

from sdcorrect.errors import UsageError

#: What stands in for an attention layer's computation: (layer, hidden_states, ...) -> hidden_states.
Processor = Callable[..., Tensor]

#: Sites that are changed right now, so that a second change on top of the first is refused.
_occupied: WeakKeyDictionary[nn.Module, set[object]] = WeakKeyDictionary()


@dataclass(frozen=True, eq=False)
class DecoderBlock:
    """One decoder block: a resnet that concatenates a skip, then attention where its level has it."""

    number: int
    up_block: nn.Module
    #: where this block's skip stands in the tuple that `up_block` receives and pops from the end
    skip_index: int
    self_attention: tuple[Attention, ...]

    @contextmanager
    def skip_through(self, function: Callable[[Tensor], Tensor]) -> Iterator[None]:
        """Concatenate `function(skip)` instead of the skip, (rows, channels, height, width)."""

        def hook(
            _module: nn.Module, args: tuple[object, ...], kwargs: dict[str, tuple[Tensor, ...]]
        ) -> tuple[tuple[object, ...], dict[str, tuple[Tensor, ...]]]:
            skips = list(kwargs["res_hidden_states_tuple"])
            skips[self.skip_index] = function(skips[self.skip_index])
            return args, {**kwargs, "res_hidden_states_tuple": tuple(skips)}

        with _occupy(self.up_block, self.skip_index, f"the skip of decoder block {self.number}"):
            handle = self.up_block.register_forward_pre_hook(hook, with_kwargs=True)
            try:
                yield
            finally:
                handle.remove()

    @contextmanager
    def self_attention_through(self, layer: int, processor: Processor) -> Iterator[None]:
        """Compute self-attention `layer` of this block by `processor`."""
        attention = self.self_attention[layer]
        original = attention.processor
        with _occupy(attention, "processor", f"the self-attention of decoder block {self.number}"):
            attention.set_processor(processor)
            try:
                yield
            finally:
                attention.set_processor(original)


@contextmanager
def _occupy(module: nn.Module, site: object, name: str) -> Iterator[None]:
    taken = _occupied.setdefault(module, set())
    if site in taken:
        raise RuntimeError(f"{name} is captured or injected already; leave that context first")
    taken.add(site)
    try:
        yield
    finally:
        taken.remove(site)


def decoder_blocks(unet: UNet2DConditionModel) -> tuple[DecoderBlock, ...]:
    """All decoder blocks of `unet` in the order they run."""
    blocks: list[DecoderBlock] = []
    for up_block in unet.up_blocks:
        attentions = getattr(up_block, "attentions", None)
        for i in range(len(up_block.resnets)):
            layers = attentions[i].transformer_blocks if attentions is not None else ()
            self_attention = tuple(layer.attn1 for layer in layers)
            blocks.append(DecoderBlock(len(blocks), up_block, -(i + 1), self_attention))
    return tuple(blocks)


def block_at(unet: UNet2DConditionModel, number: int) -> DecoderBlock:
    """Decoder block `number` of `unet`.

    Raises:
        UsageError: the U-Net has no such block.
    """
    blocks = decoder_blocks(unet)
    if not 0 <= number < len(blocks):
        raise UsageError(
            f"decoder block {number}: this U-Net has blocks 0 to {len(blocks) - 1}, no others"
        )
    return blocks[number]


def attention_block_at(unet: UNet2DConditionModel, number: int) -> DecoderBlock:
    """Decoder block `number` of `unet`, which has self-attention.

    Raises:
        UsageError: the U-Net has no such block, or that block has no self-attention.
    """
    block = block_at(unet, number)
    if not block.self_attention:
        having = ", ".join(str(b.number) for b in decoder_blocks(unet) if b.self_attention)
        raise UsageError(
            f"decoder block {number} has no self-attention in this U-Net; blocks that have: {having}"
        )
    return block
