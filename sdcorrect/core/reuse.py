"""What the U-Net need not compute at every step."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from diffusers import UNet2DConditionModel
from diffusers.models.attention import BasicTransformerBlock
from torch import Tensor, nn

from sdcorrect.core.regions import is_compiled
from sdcorrect.core.sites import occupy


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
    """Within this context cross-attention computes K and V of a text once, while it is the same tensor.

    Compiled regions, which notice no change of a layer, compute them at every call.
    """

    def remembering(project: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        last: list[tuple[Tensor, Tensor]] = []

        def recall(text: Tensor) -> Tensor:
            if not last or last[0][0] is not text:
                last[:] = [(text, project(text))]
            return last[0][1]

        return recall

    with ExitStack() as changes:
        for block in unet.modules():
            if isinstance(block, BasicTransformerBlock) and block.attn2 and not is_compiled(block.attn2):
                for layer in (block.attn2.to_k, block.attn2.to_v):
                    changes.enter_context(_running(layer, remembering(layer.forward)))
        yield


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
