"""Compiled regions compute what the library's layers do, in few graphs."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import UNet2DConditionModel
from PIL import Image
from torch import Tensor
from torch._dynamo.utils import counters

from sdcorrect.core.regions import compile_regions
from sdcorrect.models import Model, load
from sdcorrect.recipes import BUILT_IN
from sdcorrect.settings import ModelSettings
from sdcorrect.translate import Request, Translator

#: Group norm and SiLU with and without the timestep's shift, group norm alone, and the scaled sum, each
#: for one row and for several; and the gate.
A_LAYOUT = 2 * 4 + 1


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


@torch.inference_mode()
def predicted(unet: UNet2DConditionModel, rows: int = 2, height: int = 8, width: int = 8) -> Tensor:
    """The U-Net's prediction for the same random latents and text each time."""
    torch.manual_seed(0)
    latents = torch.randn(rows, 4, height, width).to(memory_format=torch.channels_last)
    return unet(latents, 500, torch.randn(rows, 5, unet.config.cross_attention_dim)).sample


def alike(kind: dict[str, Any]) -> tuple[UNet2DConditionModel, UNet2DConditionModel]:
    """Two equal U-Nets in the channels-last layout, with the four levels of SD 1.5."""
    widths = {"block_out_channels": (8, 16, 24, 40), "norm_num_groups": 4, "attention_head_dim": 4}
    plain = UNet2DConditionModel(cross_attention_dim=8, layers_per_block=1, **widths | kind)
    other = UNet2DConditionModel.from_config(plain.config)
    other.load_state_dict(plain.state_dict())
    plain, other = (unet.eval().to(memory_format=torch.channels_last) for unet in (plain, other))
    return plain, other


def test_graphs_are_shared_by_all_widths_rows_and_sizes(graphs: _Graphs) -> None:
    plain, ours = alike({})
    compile_regions(ours, backend=graphs)
    for size in ((1, 16, 16), (2, 16, 16), (3, 24, 16), (1, 16, 40)):
        assert torch.equal(predicted(ours, *size), predicted(plain, *size)), size
    assert graphs.count == A_LAYOUT
    assert not counters["graph_break"]
    assert not counters["unimplemented"]


@pytest.mark.parametrize(
    "kind",
    [
        {},
        {"resnet_out_scale_factor": 1.4, "mid_block_scale_factor": 0.7},
        {"act_fn": "gelu"},
        {"resnet_time_scale_shift": "scale_shift"},
        {"down_block_types": ("ResnetDownsampleBlock2D",) * 4, "resnet_skip_time_act": True},
        {"down_block_types": ("ResnetDownsampleBlock2D",) * 4},
        {"up_block_types": ("ResnetUpsampleBlock2D",) * 4},
        {"mid_block_type": None, "use_linear_projection": True},
    ],
    ids=lambda kind: "-".join(kind),
)
def test_every_kind_of_resnet_computes_the_same(kind: dict[str, Any]) -> None:
    plain, ours = alike(kind)
    compile_regions(ours)
    with torch.compiler.set_stance("force_eager"):
        assert torch.equal(predicted(ours), predicted(plain))


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
    for batch, image in ((1, small), (2, small), (3, small), (1, icon), (1, icon.resize((64, 32)))):
        assert translate(ours, names, batch, image) == translate(model, names, batch, image)
    assert graphs.count <= 2 * A_LAYOUT  # the CPU's convolutions return both
    assert not counters["graph_break"]
    assert not counters["unimplemented"]
