"""Record what the decoder sees: attention, skip tensors and resnet features."""

from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import Attention
from torch import Tensor

from sdcorrect.core.attention import attention_probabilities, merge_heads, split_heads
from sdcorrect.core.plan import Block, Injection, blocks_of
from sdcorrect.core.sites import attention_block_at, block_at


@dataclass
class Captured:
    """What one U-Net evaluation on `batch` pictures left behind, by block."""

    #: `A_k`: a tensor (batch, heads, tokens, tokens) for each transformer layer of the block
    self_attention: dict[Block, list[Tensor]] = field(default_factory=dict)
    #: `S_k`: (batch, channels, height, width)
    skip: dict[Block, Tensor] = field(default_factory=dict)
    #: the hidden states before the shortcut: (batch, channels, height, width)
    resnet: dict[Block, Tensor] = field(default_factory=dict)
    #: what K and V are made of: the input (batch, tokens, channels) of each self-attention layer
    self_attention_input: dict[Block, list[Tensor]] = field(default_factory=dict)


@contextmanager
def capture(unet: UNet2DConditionModel, injections: Collection[Injection]) -> Iterator[Captured]:
    """Record all that `injections` will put back from the next evaluation of `unet`.

    The evaluation's own result is that of the unchanged U-Net.

    Raises:
        UsageError: a block that the U-Net lacks, or that has no self-attention.
        RuntimeError: a site is being captured or injected already.
    """
    captured = Captured()
    with ExitStack() as stack:
        mapped, keyed = blocks_of(injections, "self-attention"), blocks_of(injections, "key-value")
        captured.self_attention.update({name: [] for name in mapped})
        captured.self_attention_input.update({name: [] for name in keyed})
        for name in dict.fromkeys((*mapped, *keyed)):
            block = attention_block_at(unet, name)
            maps, inputs = captured.self_attention.get(name), captured.self_attention_input.get(name)
            for layer in block.self_attention:
                stack.enter_context(block.attention_through(layer, _Recorder(maps, inputs)))
        for name in blocks_of(injections, "skip"):
            stack.enter_context(block_at(unet, name).skip_through(_Keeper(captured.skip, name)))
        for name in blocks_of(injections, "resnet"):
            stack.enter_context(block_at(unet, name).resnet_through(_Keeper(captured.resnet, name)))
        yield captured


@dataclass
class _Keeper:
    """Lets a tensor pass and keeps it."""

    kept: dict[Block, Tensor]
    name: Block

    def __call__(self, tensor: Tensor) -> Tensor:
        self.kept[self.name] = tensor
        return tensor


@dataclass
class _Recorder:
    """Self-attention written out, so that its post-softmax probabilities can be kept, or its input."""

    maps: list[Tensor] | None
    inputs: list[Tensor] | None

    def __call__(self, layer: Attention, hidden_states: Tensor, **_: object) -> Tensor:
        probabilities = attention_probabilities(layer, hidden_states)
        if self.maps is not None:
            self.maps.append(probabilities)
        if self.inputs is not None:
            self.inputs.append(hidden_states)
        value = split_heads(layer.to_v(hidden_states), layer.heads)
        return merge_heads(layer, probabilities @ value)
