"""Compile what lies between the convolutions, matrix products and attention of a U-Net.

A compiled graph does not notice hooks, processors and forwards that come and go. So the layers that have
them run as they are, by the library's kernels, and only the regions between them are compiled: group
norm with its activation, sums, and the gate of the feed-forward layers. A region is a function of
tensors, so that layers of all widths share its few graphs. It keeps the channels-last layout, which
CUDA's own group norm does not.
"""

from collections.abc import Callable, Iterator
from functools import cache, partial
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.activations import GEGLU
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from torch import Tensor, nn, unflatten
from torch.fx.experimental import _config as shapes
from torch.nn.functional import gelu, group_norm, silu

#: The limit of graphs for a region. One row and several have graphs of their own, as have sides of one
#: pixel, the layouts and the precisions.
GRAPHS = 64

#: A function of tensors, compiled or to be compiled.
_Region = Callable[..., Tensor]
#: (maker of a region, its constants) -> the compiled region; the same each time
_Compile = Callable[..., _Region]


def compile_regions(unet: UNet2DConditionModel, *, gates_only: bool = False, **options: Any) -> None:
    """Compile the regions of `unet`, each at its first call.

    Shapes may change from call to call. Resnets of other kinds than Stable Diffusion's keep the
    library's forward.

    Args:
        gates_only: leave group norms and sums to the library, whose own are faster on the CPU.
        options: passed to torch.compile.
    """
    config = torch._dynamo.config
    config.recompile_limit = max(config.recompile_limit, GRAPHS)
    config.force_parameter_static_shapes = False  # or each width has a graph of its own
    shapes.use_duck_shape = False  # or sizes that are equal by chance, as a square's, have one

    @cache
    def region(make: Callable[..., _Region], *constants: float) -> _Region:
        return torch.compile(make(*constants), dynamic=True, **options)

    for module in unet.modules():
        if gates_only and not isinstance(module, GEGLU):
            continue
        for part, forward in _forwards(module, region):
            part.forward = forward


def _forwards(module: nn.Module, region: _Compile) -> Iterator[tuple[nn.Module, _Region]]:
    """The parts of `module` whose forward has regions, with that forward."""
    match module:
        case ResnetBlock2D() if _is_plain(module):
            first = region(_norm_silu, *_constants(module.norm1))
            second = region(_shifted_norm_silu, *_constants(module.norm2))
            add = region(_scaled_sum, float(module.output_scale_factor))
            yield module, partial(_run_resnet, module, first, second, add)
        case Transformer2DModel(norm=nn.GroupNorm() as norm):
            yield norm, partial(_run_norm, norm, region(_norm, *_constants(norm)))
        case GEGLU():
            yield module, partial(_run_gated, module, region(_gate))
        case UNet2DConditionModel(conv_norm_out=nn.GroupNorm() as norm, conv_act=nn.SiLU() as last):
            yield norm, partial(_run_norm, norm, region(_norm_silu, *_constants(norm)))
            yield last, nn.Identity().forward  # it is in the region before it


def _is_plain(resnet: ResnetBlock2D) -> bool:
    return (
        resnet.time_embedding_norm == "default"
        and resnet.time_emb_proj is not None
        and isinstance(resnet.nonlinearity, nn.SiLU)
        and not (resnet.up or resnet.down or resnet.skip_time_act)
    )


def _constants(norm: nn.GroupNorm) -> tuple[int, float]:
    return norm.num_groups, norm.eps


def _norm(groups: int, eps: float) -> _Region:
    def norm(features: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return group_norm(features, groups, weight, bias, eps)

    return norm


def _norm_silu(groups: int, eps: float) -> _Region:
    def norm_silu(features: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return silu(group_norm(features, groups, weight, bias, eps))

    return norm_silu


def _shifted_norm_silu(groups: int, eps: float) -> _Region:
    def shifted_norm_silu(features: Tensor, shift: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        shifted = features + shift[:, :, None, None]
        return silu(group_norm(shifted, groups, weight, bias, eps))

    return shifted_norm_silu


def _scaled_sum(scale: float) -> _Region:
    def scaled_sum(one: Tensor, other: Tensor) -> Tensor:
        return (one + other) / scale

    return scaled_sum


def _gate() -> _Region:
    def gate(projected: Tensor) -> Tensor:
        hidden_states, gates = projected.chunk(2, dim=-1)
        return hidden_states * gelu(gates)

    return gate


def _run_resnet(
    resnet: ResnetBlock2D,
    first: _Region,
    second: _Region,
    add: _Region,
    input_tensor: Tensor,
    temb: Tensor,
) -> Tensor:
    """The forward of diffusers' ResnetBlock2D, of the kind that Stable Diffusion uses, in regions.

    Args:
        input_tensor: (rows, channels, height, width).
        temb: the embedding of the timestep, (rows, channels).
    """
    norm1, norm2 = resnet.norm1, resnet.norm2
    hidden_states = resnet.conv1(first(input_tensor, norm1.weight, norm1.bias))
    shift = resnet.time_emb_proj(resnet.nonlinearity(temb))
    hidden_states = second(hidden_states, shift, norm2.weight, norm2.bias)
    hidden_states = resnet.conv2(resnet.dropout(hidden_states))
    shortcut = input_tensor if resnet.conv_shortcut is None else resnet.conv_shortcut(input_tensor)
    return add(shortcut, hidden_states)


def _run_norm(norm: nn.GroupNorm, region: _Region, features: Tensor) -> Tensor:
    return region(features, norm.weight, norm.bias)


def _run_gated(layer: GEGLU, region: _Region, hidden_states: Tensor) -> Tensor:
    projected = layer.proj(hidden_states)
    # (rows * tokens, channels), because one row would have a graph of its own
    return unflatten(region(projected.flatten(0, -2)), 0, projected.shape[:-1])
