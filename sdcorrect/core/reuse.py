"""What the U-Net need not compute at every step."""

from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from math import ceil
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.resnet import ResnetBlock2D
from torch import Tensor, nn

from sdcorrect.core.capture import Captured
from sdcorrect.core.plan import Injection, blocks_of
from sdcorrect.core.sites import block_at, occupy


@contextmanager
def reusing(unet: UNet2DConditionModel, every: int) -> Iterator[None]:
    """Within this context all levels but the finest are computed only at every `every`-th call.

    The calls in between take it as it was, so their rows must be as many. Deep features vary slowly
    from step to step (Ma et al., DeepCache, CVPR 2024), more so where the correction anchors them.

    Raises:
        RuntimeError: such a context is active already.
    """
    calls = 0

    def count(*_: object) -> None:
        nonlocal calls
        calls += 1

    def kept(forward: Callable[..., Any]) -> Callable[..., Any]:
        last: list[Any] = []

        def recall(*args: object, **kwargs: object) -> Any:
            if (calls - 1) % every == 0:
                last[:] = [forward(*args, **kwargs)]
            return last[0]

        return recall

    deep: list[nn.Module] = [*unet.down_blocks[1:], unet.mid_block, *unet.up_blocks[:-1]]
    with ExitStack() as changes:
        changes.enter_context(occupy(unet, "deep features", "the deep levels of the U-Net"))
        changes.callback(unet.register_forward_pre_hook(count).remove)
        for module in deep:
            changes.enter_context(_running(module, kept(module.forward)))
        yield


@contextmanager
def reading_text_once(unet: UNet2DConditionModel) -> Iterator[None]:
    """Within this context cross-attention computes K and V of a text once, while it is one tensor."""

    def remembering(project: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        last: list[tuple[Tensor, Tensor]] = []

        def recall(text: Tensor) -> Tensor:
            if not last or last[0][0] is not text:
                last[:] = [(text, project(text))]
            return last[0][1]

        return recall

    with ExitStack() as changes:
        for block in unet.modules():
            if isinstance(block, BasicTransformerBlock) and block.attn2:
                for layer in (block.attn2.to_k, block.attn2.to_v):
                    changes.enter_context(_running(layer, remembering(layer.forward)))
        yield


@contextmanager
def convolving_once(
    unet: UNet2DConditionModel, injections: Collection[Injection], captured: Captured
) -> Iterator[None]:
    """Within this context the convolutions over a constant `S_k` are computed at the first call only.

    A decoder block convolves the concatenation [h, S_k]; a convolution is linear in its input channels,
    so it is the sum of one over h and one over S_k. Before its 3x3 convolution there is a group norm, so
    there the channels of S_k that share a group with h are not constant. The sum rounds differently.
    """
    with ExitStack() as changes:
        for number in blocks_of([i for i in injections if i.constant], "skip"):
            resnet = block_at(unet, number).resnet
            if not isinstance(resnet, ResnetBlock2D):
                continue
            own = resnet.in_channels - captured.skip[number].shape[1]
            group = resnet.in_channels // resnet.norm1.num_groups
            constant_from = {resnet.conv1: ceil(own / group) * group, resnet.conv_shortcut: own}
            for layer, first in constant_from.items():
                if layer is not None and first < layer.in_channels:
                    changes.enter_context(_running(layer, _convolving_once(layer, first)))
        yield


def _convolving_once(layer: nn.Conv2d, first: int) -> Callable[[Tensor], Tensor]:
    """The forward of `layer` for inputs whose channels from `first` on are the same at every call."""
    kept: list[Tensor] = []

    def convolve(features: Tensor) -> Tensor:
        if not kept:  # not earlier, because offloaded weights arrive with the call
            last = layer.weight.is_contiguous(memory_format=torch.channels_last)
            layout = torch.channels_last if last else torch.contiguous_format
            weight, constant = layer.weight[:, :first], layer.weight[:, first:]
            kept.append(weight.contiguous(memory_format=layout))
            kept.append(layer._conv_forward(features[:, first:], constant, layer.bias))
        weight, constant = kept
        return layer._conv_forward(features[:, :first], weight, None).add_(constant)

    return convolve


@contextmanager
def _running(module: nn.Module, forward: Callable[..., Any]) -> Iterator[None]:
    """Within this context `module` runs `forward`; one that others set on it returns afterwards."""
    before = vars(module).get("forward")
    module.forward = forward
    try:
        yield
    finally:
        if before is None:
            del module.forward
        else:
            module.forward = before
