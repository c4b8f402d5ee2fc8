from collections.abc import Iterator

import pytest
import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn

from sdcorrect.core.branches import Branches
from sdcorrect.core.capture import AllCaptured, Captured, capture
from sdcorrect.core.inject import inject
from sdcorrect.core.plan import Injection
from sdcorrect.core.sites import attention_block_at, block_at, decoder_blocks
from sdcorrect.errors import UsageError

EVERYTHING = (Injection("self-attention", (3, 4, 5, 6, 7, 8)), Injection("skip", tuple(range(9))))
ALONE = Branches.of("captured", guided=False)
GUIDED = Branches.of("captured", guided=True)
SOME = (Injection("self-attention", (3, 4)), Injection("skip", (4, 5)))


@pytest.fixture
def rows(unet: UNet2DConditionModel) -> tuple[Tensor, int, Tensor]:
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(2, 4, 16, 16, generator=generator)
    text = torch.randn(2, 24, unet.config.cross_attention_dim, generator=generator)
    return latents, 301, text


def evaluate(unet: UNet2DConditionModel, rows: tuple[Tensor, int, Tensor]) -> Tensor:
    return unet(*rows).sample


def footprint(unet: UNet2DConditionModel) -> list[object]:
    """Everything about the U-Net that capture and inject may touch."""
    hooks = [(name, dict(module._forward_pre_hooks)) for name, module in unet.named_modules()]
    return [hooks, {name: id(processor) for name, processor in unet.attn_processors.items()}]


@pytest.fixture(autouse=True)
def _leaves_no_trace(unet: UNet2DConditionModel) -> Iterator[None]:
    before = footprint(unet)
    yield
    assert footprint(unet) == before


def test_capture_does_not_change_the_result(
    unet: UNet2DConditionModel, rows: tuple[Tensor, int, Tensor]
) -> None:
    plain = evaluate(unet, rows)
    with capture(unet, EVERYTHING) as captured:
        watched = evaluate(unet, rows)
    torch.testing.assert_close(watched, plain, rtol=1e-5, atol=1e-5)
    assert torch.equal(evaluate(unet, rows), plain)
    (attention,) = captured.self_attention[3]
    probabilities = attention.probabilities
    assert probabilities.shape == (2, 4, 64, 64)
    torch.testing.assert_close(probabilities.sum(-1), torch.ones(2, 4, 64))
    finest, *_, coarsest = unet.config.block_out_channels
    assert captured.skip[0].shape == (2, coarsest, 4, 4)
    assert captured.skip[8].shape == (2, finest, 16, 16)


def test_capture_may_end_the_evaluation_where_the_last_tensor_is_known(
    unet: UNet2DConditionModel, rows: tuple[Tensor, int, Tensor]
) -> None:
    reached: list[int] = []
    handles = [
        block.resnet.register_forward_hook(lambda *_, number=block.name: reached.append(number))
        for block in decoder_blocks(unet)
    ]
    with capture(unet, SOME) as whole:
        evaluate(unet, rows)
    reached.clear()
    with capture(unet, SOME, then_stop=True) as captured, pytest.raises(AllCaptured):
        evaluate(unet, rows)
    for handle in handles:
        handle.remove()
    assert reached == [0, 1, 2, 3, 4]  # skips 4 and 5 come with their level, attention 4 is the last
    for number, maps in whole.self_attention.items():
        ours, theirs = captured.self_attention[number][0], maps[0]
        assert torch.equal(ours.probabilities, theirs.probabilities)
    assert captured.skip.keys() == whole.skip.keys()


def test_what_q_k_and_v_are_made_of_is_kept_and_the_layer_not_written_out(
    unet: UNet2DConditionModel, rows: tuple[Tensor, int, Tensor]
) -> None:
    """Its probabilities have tokens^2 values a head."""
    inputs: list[Tensor] = []
    (layer,) = attention_block_at(unet, 8).self_attention
    handle = layer.register_forward_pre_hook(lambda _layer, args: inputs.append(args[0]))
    plain = evaluate(unet, rows)
    with capture(unet, [Injection("query", (8,)), Injection("key-value", (8,))]) as captured:
        # written out it would differ in the last bits
        assert torch.equal(evaluate(unet, rows), plain)
    handle.remove()
    assert torch.equal(captured.self_attention_input[8][0], inputs[-1])
    assert not captured.self_attention


def test_a_skip_is_the_output_of_the_mirrored_encoder_block(
    unet: UNet2DConditionModel, rows: tuple[Tensor, int, Tensor]
) -> None:
    outputs = []
    encoder = [unet.conv_in]
    for down in unet.down_blocks:
        encoder += [*(down.attentions if hasattr(down, "attentions") else down.resnets)]
        encoder += [*(down.downsamplers or ())]

    def keep(_module: nn.Module, _args: object, output: object) -> None:
        outputs.append(output[0] if isinstance(output, tuple) else output)

    handles = [module.register_forward_hook(keep) for module in encoder]
    with capture(unet, EVERYTHING) as captured:
        evaluate(unet, rows)
    for handle in handles:
        handle.remove()
    for number, skip in captured.skip.items():
        assert torch.equal(skip, outputs[len(captured.skip) - 1 - number])


