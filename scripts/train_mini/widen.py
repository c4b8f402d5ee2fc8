"""Build the network of `colours.py` into the image tower, as additional channels."""

from typing import Any

import lite
import torch
from colours import GAIN, Colours
from data import STYLES
from torch import Tensor, nn
from transformers import EfficientNetModel

#: Two features hold a style's logit: its positive and its negative part.
STYLE = torch.arange(len(STYLES))
SIGNS = (1, -1)


@torch.no_grad()
def with_colours(
    tower: EfficientNetModel, colours: Colours, top: Tensor
) -> tuple[EfficientNetModel, float]:
    """A tower with the features of `tower` and the logits of `colours`, and the scale of these logits.

    The last features at `top` (2, styles) are replaced: they become the means over the picture of the
    positive and of the negative part of each style's scaled logit.
    """
    wide = EfficientNetModel(lite.config(tower.config.image_size, coloured=True)).eval()
    _keep(tower, wide)
    shades = torch.linspace(0, 6, 33)
    # ReLU6 cuts off values above 6
    scale = 6 / float(colours(torch.cartesian_prod(shades, shades, shades)).abs().max())
    pairs = list(zip(wide.encoder.blocks, tower.encoder.blocks, strict=True))
    _ramps(wide, pairs[0][0], _silent(tower))
    _tents(*pairs[1], colours, scale)
    for block, narrow in pairs[2:]:
        _hand_on(block, narrow)
    top_conv, top_bn = wide.encoder.top_conv, wide.encoder.top_bn
    top_conv.weight[top] = 0
    _do_nothing(top_bn, top)
    for units, sign in zip(top, SIGNS, strict=True):
        top_conv.weight[units, tower.encoder.top_conv.in_channels + STYLE] = sign
    return wide, scale


def _keep(tower: EfficientNetModel, wide: EfficientNetModel) -> None:
    """Copy the tower's own channels to the first places everywhere; the new channels are still 0."""
    for part in wide.modules():
        if isinstance(part, nn.Conv2d):
            part.weight.zero_()
        if isinstance(part, nn.BatchNorm2d):
            _do_nothing(part, torch.arange(part.num_features))
    for block in wide.encoder.blocks:
        nn.init.constant_(block.squeeze_excite.expand.bias, lite.OPEN)
    own = tower.state_dict()
    for name, weights in wide.state_dict().items():
        if name in own:
            weights[tuple(slice(size) for size in own[name].shape)] = own[name]
    # the first block had no expansion, so each channel passes through
    nn.init.dirac_(wide.encoder.blocks[0].expansion.expand_conv.weight)


def _do_nothing(norm: Any, at: Tensor) -> None:
    for values, neutral in (
        (norm.weight, (1 + norm.eps) ** 0.5),
        (norm.bias, 0),
        (norm.running_mean, 0),
        (norm.running_var, 1),
    ):
        values[at] = neutral


def _silent(tower: EfficientNetModel) -> Tensor:
    """Three channels of the stem that are 0 for every picture; Lite0 has four."""
    conv, norm = tower.embeddings.convolution, tower.embeddings.batchnorm
    gain = norm.weight / (norm.running_var + norm.eps).sqrt()
    # pixels are from -1 to 1
    most = gain.abs() * conv.weight.abs().sum((1, 2, 3)) + norm.bias - gain * norm.running_mean
    return most.argsort()[:3]


def _ramps(wide: EfficientNetModel, block: Any, stem: Tensor) -> None:
    """Compute the colours, means of 2x2 pixels from 0 to 6, and the ramps over each channel."""
    own, width = wide.embeddings.out_dim, 3 * lite.RAMPS
    wide.embeddings.convolution.weight[stem] = 0
    _do_nothing(wide.embeddings.batchnorm, stem)
    wide.embeddings.batchnorm.bias[stem] = 3
    expand = block.expansion.expand_conv.weight
    expand[stem] = 0
    unit = own + torch.arange(width)
    for colour, at in enumerate(stem):
        wide.embeddings.convolution.weight[at, colour, :2, :2] = 3 / 4
        expand[unit[colour * lite.RAMPS :][: lite.RAMPS], at] = lite.RAMPS
    block.expansion.expand_bn.bias[unit] = -6.0 * torch.arange(lite.RAMPS).repeat(3)
    block.depthwise_conv.depthwise_conv.weight[unit, :, 1, 1] = 1
    block.projection.project_conv.weight[-width:, unit, 0, 0] = torch.eye(width)


def _tents(block: Any, narrow: Any, colours: Colours, scale: float) -> None:
    """Compute the tents from the ramps, their means over 2x2 positions, and the scaled logits."""
    own, before = narrow.expansion.expand_conv.weight.shape[:2]
    block.expansion.expand_conv.weight[own:, before:, 0, 0] = colours.tents.weight
    block.expansion.expand_bn.bias[own:] = colours.tents.bias
    block.depthwise_conv.depthwise_conv.weight[own:, :, :2, :2] = 1 / 4
    after = narrow.projection.project_conv.out_channels
    project = block.projection.project_conv.weight
    project[after:, own:, 0, 0] = scale * GAIN * colours.styles.weight


def _hand_on(block: Any, narrow: Any) -> None:
    """Pass on the logits, or their means over 2x2 positions; residual blocks leave them unchanged."""
    if block.projection.apply_dropout:
        return
    own, before = narrow.expansion.expand_conv.weight.shape[:2]
    after = narrow.projection.project_conv.out_channels
    depthwise = block.depthwise_conv.depthwise_conv
    middle, stride = depthwise.kernel_size[0] // 2, depthwise.stride[0]
    places = slice(middle + 1 - stride, middle + 1)
    for number, sign in enumerate(SIGNS):
        unit = own + number * len(STYLES) + STYLE
        block.expansion.expand_conv.weight[unit, before + STYLE] = sign
        depthwise.weight[unit, :, places, places] = 1 / stride**2
        block.projection.project_conv.weight[after + STYLE, unit] = sign
