"""Features put back with the mean and deviation of those that they replace."""

from typing import Literal

import pytest
import torch
from diffusers import UNet2DConditionModel
from sampling import relative
from torch import Tensor, var_mean

from sdcorrect.core.adain import with_statistics_of
from sdcorrect.core.branches import Branches
from sdcorrect.core.capture import capture
from sdcorrect.core.inject import inject
from sdcorrect.core.observe import Observation, observe
from sdcorrect.core.plan import FEATURES, Injection, TensorName

BLOCKS = (0, 4, 8)
T = 301


@pytest.fixture
def rows(unet: UNet2DConditionModel) -> tuple[Tensor, Tensor]:
    """Latents and texts of two pictures in two branches, all of them different."""
    generator = torch.Generator().manual_seed(0)
    text = torch.randn(4, 24, unet.config.cross_attention_dim, generator=generator)
    return torch.randn(4, 4, 16, 16, generator=generator), text


def features(count: int, scale: float = 1.0, offset: float = 0.0) -> Tensor:
    return torch.randn(2, count, 8, 6, generator=torch.Generator().manual_seed(count)) * scale + offset


def moments(features: Tensor) -> tuple[Tensor, Tensor]:
    return var_mean(features, dim=(-2, -1))


def test_features_take_the_mean_and_deviation_of_each_channel_and_keep_their_shape() -> None:
    own, source = (
        features(3, 2.0, -1.0),
        features(3).flip(0) * torch.tensor([3.0, 0.5, 1.0])[:, None, None],
    )
    taken = with_statistics_of(own, source)
    torch.testing.assert_close(moments(taken), moments(own), rtol=1e-4, atol=1e-4)
    correlation = (moments(source)[0] * moments(own)[0]).sqrt()
    covariance = ((source - source.mean((-2, -1), True)) * (taken - taken.mean((-2, -1), True))).sum(
        (-2, -1)
    )
    torch.testing.assert_close(covariance / (8 * 6 - 1), correlation, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_equal_features_come_back_to_the_bit(dtype: torch.dtype) -> None:
    for scale in (1e-4, 1.0, 200.0):
        own = features(4, scale, 3 * scale).to(dtype)
        assert torch.equal(with_statistics_of(own, own.clone()), own)


def test_a_flat_channel_becomes_the_mean_alone() -> None:
    own = features(2, 4.0, 1.0)
    flat = torch.full_like(own, 7.3)
    expected = own.mean((-2, -1), keepdim=True).expand_as(own)
    torch.testing.assert_close(with_statistics_of(own, flat), expected, rtol=0, atol=0.05)
    torch.testing.assert_close(with_statistics_of(flat, own).mean(), flat.mean(), rtol=1e-5, atol=0)


@pytest.mark.parametrize("tensor", FEATURES)
def test_each_branch_of_each_picture_keeps_its_own_statistics(
    unet: UNet2DConditionModel, rows: tuple[Tensor, Tensor], tensor: TensorName
) -> None:
    latents, text = rows
    for block in BLOCKS:
        injection = Injection(tensor, (block,), statistics="own")
        seen: list[Observation] = []
        with capture(unet, [injection]) as captured:
            unet(latents[:2].flip(-1), 1, text[:2])
        branches = Branches.of("captured", guided=True)
        with observe(unet, (block,), seen.append, pictures=4):
            unet(latents, T, text)
            with inject(unet, [injection], captured=captured, branches=branches):
                unet(latents, T, text)
        own, used = (getattr(observation, tensor)[block] for observation in seen)
        source = getattr(captured, tensor)[block].repeat(2, 1, 1, 1)
        torch.testing.assert_close(moments(used), moments(own), rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(used, with_statistics_of(own, source), rtol=0, atol=0)
        assert min(relative(used, own), relative(used, source)) > 0.01


@pytest.mark.parametrize("beside", ["captured", "inverted", "sampled"])
@pytest.mark.parametrize("tensor", FEATURES)
def test_a_source_that_is_the_own_tensor_changes_nothing(
    unet: UNet2DConditionModel,
    rows: tuple[Tensor, Tensor],
    tensor: TensorName,
    beside: Literal["captured", "inverted", "sampled"],
) -> None:
    branches = Branches.of(beside, guided=True)
    latents, text = (rows[0][:1], rows[1][:1])
    latents, text = (
        latents.repeat(len(branches.donors), 1, 1, 1),
        text.repeat(len(branches.donors), 1, 1),
    )
    plain = unet(latents, T, text).sample
    for weight in (1.0, 0.3):
        injection = Injection(tensor, BLOCKS, weight=weight, statistics="own")
        with capture(unet, [injection]) as captured:
            unet(latents[:1], T, text[:1])
        known = captured if beside == "captured" else None
        with inject(unet, [injection], captured=known, branches=branches):
            assert relative(unet(latents, T, text).sample, plain) < 1e-5


def test_own_statistics_leave_less_of_the_source_than_its_features_do(
    unet: UNet2DConditionModel, rows: tuple[Tensor, Tensor]
) -> None:
    latents, text = rows
    branches = Branches.of("captured", guided=False)
    results = {}
    for statistics in ("source", "own"):
        injection = Injection("skip", (4, 5), statistics=statistics)
        with capture(unet, [injection]) as captured:
            unet(latents.flip(-1), 1, text)
        with inject(unet, [injection], captured=captured, branches=branches):
            results[statistics] = unet(latents, T, text).sample
    plain = unet(latents, T, text).sample
    distances = {name: relative(result, plain) for name, result in results.items()}
    assert 1e-3 < distances["own"] < distances["source"]