def test_injecting_a_source_into_itself_changes_nothing(
    unet: UNet2DConditionModel, rows: tuple[Tensor, int, Tensor]
) -> None:
    plain = evaluate(unet, rows)
    with capture(unet, EVERYTHING) as captured:
        evaluate(unet, rows)
    with inject(unet, EVERYTHING, captured=captured, branches=ALONE):
        corrected = evaluate(unet, rows)
    torch.testing.assert_close(corrected, plain, rtol=1e-4, atol=1e-5)
    assert torch.equal(evaluate(unet, rows), plain)


@pytest.mark.parametrize(
    "injection", [*SOME, Injection("self-attention", (8,)), Injection("skip", (0,))]
)
def test_each_injection_alone_changes_another_picture(
    unet: UNet2DConditionModel, rows: tuple[Tensor, int, Tensor], injection: Injection
) -> None:
    with capture(unet, [injection]) as captured:
        evaluate(unet, rows)
    other = (rows[0].flip(-1), *rows[1:])
    with inject(unet, [injection], captured=captured, branches=ALONE):
        injected = evaluate(unet, other)
    assert not torch.allclose(injected, evaluate(unet, other), atol=1e-3)


def test_injected_attention_never_computes_queries_and_keys(
    unet: UNet2DConditionModel, rows: tuple[Tensor, int, Tensor]
) -> None:
    with capture(unet, SOME) as captured:
        evaluate(unet, rows)
    calls: list[str] = []
    handles = [
        getattr(layer, name).register_forward_hook(lambda *_, name=name: calls.append(name))
        for number in (3, 4)
        for layer in attention_block_at(unet, number).self_attention
        for name in ("to_q", "to_k", "to_v")
    ]
    with inject(unet, SOME, captured=captured, branches=ALONE):
        evaluate(unet, rows)
    for handle in handles:
        handle.remove()
    assert calls == ["to_v", "to_v"]


def test_every_branch_of_a_picture_gets_that_pictures_tensors(
    unet: UNet2DConditionModel, rows: tuple[Tensor, int, Tensor]
) -> None:
    latents, t, text = rows
    with capture(unet, SOME) as captured:
        evaluate(unet, rows)
    noised = latents + 0.5
    with inject(unet, SOME, captured=captured, branches=GUIDED):
        together = unet(torch.cat([noised, noised]), t, torch.cat([text, text.flip(0)])).sample
    with inject(unet, SOME, captured=captured, branches=ALONE):
        apart = [unet(noised, t, each).sample for each in (text, text.flip(0))]
    torch.testing.assert_close(together, torch.cat(apart), rtol=1e-4, atol=1e-5)


def test_a_source_that_runs_along_is_the_source_captured(
    unet: UNet2DConditionModel, rows: tuple[Tensor, int, Tensor]
) -> None:
    latents, t, text = rows
    with capture(unet, SOME) as captured:
        evaluate(unet, rows)
    other = latents.flip(-1)
    with inject(unet, SOME, captured=captured, branches=ALONE):
        expected = unet(other, t, text).sample
    with inject(unet, SOME, captured=None, branches=Branches.of("inverted", guided=False)):
        along = unet(torch.cat([latents, other]), t, torch.cat([text, text])).sample
    torch.testing.assert_close(along[2:], expected, rtol=1e-4, atol=1e-5)


def test_an_exception_inside_leaves_the_unet_as_it_was(
    unet: UNet2DConditionModel, rows: tuple[Tensor, int, Tensor]
) -> None:
    plain = evaluate(unet, rows)
    with pytest.raises(ZeroDivisionError), capture(unet, EVERYTHING) as captured:
        evaluate(unet, rows)
        raise ZeroDivisionError
    with pytest.raises(ZeroDivisionError), inject(unet, EVERYTHING, captured=captured, branches=ALONE):
        raise ZeroDivisionError
    assert torch.equal(evaluate(unet, rows), plain)


@pytest.mark.parametrize("injection", SOME)
def test_a_site_is_taken_only_once(unet: UNet2DConditionModel, injection: Injection) -> None:
    kept = Captured({3: [torch.zeros(1)], 4: [torch.zeros(1)]}, {4: torch.zeros(1), 5: torch.zeros(1)})
    with inject(unet, [injection], captured=kept, branches=ALONE):
        with (
            pytest.raises(RuntimeError, match="already"),
            inject(unet, [injection], captured=kept, branches=ALONE),
        ):
            pass
        with pytest.raises(RuntimeError, match="already"), capture(unet, [injection]):
            pass


def test_blocks_are_numbered_in_the_order_they_run(unet: UNet2DConditionModel) -> None:
    blocks = decoder_blocks(unet)
    assert [len(block.self_attention) for block in blocks] == [0, 0, 0, 1, 1, 1, 1, 1, 1]
    assert [block.skip_index for block in blocks] == [-1, -2, -3] * 3


def test_absent_blocks_are_named(unet: UNet2DConditionModel) -> None:
    with pytest.raises(UsageError, match="block 9.*0 to 8"):
        block_at(unet, 9)
    with pytest.raises(UsageError, match="block 2 of .* has no self-attention.*3, 4, 5, 6, 7, 8"):
        attention_block_at(unet, 2)
