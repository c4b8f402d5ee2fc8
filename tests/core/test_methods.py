"""The equalities that define the methods of the comparison."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from diffusers import LCMScheduler, UNet2DConditionModel
from diffusers.models.attention import BasicTransformerBlock
from PIL import Image
from sampling import of_diffusers, relative, sdedit
from torch import Tensor

from sdcorrect.core.alignment import Alignment
from sdcorrect.core.branches import Branches
from sdcorrect.core.capture import capture
from sdcorrect.core.inject import inject
from sdcorrect.core.plan import MID, Injection, Plan, Reuse, Window, check_windows
from sdcorrect.core.reuse import reading_text_once, reusing
from sdcorrect.core.sampler import denoise, invert, start
from sdcorrect.core.schedule import ddim_scheduler, solver_from, timesteps_from
from sdcorrect.core.sites import attention_block_at
from sdcorrect.core.text import Text
from sdcorrect.errors import UsageError
from sdcorrect.models import Model
from sdcorrect.recipes import BUILT_IN

SOURCE, TARGET = "a church, flat design style", "a church, in 3d render style"
ATTENTION = ("encoder.1", "encoder.4", MID, 3, 8)
KINDS = (
    Injection("self-attention", ATTENTION),
    Injection("query", ATTENTION),
    Injection("key-value", ATTENTION),
    Injection("cross-attention", ATTENTION),
    Injection("skip", (0, 4, 8)),
    Injection("resnet", (0, 4, 8)),
    Injection("skip", (0, 4, 8), statistics="own"),
    Injection("resnet", (0, 4, 8), statistics="own"),
)
SIZE = (32, 32)  #: px
ids = [f"{injection.tensor} {injection.statistics}" for injection in KINDS]


@pytest.fixture
def x0() -> Tensor:
    return torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(3))


def sample(
    model: Model,
    plan: Plan,
    x0: Tensor,
    *,
    prompt: str = TARGET,
    source: str = "",
    guidance_scale: float = 5.0,
    steps: int = 4,
    words: str = "refine",
) -> Tensor:
    unet, scheduler = model.pipe.unet, model.scheduler
    null = model.text([""], SIZE)
    timesteps = timesteps_from(scheduler, steps, 1.0)
    known = invert(unet, scheduler, x0, null, plan, timesteps, prompt=model.text([source], SIZE))
    return denoise(
        unet,
        scheduler,
        start(scheduler, x0, x0.flip(-1), known, plan, timesteps),
        timesteps,
        cond=model.text([prompt], SIZE),
        uncond=null,
        guidance_scale=guidance_scale,
        source=known,
        plan=plan,
        alignment=aligned(model, source, prompt),
    )


def aligned(model: Model, source: str, target: str) -> Alignment:
    prompts = [model.tokenize(source)], [model.tokenize(target)]
    return Alignment.of(*prompts, "refine", {}, model.text_length)


def pnp(features: Window, attention: Window) -> Plan:
    return Plan(
        "full",
        start="inverted",
        injections=(
            Injection("resnet", (4,), features),
            Injection("self-attention", (4, 5, 6, 7, 8), attention),
        ),
    )


def test_plug_and_play_with_both_thresholds_zero_is_ddim(model: Model, x0: Tensor) -> None:
    ddim = sample(model, Plan("full", start="inverted"), x0)
    assert relative(sample(model, pnp((0, 0), (0, 0)), x0), ddim) < 1e-4
    assert relative(sample(model, pnp((0, 0.8), (0, 0)), x0), ddim) > 0.01
    assert relative(sample(model, pnp((0, 0), (0, 0.5)), x0), ddim) > 0.01


@pytest.mark.parametrize("injection", KINDS, ids=ids)
@pytest.mark.parametrize("beside", ["inverted", "sampled"])
def test_a_source_injected_into_itself_changes_nothing(
    model: Model, unet: UNet2DConditionModel, x0: Tensor, injection: Injection, beside: str
) -> None:
    branches = Branches.of(beside, guided=True)  # type: ignore[arg-type]
    rows, text = (t.repeat(len(branches.donors), 1, 1) for t in (x0[0], model.embed(SOURCE).embeddings))
    rows = x0.repeat(len(branches.donors), 1, 1, 1)
    plain = unet(rows, 301, text).sample
    alignment = aligned(model, SOURCE, SOURCE)
    with inject(unet, [injection], captured=None, branches=branches, alignment=alignment):
        injected = unet(rows, 301, text).sample
    assert relative(injected, plain) < 1e-5
    assert torch.equal(unet(rows, 301, text).sample, plain)


@pytest.mark.parametrize("injection", KINDS, ids=ids)
def test_each_tensor_reaches_the_branches_it_is_for_and_no_others(
    model: Model, unet: UNet2DConditionModel, x0: Tensor, injection: Injection
) -> None:
    rows = torch.cat([x0, x0.flip(-1)] * 2)
    text = torch.cat([model.embed(t).embeddings for t in ("", "", SOURCE, TARGET)])
    plain = unet(rows, 301, text).sample
    changed = {}
    for which in ("both", "cond"):
        chosen = replace(injection, branches=which)
        with inject(
            unet,
            [chosen],
            captured=None,
            branches=Branches.of("sampled", guided=True),
            alignment=aligned(model, SOURCE, TARGET),
        ):
            injected = unet(rows, 301, text).sample
        changed[which] = [relative(a, b) > 1e-4 for a, b in zip(injected, plain, strict=True)]
    # of the same text the source's cross-attention is another, for its picture is
    assert changed == {"both": [False, True, False, True], "cond": [False, False, False, True]}


def test_a_full_inversion_is_under_the_prompt_that_it_is_given(model: Model, x0: Tensor) -> None:
    unet, scheduler, null = model.pipe.unet, model.scheduler, model.text([""], SIZE)
    timesteps = timesteps_from(scheduler, 4, 1.0)

    def inverted(prompt: Text | None) -> Tensor:
        known = invert(unet, scheduler, x0, null, Plan("full"), timesteps, prompt=prompt)
        return known.trajectory[int(timesteps[0])]

    assert torch.equal(inverted(None), inverted(null))
    assert relative(inverted(model.text([SOURCE], SIZE)), inverted(null)) > 1e-3


@pytest.mark.parametrize("name", ["p2p", "p2p-refine", "p2p-reweight"])
def test_prompt_to_prompt_with_equal_prompts_is_the_inversions_own_reconstruction(
    model: Model, x0: Tensor, name: str
) -> None:
    recipe = BUILT_IN[name].model_copy(update={"inversion_steps": 4})
    plan = recipe.plan(model.layout)
    same = sample(model, plan, x0, prompt=SOURCE, source=SOURCE)
    own = sample(model, Plan("full", start="inverted"), x0, prompt=SOURCE, source=SOURCE)
    assert relative(same, own) < 1e-4
    edited = sample(model, plan, x0, prompt=TARGET, source=SOURCE)
    assert relative(edited, own) > 0.01
    unedited = sample(model, Plan("full", start="inverted"), x0, prompt=TARGET, source=SOURCE)
    assert relative(edited, unedited) > 0.01


def test_masactrl_with_equal_prompts_is_the_inversions_own_reconstruction(
    model: Model, x0: Tensor
) -> None:
    plan = BUILT_IN["masactrl"].model_copy(update={"inversion_steps": 4}).plan(model.layout)
    assert plan.injections[0].blocks == (6, 7, 8)
    own = sample(model, Plan("full", start="inverted"), x0, prompt="")
    assert relative(sample(model, plan, x0, prompt=""), own) < 1e-4
    unedited = sample(model, Plan("full", start="inverted"), x0)
    assert relative(sample(model, plan, x0), unedited) > 0.01


def test_weight_blends_between_the_own_tensor_and_the_sources(
    unet: UNet2DConditionModel, model: Model, x0: Tensor
) -> None:
    text = model.embed(SOURCE).embeddings
    for injection in KINDS:
        if injection.tensor == "cross-attention":
            continue  # it is read through the source's prompt
        blocks = tuple(block for block in injection.blocks if isinstance(block, int))[:1]
        whole = replace(injection, blocks=blocks)
        with capture(unet, [whole]) as captured:
            unet(x0, 1, text)
        other = x0.flip(-1)

        def blended(weight: float) -> Tensor:
            chosen = replace(whole, weight=weight)  # noqa: B023
            branches = Branches.of("captured", guided=False)
            with inject(unet, [chosen], captured=captured, branches=branches):  # noqa: B023
                return unet(other, 301, text).sample  # noqa: B023

        plain = unet(other, 301, text).sample
        distances = [relative(blended(weight), plain) for weight in (1e-7, 0.5, 0.999999, 1.0)]
        assert distances[0] < 1e-4 < distances[1] < distances[3]
        assert distances[2] == pytest.approx(distances[3], rel=1e-3)


def test_small_enough_attention_alone_is_changed(
    unet: UNet2DConditionModel, model: Model, x0: Tensor
) -> None:
    rows, text = torch.cat([x0, x0.flip(-1)]), model.embed(SOURCE).embeddings.repeat(2, 1, 1)
    plain = unet(rows, 301, text).sample
    branches = Branches.of("inverted", guided=False)
    for block, tokens in ((3, 16), (8, 64)):
        for limit in (tokens - 1, tokens):
            chosen = Injection("self-attention", (block,), max_tokens=limit)
            with inject(unet, [chosen], captured=None, branches=branches):
                injected = unet(rows, 301, text).sample
            assert torch.equal(injected, plain) == (limit < tokens)


def test_guidance_is_paid_for_only_where_it_acts(model: Model, x0: Tensor) -> None:
    def cost(plan: Plan, guidance_scale: float) -> int:
        before = model.evaluations
        sample(model, plan, x0, guidance_scale=guidance_scale)
        return model.evaluations - before

    assert cost(Plan(), 5.0) == 8
    assert cost(Plan(), 1.0) == 4
    assert cost(Plan(guidance_window=(0, 0.5)), 5.0) == 6
    assert cost(pnp((0, 0.8), (0, 0.5)), 5.0) == 4 + 12
    assert cost(BUILT_IN["p2p"].model_copy(update={"inversion_steps": 4}).plan(model.layout), 5.0) == 20
    assert cost(Plan("full", inversion_guidance=2.0, start="inverted"), 1.0) == 8 + 4


def test_guidance_of_one_is_no_guidance(model: Model, x0: Tensor) -> None:
    assert relative(sample(model, Plan(), x0, guidance_scale=1 + 1e-7),
                    sample(model, Plan(), x0, guidance_scale=1.0)) < 1e-4  # fmt: skip


def test_a_text_is_read_once_and_the_unet_is_restored(
    unet: UNet2DConditionModel, model: Model, x0: Tensor
) -> None:
    layers = [block.attn2.to_k for block in unet.modules() if isinstance(block, BasicTransformerBlock)]
    runs: list[Tensor] = []
    project = layers[0].forward
    layers[0].forward = lambda text: runs.append(text) or project(text)
    once = sample(model, Plan(), x0, steps=4)
    assert len(runs) == 1
    del layers[0].forward
    text, other = model.embed(SOURCE).embeddings, model.embed(TARGET).embeddings
    plain = [unet(x0, 301, told).sample for told in (text, other)]
    with reading_text_once(unet):
        kept = [unet(x0, 301, told).sample for told in (text, text, other, text)]
    assert [torch.equal(a, plain[b]) for a, b in zip(kept, (0, 0, 1, 0), strict=True)] == [True] * 4
    assert not any("forward" in vars(module) for module in unet.modules())
    assert torch.equal(sample(model, Plan(), x0, steps=4), once)


def test_deep_features_are_kept_between_steps_and_the_unet_is_restored(
    unet: UNet2DConditionModel, model: Model, x0: Tensor
) -> None:
    text = model.embed(SOURCE).embeddings
    runs = []
    handle = unet.mid_block.resnets[0].register_forward_hook(lambda *_: runs.append("deep"))
    plain = unet(x0, 301, text).sample
    with reusing(unet, 2):
        assert torch.equal(unet(x0, 301, text).sample, plain)
        shallow = unet(x0.flip(-1), 301, text).sample
        unet(x0, 301, text)
        with pytest.raises(RuntimeError, match="already"), reusing(unet, 2):
            pass
    assert len(runs) == 3
    assert relative(shallow, unet(x0.flip(-1), 301, text).sample) > 1e-3
    assert torch.equal(unet(x0, 301, text).sample, plain)
    assert len(runs) == 5
    assert not any("forward" in vars(module) for module in unet.modules())
    handle.remove()
    assert relative(sample(model, Plan(reuse=Reuse(2)), x0), sample(model, Plan(), x0)) > 1e-3


@pytest.mark.parametrize("name", ["dpm++", "unipc"])
def test_every_solver_starts_at_the_noise_of_ddim(name: str, x0: Tensor) -> None:
    ddim = ddim_scheduler()
    noise = x0.flip(-1)
    expected = timesteps_from(ddim, 20, 0.8)
    noised = ddim.add_noise(x0, noise, expected[:1])
    for steps in (None, 5):
        solver, timesteps = solver_from(name, ddim, 20, 0.8, steps)
        assert timesteps[0] == expected[0]
        assert len(timesteps) == (steps or len(expected))
        assert relative(solver.add_noise(x0, noise, timesteps[:1]), noised) < 1e-5
        # told the true noise at every step, each of them returns to where it came from
        latents = noised
        for t in timesteps:
            latents = solver.step(noise, t, latents).prev_sample
        assert relative(latents, x0) < 1e-3


def test_consistency_sampling_is_that_of_the_img2img_pipeline_of_diffusers(
    model: Model, icon: Image.Image
) -> None:
    expected = of_diffusers(model, icon, strength=1.0, scheduler=LCMScheduler)
    # it amplifies an error of the U-Net 100 times, and on a GPU both sides round their input differently
    bar = 1e-4 if model.device.type == "cpu" else 1e-3
    assert relative(sdedit(model, icon, strength=1.0, solver="lcm"), expected) < bar


def test_consistency_models_start_where_they_were_distilled() -> None:
    _, taken = solver_from("lcm", ddim_scheduler(), 20, 0.8, 4)
    assert len(taken) == 4
    assert taken[0] == 799  # the next noisier of 19, 39, ... after DDIM's 751
    with pytest.raises(UsageError, match="lcm takes at most 25 steps at strength 0.5, not 30"):
        solver_from("lcm", ddim_scheduler(), 60, 0.5)


def timesteps(steps: int) -> Sequence[int]:
    return timesteps_from(ddim_scheduler(), steps, 1.0).tolist()


def test_blocks_may_have_windows_of_their_own(model: Model, x0: Tensor) -> None:
    """Each block follows its own, whatever else is put back meanwhile."""

    def windowed(*injections: Injection) -> Tensor:
        plan = Plan("one-step", injections=injections)
        check_windows(plan, timesteps(4))
        return sample(model, plan, x0)

    def of(block: int, first: float, last: float) -> Injection:
        return Injection("self-attention", (block,), (first, last))

    always = windowed(of(3, 0, 1), of(8, 0, 1))
    assert torch.equal(windowed(of(3, 0, 0.5), of(8, 0, 1), of(3, 0.5, 1)), always)
    early = windowed(of(3, 0, 1), of(8, 0, 0.5))
    assert relative(early, always) > 1e-3
    assert relative(windowed(of(3, 0, 0.5), of(8, 0, 1)), early) > 1e-3
    assert torch.equal(windowed(of(3, 0, 1), of(8, 0, 0.25), of(8, 0.25, 0.5)), early)


@pytest.mark.parametrize("block", [3, 8, MID, "encoder.1"])
def test_the_sources_query_key_and_value_together_are_the_sources_attention(
    unet: UNet2DConditionModel, model: Model, x0: Tensor, block: int | str
) -> None:
    (layer,) = attention_block_at(unet, block).self_attention
    outputs: list[Tensor] = []
    handle = layer.register_forward_hook(lambda *call: outputs.append(call[-1]))
    text = model.embed(SOURCE).embeddings
    both = [Injection("query", (block,)), Injection("key-value", (block,))]
    with capture(unet, both) as captured:
        unet(x0, 1, text)
    branches = Branches.of("captured", guided=False)
    for injections in (both, both[::-1], both[:1], both[1:]):
        with inject(unet, injections, captured=captured, branches=branches):
            unet(x0.flip(-1), 301, text)
    handle.remove()
    source, together, reversed_, query, key_value = outputs
    assert relative(together, source) < 1e-5 and torch.equal(together, reversed_)
    assert min(relative(query, source), relative(key_value, source), relative(query, key_value)) > 1e-3


@pytest.mark.parametrize("scaled", [False, True])
def test_the_clean_picture_may_be_seen_at_another_timestep(
    model: Model, unet: UNet2DConditionModel, x0: Tensor, scaled: bool
) -> None:
    injections = (Injection("skip", (4,)), Injection("self-attention", (8,)))
    plan = Plan("one-step", injections=injections, timestep=601, scale_input=scaled)
    null, scheduler = model.text([""], SIZE), model.scheduler
    found = invert(unet, scheduler, x0, null, plan, timesteps_from(scheduler, 4, 1.0)).captured
    noiseless = scheduler.add_noise(x0, torch.zeros_like(x0), torch.tensor([601]))
    with capture(unet, injections) as expected:
        unet(noiseless if scaled else x0, 601, null.embeddings)
    assert found is not None
    torch.testing.assert_close(found.skip[4], expected.skip[4])
    maps = (captured.self_attention[8][0].probabilities for captured in (found, expected))
    torch.testing.assert_close(*maps)
    with capture(unet, injections) as of_the_paper:
        unet(x0, 1, null.embeddings)
    assert relative(found.skip[4], of_the_paper.skip[4]) > 1e-2


NONE_IN = r"none of the 5 steps \(timesteps 801 to 1\) is in its"


def test_timesteps_may_bound_an_injection() -> None:
    injection = Injection("skip", (4,), timesteps=(700, 300))
    active = [t for step, t in enumerate(timesteps(10)) if injection.active(step, timesteps(10))]
    assert active == [601, 501, 401, 301]


@pytest.mark.parametrize(
    ("injections", "message"),
    [
        ([Injection("skip", (4,), (0, 0.1))], rf"skip: {NONE_IN} window 0 to 0\.1; widen"),
        ([Injection("skip", (4,), timesteps=(990, 850))], rf"skip: {NONE_IN} timesteps 990 to 850"),
        ([Injection("skip", (4,)), Injection("skip", (4,), (0, 0.5))], "skip of block 4 is .* twice"),
        (
            [Injection("self-attention", (4,)), Injection("key-value", (4,))],
            "self-attention of block 4 is put back twice at step 0, because key-value changes it too;",
        ),
        (
            [Injection("query", (4,), (0, 0.6)), Injection("self-attention", (3, 4), (0.4, 1))],
            "query of block 4 is put back twice at step 2, because self-attention changes it too",
        ),
        ([Injection("query", (4,)), Injection("query", (4, 5))], "query of block 4 .* step 0; list"),
    ],
)  # fmt: skip
def test_windows_that_cannot_be_are_refused(injections: list[Injection], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        check_windows(Plan("one-step", injections=tuple(injections)), timesteps(5))
