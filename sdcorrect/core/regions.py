"""Compile the parts of a U-Net in which nothing is captured, put back or observed.

A compiled graph does not notice hooks and processors that come and go. So the parts that a recipe
changes run uncompiled, and the largest regions that it leaves unchanged run compiled.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from diffusers.models.attention import BasicTransformerBlock, FeedForward
from diffusers.models.attention_processor import Attention
from diffusers.models.resnet import ResnetBlock2D
from torch import nn

#: The limit of graphs for modules with the same code. Blocks of the same shape share a graph; SD 1.5 has
#: resnets of 12 shapes, each compiled for one row and for several.
GRAPHS = 64

OUTER = (ResnetBlock2D, BasicTransformerBlock)
INNER = (Attention, FeedForward)


@dataclass(eq=False)
class _Region:
    """A module, and the smaller regions in it that can stay compiled when a part of it is changed."""

    module: nn.Module
    compiled: Any
    inner: tuple["_Region", ...] = ()
    changed: int = 0  #: the number of changes in it at present

    def settle(self, *, inside: bool = False) -> None:
        """Use the compiled module if nothing in it is changed and no region around it is compiled."""
        whole = not inside and not self.changed
        self.module._compiled_call_impl = self.compiled if whole else None
        for region in self.inner:
            region.settle(inside=inside or whole)


#: For each module, the regions that contain it, outermost first.
_around: WeakKeyDictionary[nn.Module, tuple[_Region, ...]] = WeakKeyDictionary()


def compile_regions(unet: nn.Module, **options: Any) -> None:
    """Compile the resnets and transformer blocks of `unet`, each at its first call.

    Shapes may change from call to call. `options` are passed to torch.compile.
    """
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, GRAPHS)
    for module in unet.modules():
        if isinstance(module, OUTER):
            parts = module.modules() if isinstance(module, BasicTransformerBlock) else ()
            inner = tuple(_region(part, options) for part in parts if isinstance(part, INNER))
            region = _region(module, options, inner)
            for part in module.modules():
                _around[part] = (region,)
            for smaller in inner:
                for part in smaller.module.modules():
                    _around[part] = (region, smaller)
            region.settle()


def _region(module: nn.Module, options: dict[str, Any], inner: tuple[_Region, ...] = ()) -> _Region:
    module.compile(dynamic=True, **options)
    return _Region(module, module._compiled_call_impl, inner)


def is_compiled(module: nn.Module) -> bool:
    """Whether `module` belongs to a compiled region, changed now or not."""
    return module in _around


@contextmanager
def uncompiled(module: nn.Module) -> Iterator[None]:
    """Within this context `module` runs uncompiled, with its hooks and its processor."""
    regions = _around.get(module, ())
    for region in regions:
        region.changed += 1
    for region in regions[:1]:
        region.settle()
    try:
        yield
    finally:
        for region in regions:
            region.changed -= 1
        for region in regions[:1]:
            region.settle()
