"""What is observed is what the decoder used: its own tensors, or those that were put back."""

import pytest
import torch
from diffusers import UNet2DConditionModel
from torch import Tensor

from sdcorrect.core.attention import merge_heads, split_heads
from sdcorrect.core.branches import Branches
from sdcorrect.core.capture import capture
from sdcorrect.core.inject import inject
from sdcorrect.core.observe import Observation, SelfAttention, observe
from sdcorrect.core.plan import Injection
from sdcorrect.core.sites import attention_block_at

BLOCKS = (3, 4, 5)
GUIDED = Branches.of("captured", guided=True)
CORRECTION = (Injection("self-attention", (3, 4)), Injection("skip", (4, 5)))


@pytest.fixture
def latents() -> Tensor:
    return torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def text(unet: UNet2DConditionModel) -> Tensor:
    width = unet.config.cross_attention_dim
    return torch.randn(2, 24, width, generator=torch.Generator().manual_seed(1))


def whole(attention: SelfAttention, queries: int = 7) -> Tensor:
    return torch.cat([*attention.by_queries(queries)], dim=-2)


def test_observing_changes_nothing_and_leaves_no_trace(
    unet: UNet2DConditionModel, latents: Tensor, text: Tensor
) -> None:
    plain = unet(latents, 301, text).sample
    hooks = [(dict(m._forward_hooks), dict(m._forward_pre_hooks)) for m in unet.modules()]
    seen: list[Observation] = []
    with observe(unet, BLOCKS, seen.append, pictures=2):
        assert torch.equal(unet(latents, 301, text).sample, plain)
        unet(latents, torch.tensor(51), text)
    assert [observation.timestep for observation in seen] == [301, 51]
    assert hooks == [(dict(m._forward_hooks), dict(m._forward_pre_hooks)) for m in unet.modules()]


@pytest.mark.parametrize("observed_first", [True, False])
@pytest.mark.parametrize(
    "injection",
    [
        None,
        Injection("self-attention", (3, 4)),
        Injection("self-attention", (3, 4), weight=0.4),
        Injection("self-attention", (3, 4), max_tokens=16),
        Injection("self-attention", (3, 4), branches="cond"),
        Injection("key-value", (3, 4)),
        Injection("key-value", (4, 5), weight=0.4),
        Injection("query", (3, 4)),
        Injection("query", (4, 5), weight=0.4, branches="cond"),
        Injection("query", (3, 4), max_tokens=16),
    ],
    ids=[
        "own",
        "injected",
        "blended",
        "small alone",
        "one branch",
        "key-value",
        "key-value blended",
        "query",
        "query blended in one branch",
        "query where it is small",
    ],
)
def test_the_observed_attention_gives_the_layers_own_output(
    unet: UNet2DConditionModel,
    latents: Tensor,
    text: Tensor,
    injection: Injection | None,
    observed_first: bool,
) -> None:
    injections = [injection] if injection else []
    with capture(unet, injections) as captured:
        unet(latents, 1, text)
    seen: list[Observation] = []
    outputs: list[Tensor] = []
    layers = [layer for block in BLOCKS for layer in attention_block_at(unet, block).self_attention]
    handles = [layer.register_forward_hook(lambda *call: outputs.append(call[-1])) for layer in layers]
    contexts = [
        observe(unet, BLOCKS, seen.append, pictures=2),
        inject(unet, injections, captured=captured, branches=GUIDED),
    ]
    first, second = contexts if observed_first else reversed(contexts)
    with first, second:
        unet(latents.flip(-1).repeat(2, 1, 1, 1), 501, torch.cat([text.flip(0), text]))
    for handle in handles:
        handle.remove()
    (observation,) = seen
    for block, output in zip(BLOCKS, outputs, strict=True):
        (attention,) = observation.self_attention[block]
        value = split_heads(
            attention.layer.to_v(attention.hidden_states[-2:])
            if injection is None or injection.tensor != "key-value" or block not in injection.blocks
            else attention.layer.to_v(
                attention.hidden_states[-2:].lerp(
                    captured.self_attention_input[block][0], injection.weight
                )
            ),
            attention.heads,
        )
        attended = merge_heads(attention.layer, whole(attention) @ value)
        torch.testing.assert_close(attended, output[-2:], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("observed_first", [True, False])
def test_what_is_put_back_is_observed_as_the_very_tensors_of_the_inversion(
    unet: UNet2DConditionModel, latents: Tensor, text: Tensor, observed_first: bool
) -> None:
    seen: list[Observation] = []
    injections = (*CORRECTION, Injection("resnet", (5,)))
    with observe(unet, BLOCKS, seen.append, pictures=2), capture(unet, injections) as captured:
        unet(latents, 1, text)
    contexts = [
        observe(unet, BLOCKS, seen.append, pictures=2),
        inject(unet, injections, captured=captured, branches=GUIDED),
    ]
    first, second = contexts if observed_first else reversed(contexts)
    with first, second:
        unet(latents.flip(-1).repeat(2, 1, 1, 1), 501, text.repeat(2, 1, 1))
    inversion, corrected = seen
    same = {
        block: torch.equal(whole(inversion.self_attention[block][0]), whole(attention))
        for block, (attention,) in corrected.self_attention.items()
    }
    assert same == {3: True, 4: True, 5: False}
    same = {block: torch.equal(inversion.skip[block], skip) for block, skip in corrected.skip.items()}
    assert same == {3: False, 4: True, 5: True}
    same = {block: torch.equal(inversion.resnet[block], h) for block, h in corrected.resnet.items()}
    assert same == {3: False, 4: False, 5: True}


def test_the_conditional_branch_is_the_one_observed(
    unet: UNet2DConditionModel, latents: Tensor, text: Tensor
) -> None:
    seen: list[Observation] = []
    with observe(unet, (4,), seen.append, pictures=2):
        unet(latents.repeat(2, 1, 1, 1), 301, torch.cat([text.flip(0), text]))
        unet(latents, 301, text)
    guided, alone = seen
    torch.testing.assert_close(guided.skip[4], alone.skip[4], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(guided.resnet[4], alone.resnet[4], rtol=1e-4, atol=1e-5)
    maps = (whole(observation.self_attention[4][0]) for observation in seen)
    torch.testing.assert_close(*maps, rtol=1e-4, atol=1e-5)
