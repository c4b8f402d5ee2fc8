"""The convolutions over skips that stay the same, computed once."""

from dataclasses import replace
from math import prod

import pytest
import torch
from diffusers import UNet2DConditionModel
from sampling import relative
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from sdcorrect.core.plan import Injection, Plan
from sdcorrect.core.regions import compile_regions
from sdcorrect.core.sampler import denoise, invert, start
from sdcorrect.core.schedule import ddim_scheduler, timesteps_from
from sdcorrect.core.sites import block_at
from sdcorrect.core.text import Text

SKIP = Injection("skip", (4, 5))
STEPS, BATCH, SIDE = 3, 2, 8


def sd15() -> UNet2DConditionModel:
    """The layout of SD 1.5, tiny, where block 5 has a group of channels of h and of S_k."""
    torch.manual_seed(0)
    widths = {"block_out_channels": (16, 16, 32, 32), "norm_num_groups": 16, "attention_head_dim": 4}
    return UNet2DConditionModel(sample_size=SIDE, cross_attention_dim=8, **widths).eval()


@pytest.fixture(scope="module")
def unet() -> UNet2DConditionModel:
    return sd15()


@torch.inference_mode()
def denoised(
    unet: UNet2DConditionModel, skip: Injection, *, once: bool, guidance_scale: float = 5.0
) -> tuple[Tensor, int]:
    """The latents, and the operations of all convolutions."""
    plan = Plan(inversion="one-step", injections=(skip,), skips_once=once)
    drawn = torch.Generator().manual_seed(1)
    x0, noise = torch.randn(2, BATCH, 4, SIDE, SIDE, generator=drawn)
    null, cond = (Text(torch.randn(BATCH, 3, 8, generator=drawn)) for _ in range(2))
    scheduler = ddim_scheduler()
    timesteps = timesteps_from(scheduler, STEPS, 1.0)
    source = invert(unet, scheduler, x0, null, plan, timesteps)
    latents = start(scheduler, x0, noise, source, plan, timesteps)
    told = {"cond": cond, "uncond": null, "guidance_scale": guidance_scale}
    with FlopCounterMode(display=False) as counter:
        latents = denoise(unet, scheduler, latents, timesteps, **told, source=source, plan=plan)
    return latents, counter.get_flop_counts()["Global"][torch.ops.aten.convolution]


@pytest.mark.parametrize(("guidance_scale", "branches"), [(5.0, 2), (1.0, 1)])
def test_what_is_constant_is_convolved_once(
    unet: UNet2DConditionModel, guidance_scale: float, branches: int
) -> None:
    (plain, all_steps), (ours, once) = (
        denoised(unet, SKIP, once=once, guidance_scale=guidance_scale) for once in (False, True)
    )
    assert relative(ours, plain) < 1e-5
    saved = 0
    # block: channels of S_k alone in a group, channels of S_k; at a quarter of the side
    for block, (normalised, skip) in {4: (32, 32), 5: (15, 16)}.items():
        resnet = block_at(unet, block).resnet
        for layer, constant in ((resnet.conv1, normalised), (resnet.conv_shortcut, skip)):
            saved += 2 * constant * layer.out_channels * prod(layer.kernel_size) * (SIDE // 4) ** 2
    assert all_steps - once == saved * branches * BATCH * (STEPS - 1)


@pytest.mark.parametrize(
    "skip",
    [replace(SKIP, weight=0.5), replace(SKIP, branches="cond"), replace(SKIP, statistics="own")],
    ids=["weight", "branches", "statistics"],
)
def test_what_changes_from_step_to_step_is_always_convolved(
    unet: UNet2DConditionModel, skip: Injection
) -> None:
    (plain, expected), (ours, operations) = (denoised(unet, skip, once=once) for once in (False, True))
    assert torch.equal(ours, plain) and operations == expected


@pytest.mark.slow
def test_a_compiled_unet_convolves_once_as_well(unet: UNet2DConditionModel) -> None:
    compiled = sd15()
    compile_regions(compiled)
    with torch.compiler.set_stance("force_eager"):
        ours, operations = denoised(compiled, SKIP, once=True)
    plain, expected = denoised(unet, SKIP, once=True)
    assert torch.equal(ours, plain) and operations == expected
