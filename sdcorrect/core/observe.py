"""Observe what the decoder computes in each evaluation, without changing it."""

from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import Attention
from torch import Tensor, nn, split

from sdcorrect.core.attention import ReportsAttention, attention_probabilities
from sdcorrect.core.plan import Block
from sdcorrect.core.sites import DecoderBlock, block_at


@dataclass(frozen=True)
class SelfAttention:
    """The self-attention of the conditional branch in one layer: its own, or what was put back.

    It is computed on demand, some queries at a time, because it has tokens^2 values per head.
    """

    layer: Attention
    processor: object
    hidden_states: Tensor  #: the layer's input in all branches, (rows, tokens, channels)
    pictures: int

    @property
    def tokens(self) -> int:
        return self.hidden_states.shape[1]

    @property
    def heads(self) -> int:
        return self.layer.heads

    def by_queries(self, queries: int) -> Iterator[Tensor]:
        """Yield the probabilities (pictures, heads, queries, tokens), this many queries at a time."""
        if isinstance(self.processor, ReportsAttention):
            told = self.processor.probabilities(self.layer, self.hidden_states)
            if told is not None:
                yield from split(told[-1], queries, dim=-2)
                return
        tokens = self.hidden_states[-self.pictures :]
        for asking in split(tokens, queries, dim=1):
            yield attention_probabilities(self.layer, asking, tokens)


@dataclass
class Observation:
    """What decoder blocks used in one evaluation, in the conditional branch; one row per picture."""

    timestep: int
    #: the skip that the block concatenated: (pictures, channels, height, width)
    skip: dict[Block, Tensor] = field(default_factory=dict)
    #: the hidden states before the shortcut: (pictures, channels, height, width)
    resnet: dict[Block, Tensor] = field(default_factory=dict)
    #: for each transformer layer of the block
    self_attention: dict[Block, list[SelfAttention]] = field(default_factory=dict)


@contextmanager
def observe(
    unet: UNet2DConditionModel,
    blocks: Collection[Block],
    look: Callable[[Observation], None],
    *,
    pictures: int = 1,
) -> Iterator[None]:
    """Within this context `look` is called after each evaluation of `unet`.

    It sees tensors as they are used, after injection, whichever context was entered first. It observes
    the conditional branch: the last `pictures` rows of a call.

    Raises:
        UsageError: the U-Net has no such decoder block.
    """
    watch = _Watch(look, pictures)
    with ExitStack() as hooks:
        hooks.callback(unet.register_forward_pre_hook(watch.begin).remove)
        hooks.callback(unet.register_forward_hook(watch.end).remove)
        for block in (block_at(unet, name) for name in blocks):
            for handle in watch.over(block):
                hooks.callback(handle.remove)
        yield


class _Watch:
    def __init__(self, look: Callable[[Observation], None], pictures: int) -> None:
        self._look = look
        self._pictures = pictures
        self._seen = Observation(-1)

    def begin(self, _unet: nn.Module, args: tuple[Any, ...]) -> None:
        self._seen = Observation(int(args[1]))

    def end(self, *_: object) -> None:
        self._look(self._seen)

    def over(self, block: DecoderBlock) -> Iterator[Any]:
        """Register hooks that note what `block` uses."""

        def skip(_module: nn.Module, _args: object, kwargs: dict[str, tuple[Tensor, ...]]) -> None:
            used = kwargs["res_hidden_states_tuple"][block.skip_index]
            self._seen.skip[block.name] = used[-self._pictures :]

        def resnet(_module: nn.Module, _args: object, output: Tensor) -> None:
            self._seen.resnet[block.name] = output[-self._pictures :]

        def attention(layer: Attention, args: tuple[Tensor, ...]) -> None:
            layers = self._seen.self_attention.setdefault(block.name, [])
            layers.append(SelfAttention(layer, layer.processor, args[0], self._pictures))

        yield block.up_block.register_forward_pre_hook(skip, with_kwargs=True)
        yield block.resnet.get_submodule("conv2").register_forward_hook(resnet)
        for layer in block.self_attention:
            yield layer.register_forward_pre_hook(attention)
