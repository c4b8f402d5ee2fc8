"""What is compiled is what a recipe leaves alone, in few graphs."""

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from checkpoints import tiny
from diffusers import UNet2DConditionModel
from PIL import Image
from torch import nn
from torch._dynamo.utils import counters

from sdcorrect.core.branches import Branches
from sdcorrect.core.capture import capture
from sdcorrect.core.inject import inject
from sdcorrect.core.observe import observe
from sdcorrect.core.plan import Injection
from sdcorrect.core.regions import compile_regions
from sdcorrect.core.sites import attention_block_at, decoder_blocks
from sdcorrect.models import Model, load
from sdcorrect.recipes import BUILT_IN
from sdcorrect.settings import ModelSettings
from sdcorrect.translate import Request, Translator


class _Graphs:
    """A light compiler: it counts the graphs that it is given, and runs each as it is."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, graph: torch.fx.GraphModule, _examples: object) -> Callable[..., Any]:
        self.count += 1
        return graph.forward


@pytest.fixture
def graphs() -> Iterator[_Graphs]:
    torch._dynamo.reset()
    counters.clear()
    yield _Graphs()
    torch._dynamo.reset()


def compiled(unet: nn.Module) -> Counter[str]:
    kinds = [type(m).__name__ for m in unet.modules() if m._compiled_call_impl is not None]
    return Counter(kinds)


def test_the_largest_regions_that_are_left_alone_are_compiled() -> None:
    unet: UNet2DConditionModel = tiny("sd1").unet
    compile_regions(unet)
    whole = compiled(unet)
    assert set(whole) == {"ResnetBlock2D", "BasicTransformerBlock"}
    attention = next(block.name for block in decoder_blocks(unet) if block.self_attention)
    transformers = len(attention_block_at(unet, attention).self_attention)
    injections = [Injection("self-attention", (attention,)), Injection("resnet", (attention,))]
    for change in (
        capture(unet, injections),
        inject(unet, injections, captured=None, branches=Branches.of("inverted", guided=True)),
        observe(unet, [attention], lambda _: None),
    ):
        with change:
            others = whole - Counter(ResnetBlock2D=1, BasicTransformerBlock=transformers)
            within = Counter(Attention=transformers, FeedForward=transformers)  # text, feed-forward
            assert compiled(unet) == others + within
        assert compiled(unet) == whole
    with capture(unet, [Injection("skip", (attention,))]):
        assert compiled(unet) == whole


def translate(model: Model, names: list[str], batch: int, image: Image.Image) -> list[bytes]:
    own = {"steps": None, "inversion_steps": None}
    recipes = [BUILT_IN[name].model_copy(update=own) for name in names]
    translator = Translator(model, recipes, steps=3, strength=1, guidance_scale=5)
    asked = [Request(image, n, "in 3d", source_prompt="in 2d") for n in range(batch)]
    made = translator(asked, variants=names)
    return [np.asarray(p).tobytes() for name in names for p in made[name].pictures]


@pytest.mark.slow
def test_recipes_batches_and_sizes_share_graphs(
    model: Model, icon: Image.Image, graphs: _Graphs
) -> None:
    ours = load(ModelSettings(device="cpu"))
    compile_regions(ours.pipe.unet, backend=graphs)
    names, small = ["correct", "pnp-50", "masactrl"], icon.resize((32, 32))
    assert translate(ours, names, 1, small) == translate(model, names, 1, small)
    first = graphs.count  # each shape of block, for one row and for several
    assert first < 50
    for batch, image in ((2, small), (3, small), (1, icon), (1, icon.resize((64, 32)))):
        assert translate(ours, names, batch, image) == translate(model, names, batch, image)
    assert graphs.count <= first + 8
    assert not counters["graph_break"]
    assert not counters["unimplemented"]
