"""Operations dispatched in a denoising step: what a small batch waits for on a GPU."""

from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from torch.utils._python_dispatch import TorchDispatchMode

from sdcorrect.core.layout import UNetLayout
from sdcorrect.core.sampler import denoise, invert, start
from sdcorrect.core.schedule import ddim_scheduler, timesteps_from
from sdcorrect.core.text import Text
from sdcorrect.recipes import BUILT_IN

STEPS = 2


class Counting(TorchDispatchMode):
    """Counts the operations that torch is asked for, views included."""

    def __init__(self) -> None:
        super().__init__()
        self.operations = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.operations += 1
        return func(*args, **(kwargs or {}))


@pytest.fixture(scope="module")
def sd15() -> UNet2DConditionModel:
    """The layout of SD 1.5, tiny."""
    torch.manual_seed(0)
    widths = {"block_out_channels": (8, 8, 8, 8), "norm_num_groups": 4, "attention_head_dim": 2}
    return UNet2DConditionModel(sample_size=8, cross_attention_dim=8, **widths).eval()


def operations(unet: UNet2DConditionModel, name: str) -> tuple[float, int]:
    """The operations of a denoising step, and of the inversion."""
    plan = BUILT_IN[name].plan(UNetLayout.from_config(unet.config))
    scheduler, text = ddim_scheduler(), Text(torch.zeros(1, 4, 8))
    timesteps, x0 = timesteps_from(scheduler, STEPS, 1.0), torch.zeros(1, 4, 8, 8)
    with Counting() as inverting:
        source = invert(unet, scheduler, x0, text, plan, timesteps)
    latents = start(scheduler, x0, x0, source, plan, timesteps)
    told: dict[str, Any] = {"cond": text, "uncond": text, "guidance_scale": 5.0}
    with Counting() as denoising:
        denoise(unet, scheduler, latents, timesteps, **told, source=source, plan=plan)
    return denoising.operations / STEPS, inverting.operations


def test_what_is_put_back_takes_hardly_more_operations_than_it_saves(
    sd15: UNet2DConditionModel,
) -> None:
    baseline, _ = operations(sd15, "sdedit")
    correct, inversion = operations(sd15, "correct")
    assert correct < baseline and inversion < 0.6 * baseline
    layers = 16
    wide, inversion = operations(sd15, "correct-wide")
    assert wide <= baseline + 2 * layers and inversion < baseline
