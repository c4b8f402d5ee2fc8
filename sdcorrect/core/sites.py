"""Find the modules of a diffusers U-Net by block, and change what they compute."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from weakref import WeakKeyDictionary

from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import Attention
from torch import Tensor, nn

from sdcorrect.core.plan import MID, Block
from sdcorrect.errors import UsageError

#: Replaces the computation of an attention layer: (layer, hidden_states, ...) -> hidden_states.
#: diffusers inspects its signature before every call, which is quick for a class with `__call__`; for a
#: partial or a function it takes longer than a small attention layer.
Processor = Callable[..., Tensor]

#: The parts of an attention layer that can be changed independently.
WHOLE = ("query", "key-value")

#: Sites that are changed at present, to refuse a second change on top of the first.
_occupied: WeakKeyDictionary[nn.Module, set[object]] = WeakKeyDictionary()
#: The blocks of each U-Net, searched once.
_found: WeakKeyDictionary[nn.Module, Mapping[Block, "AttentionBlock"]] = WeakKeyDictionary()


@dataclass(frozen=True, eq=False)
class AttentionBlock:
    """The attention layers of a block, one of each kind per transformer layer; empty at some levels."""

    name: Block
    self_attention: tuple[Attention, ...]
    cross_attention: tuple[Attention, ...]

    @contextmanager
    def attention_through(
        self, attention: Attention, processor: Processor, parts: Sequence[str] = WHOLE
    ) -> Iterator[None]:
        """Within this context `processor` computes the layer `attention`, and changes `parts` of it."""
        original = attention.processor
        with ExitStack() as taken:
            for part in parts:
                taken.enter_context(occupy(attention, part, f"the attention of block {self.name}"))
            attention.set_processor(processor)
            try:
                yield
            finally:
                attention.set_processor(original)


@dataclass(frozen=True, eq=False)
class DecoderBlock(AttentionBlock):
    """One decoder block: a resnet that concatenates a skip, then attention if its level has any."""

    up_block: nn.Module
    resnet: nn.Module
    #: the index of this block's skip in the tuple that `up_block` receives and pops from the end
    skip_index: int

    @contextmanager
    def skip_through(self, function: Callable[[Tensor], Tensor]) -> Iterator[None]:
        """Concatenate `function(skip)` instead of the skip, (rows, channels, height, width)."""

        def hook(
            _module: nn.Module, args: tuple[object, ...], kwargs: dict[str, tuple[Tensor, ...]]
        ) -> tuple[tuple[object, ...], dict[str, tuple[Tensor, ...]]]:
            skips = list(kwargs["res_hidden_states_tuple"])
            skips[self.skip_index] = function(skips[self.skip_index])
            return args, {**kwargs, "res_hidden_states_tuple": tuple(skips)}

        with occupy(self.up_block, self.skip_index, f"the skip of decoder block {self.name}"):
            # before the hooks of observers, which must see what is used
            handle = self.up_block.register_forward_pre_hook(hook, prepend=True, with_kwargs=True)
            try:
                yield
            finally:
                handle.remove()

    @contextmanager
    def resnet_through(self, function: Callable[[Tensor], Tensor]) -> Iterator[None]:
        """Add the shortcut to `function(hidden states)`, (rows, channels, height, width)."""

        def hook(_module: nn.Module, _args: object, hidden_states: Tensor) -> Tensor:
            return function(hidden_states)

        with occupy(self.resnet, "conv2", f"the resnet of decoder block {self.name}"):
            handle = self.resnet.get_submodule("conv2").register_forward_hook(hook, prepend=True)
            try:
                yield
            finally:
                handle.remove()


@contextmanager
def occupy(module: nn.Module, site: object, name: str) -> Iterator[None]:
    """Refuse a second change of `site` of `module` on top of the first.

    Raises:
        RuntimeError: it is changed already.
    """
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
        for i, resnet in enumerate(up_block.resnets):
            layers = _layers(up_block, i)
            blocks.append(DecoderBlock(len(blocks), *layers, up_block, resnet, -(i + 1)))
    return tuple(blocks)


def other_attention_blocks(unet: UNet2DConditionModel) -> tuple[AttentionBlock, ...]:
    """The attention of the encoder and of the middle, in the order it runs."""
    blocks: list[AttentionBlock] = []
    number = 1  # encoder block 0 is the first convolution
    for down_block in unet.down_blocks:
        for i in range(len(down_block.resnets)):
            blocks.append(AttentionBlock(f"encoder.{number}", *_layers(down_block, i)))
            number += 1
        number += 1  # the downsampler
    if unet.mid_block is not None:
        blocks.append(AttentionBlock(MID, *_layers(unet.mid_block, 0)))
    return tuple(block for block in blocks if block.self_attention)


def _layers(module: nn.Module, i: int) -> tuple[tuple[Attention, ...], tuple[Attention, ...]]:
    attentions = getattr(module, "attentions", None)
    layers = attentions[i].transformer_blocks if attentions else ()
    return tuple(layer.attn1 for layer in layers), tuple(layer.attn2 for layer in layers)


def _blocks_by_name(unet: UNet2DConditionModel) -> Mapping[Block, AttentionBlock]:
    """The decoder blocks of `unet`, and all others with attention."""
    if unet not in _found:
        blocks = (*decoder_blocks(unet), *other_attention_blocks(unet))
        _found[unet] = {block.name: block for block in blocks}
    return _found[unet]


def block_at(unet: UNet2DConditionModel, number: Block) -> DecoderBlock:
    """Decoder block `number` of `unet`.

    Raises:
        UsageError: the U-Net has no such block.
    """
    block = _blocks_by_name(unet).get(number)
    if not isinstance(block, DecoderBlock):
        last = len(decoder_blocks(unet)) - 1
        raise UsageError(f"decoder block {number}: this U-Net has only blocks 0 to {last}")
    return block


def attention_block_at(unet: UNet2DConditionModel, name: Block) -> AttentionBlock:
    """The block `name` of `unet`, which has attention.

    Raises:
        UsageError: the U-Net has no such block, or that block has no attention.
    """
    block = _blocks_by_name(unet).get(name) or block_at(unet, name)
    if not block.self_attention:
        having = ", ".join(str(b.name) for b in decoder_blocks(unet) if b.self_attention)
        raise UsageError(
            f"decoder block {name} of this U-Net has no self-attention; choose from blocks {having}"
        )
    return block
