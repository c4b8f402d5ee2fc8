"""Deep U-Net features kept between steps (Ma et al., DeepCache, CVPR 2024).

They vary slowly from step to step, and the more slowly where the correction anchors them.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from diffusers import UNet2DConditionModel
from torch import nn

from sdcorrect.core.sites import occupy


@contextmanager
def reusing(unet: UNet2DConditionModel, every: int) -> Iterator[None]:
    """All but the finest level is computed at the first call in this context and every `every`-th.

    The calls in between take it as it was, so their rows must be as many.

    Raises:
        RuntimeError: a context of this kind is entered already.
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
            module.forward = kept(module.forward)
            changes.callback(delattr, module, "forward")
        yield
