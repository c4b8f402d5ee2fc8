"""Sources that run along: an inversion's own latents, x0 noised anew, and noise maps between them."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    LEditsPPPipelineStableDiffusion,
    SchedulerMixin,
)
from diffusers.pipelines.deprecated.stable_diffusion_variants.pipeline_cycle_diffusion import (
    CycleDiffusionPipeline,
)
from PIL import Image
from sampling import relative
from torch import Tensor

from sdcorrect.core.alignment import Alignment
from sdcorrect.core.plan import Maps, Noising, Plan
from sdcorrect.core.sampler import denoise, invert, start
from sdcorrect.core.schedule import solver_from, spaced
from sdcorrect.core.text import Text
from sdcorrect.models import Model
from sdcorrect.recipes import BUILT_IN

SOURCE, TARGET = "a church, flat design style", "a church, in 3d render style"
SIZE = (32, 32)  #: px
SEEDS = (5, 6)


@pytest.fixture
def x0() -> Tensor:
    return torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(3))


def generators() -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in SEEDS]


def edit(
    model: Model,
    plan: Plan,
    x0: Tensor,
    *,
    prompt: str = TARGET,
    told: str = SOURCE,
    inverted_under: str = SOURCE,
    uncond: str = "",
    guidance_scale: float = 5.0,
    steps: int = 4,
    strength: float = 1.0,
    solver: Any = "ddim",
    ddim: DDIMScheduler | None = None,
    drawn: list[torch.Generator] | None = None,
    noise: Tensor | None = None,
) -> Tensor:
    """The latents of `x0`, its source told `told` beside a target told `prompt`."""

    def text(words: str) -> Text:
        return model.text([words] * len(x0), SIZE)

    def fresh() -> tuple[SchedulerMixin, Tensor]:
        return solver_from(solver, ddim or model.scheduler, steps, strength)

    unet, (scheduler, timesteps) = model.pipe.unet, fresh()
    drawn = drawn or generators()[: len(x0)]
    source = invert(
        unet,
        scheduler,
        x0,
        text(""),
        plan,
        timesteps,
        prompt=text(inverted_under),
        generators=drawn,
    )
    scheduler, timesteps = fresh()
    noise = x0.flip(-1) if noise is None else noise
    return denoise(
        unet,
        scheduler,
        start(scheduler, x0, noise, source, plan, timesteps),
        timesteps,
        cond=text(prompt),
        uncond=text(uncond),
        guidance_scale=guidance_scale,
        source=replace(source, text=text(told)),
        plan=plan,
        null=text(""),
        alignment=Alignment.of(
            [model.tokenize(told)] * len(x0),
            [model.tokenize(prompt)] * len(x0),
            "refine",
            {},
            model.text_length,
        ),
        generators=drawn,
    )


NOISED = {
    "clean": (Noising(guidance=5.0, to_clean=True), "ddim"),
    "lcm": (Noising(guidance=5.0), "lcm"),
    "posterior": (Noising(guidance=5.0, eta=0.1, noise="posterior"), "ddim"),
    "difference": (Noising(guidance=5.0), "ddim"),
    "another solver": (Noising(guidance=5.0), "dpm++"),
    "a third": (Noising(guidance=5.0), "unipc"),
}
#: Of these, those that are run each time.
OFTEN = {"clean", "difference"}


@pytest.mark.parametrize(
    ("noising", "solver"),
    [
        pytest.param(*how, id=name, marks=[pytest.mark.slow] * (name not in OFTEN))
        for name, how in NOISED.items()
    ],
)
def test_a_noised_source_with_equal_prompts_gives_back_x0(
    model: Model, x0: Tensor, noising: Noising, solver: str
) -> None:
    plan = Plan(source="noised", noised=noising)
    assert relative(edit(model, plan, x0, prompt=SOURCE, solver=solver), x0) < 1e-5
    assert relative(edit(model, plan, x0, solver=solver), x0) > 0.01


@pytest.mark.parametrize(
    ("solver", "shift"),
    [
        ("ddim", 0),
        *(pytest.param(*how, marks=pytest.mark.slow) for how in (("ddim", 1), ("sde-dpm++", 0))),
    ],
)
def test_noise_maps_reconstruct_to_float_error(
    model: Model, x0: Tensor, solver: str, shift: int
) -> None:
    plan = Plan("ddpm", inversion_guidance=3.0, start="inverted", maps=Maps(shift))
    same: Any = {"prompt": SOURCE, "guidance_scale": 3.0, "solver": solver, "strength": 0.75}
    assert relative(edit(model, plan, x0, **same), x0) < 1e-5
    assert relative(edit(model, plan, x0, **{**same, "prompt": TARGET}), x0) > 0.01


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cyclediffusion", "flowedit", "leditspp"])
def test_a_picture_is_the_same_in_every_batch(model: Model, x0: Tensor, name: str) -> None:
    recipe = BUILT_IN[name]
    plan, solver = recipe.plan(model.layout), recipe.scheduler or "ddim"
    together = edit(model, plan, x0, solver=solver)
    for i in range(2):
        alone = edit(model, plan, x0[i : i + 1], solver=solver, drawn=generators()[i : i + 1])
        assert relative(together[i : i + 1], alone) < 1e-5


@pytest.mark.slow
def test_the_last_map_may_be_left_out_or_limited(model: Model, x0: Tensor) -> None:
    same: Any = {"prompt": SOURCE, "guidance_scale": 1.0}

    def of(maps: Maps) -> Tensor:
        return edit(model, Plan("ddpm", start="inverted", maps=maps), x0, **same)

    kept, without = of(Maps()), of(Maps(last=False))
    (norms,) = {tuple((kept - without).flatten(1).norm(dim=1).tolist())}
    least = min(norms)
    assert least > 1e-3
    limited = (of(Maps(last_norm=least / 2)) - without).flatten(1).norm(dim=1)
    torch.testing.assert_close(limited, torch.full((2,), least / 2), rtol=1e-3, atol=0)
    assert torch.equal(of(Maps(last_norm=2 * max(norms))), kept)


@pytest.mark.parametrize(
    "name",
    [
        "p2p-direct",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("masactrl-direct", "pnp-direct")),
    ],
)
def test_directly_inverted_the_source_is_met_exactly_at_every_step(
    model: Model, x0: Tensor, name: str
) -> None:
    recipe = BUILT_IN[name].model_copy(update={"inversion_steps": 4})
    plan, ddim = recipe.plan(model.layout), spaced(model.scheduler, recipe.steps_offset)
    seen: list[Tensor] = []
    same: Any = {"told": "" if recipe.source_is_told() == "empty" else SOURCE, "ddim": ddim}
    same["inverted_under"] = SOURCE if recipe.inversion_prompt == "source" else ""
    handle = model.pipe.unet.conv_in.register_forward_pre_hook(lambda _, rows: seen.append(rows[0]))
    edited = edit(model, plan, x0, **same)
    handle.remove()
    inverting, denoising = seen[:4], seen[4:]
    assert torch.equal(inverting[0], x0)
    # each latents of the source, its rows first, is what the inversion read at the step behind it
    for forth, back in zip(inverting[1:], denoising[:0:-1], strict=True):
        assert torch.equal(back[:2], forth) and not torch.equal(back[2:4], forth)
    assert torch.equal(denoising[0][:2], denoising[0][2:4])
    assert relative(edited, edit(model, replace(plan, injections=()), x0, **same)) > 1e-3


def test_directly_inverted_and_corrected_with_the_source_the_target_returns_to_it(
    model: Model, x0: Tensor
) -> None:
    recipe = BUILT_IN["p2p-direct-both"].model_copy(update={"inversion_steps": 4})
    plan, ddim = recipe.plan(model.layout), spaced(model.scheduler, recipe.steps_offset)
    assert relative(edit(model, plan, x0, prompt=SOURCE, ddim=ddim), x0) < 1e-6
    sampled = replace(plan, source="sampled")
    assert relative(edit(model, sampled, x0, prompt=SOURCE, ddim=ddim), x0) > 1e-3
    assert relative(edit(model, plan, x0, ddim=ddim), x0) > 1e-3


@pytest.mark.slow
def test_away_from_the_source_prompt_the_source_is_not_guided(model: Model, x0: Tensor) -> None:
    """Negative-prompt inversion: with the source's own prompt guidance of any scale changes nothing."""
    plan = Plan("full", start="inverted")
    plain = edit(model, plan, x0, prompt=SOURCE, guidance_scale=1.0)
    assert relative(edit(model, plan, x0, prompt=SOURCE, uncond=SOURCE), plain) < 1e-5
    assert relative(edit(model, plan, x0, prompt=SOURCE), plain) > 1e-3


@pytest.mark.slow
def test_an_iterated_inversion_leads_back_nearer_to_the_source(model: Model, x0: Tensor) -> None:
    def error(**settings: Any) -> float:
        plan = Plan("full", start="inverted", **settings)
        return relative(edit(model, plan, x0, prompt=SOURCE, guidance_scale=1.0, steps=8), x0)

    once, thrice = error(), error(inversion_iterations=3)
    assert thrice < 0.7 * once
    assert error(inversion_iterations=3, inversion_average=(2, 3)) == thrice
    assert error(inversion_iterations=3, inversion_average=(1, 3)) not in (once, thrice)


def test_timesteps_may_have_no_offset(model: Model) -> None:
    _, timesteps = solver_from("ddim", spaced(model.scheduler, 0), 4, 1.0)
    assert timesteps.tolist() == [750, 500, 250, 0]
    assert spaced(model.scheduler, 1) is model.scheduler
    _, timesteps = solver_from("ddim", spaced(model.scheduler, trailing=True), 5, 0.8)
    assert timesteps.tolist() == [799, 599, 399, 199]


@pytest.mark.slow
def test_posterior_noise_is_that_of_the_cycle_diffusion_pipeline_of_diffusers(
    model: Model, icon: Image.Image
) -> None:
    pipe = CycleDiffusionPipeline(**_parts(model, model.scheduler))
    pipe.set_progress_bar_config(disable=True)
    expected = pipe(
        prompt=TARGET,
        source_prompt=SOURCE,
        image=icon.resize(SIZE),
        strength=0.75,
        num_inference_steps=4,
        guidance_scale=5.0,
        source_guidance_scale=2.0,
        eta=0.3,
        generator=torch.Generator().manual_seed(SEEDS[0]),
        output_type="latent",
    ).images
    posterior, noise = model.noise(SEEDS[:1], SIZE)
    plan = Plan(source="noised", noised=Noising(2.0, 0.3, "posterior"))
    ours = edit(
        model,
        plan,
        model.encode([icon.resize(SIZE)], posterior),
        strength=0.75,
        drawn=model.generators_after_noise(SEEDS[:1], SIZE),
        noise=noise,
    )
    assert relative(ours, expected) < 1e-4


@pytest.mark.slow
def test_ledits_is_that_of_the_pipeline_of_diffusers(model: Model, icon: Image.Image) -> None:
    image, own = icon.resize(SIZE), model.scheduler.config
    scheduler = DPMSolverMultistepScheduler.from_config(
        own, algorithm_type="sde-dpmsolver++", solver_order=2
    )
    pipe = LEditsPPPipelineStableDiffusion(**_parts(model, scheduler))
    pipe.set_progress_bar_config(disable=True)
    processors = model.pipe.unet.attn_processors
    try:
        generator = torch.Generator().manual_seed(SEEDS[0])
        pipe.invert(image, SOURCE, num_inversion_steps=5, skip=0.4, generator=generator)
        expected = pipe(editing_prompt=TARGET, use_intersect_mask=False, output_type="latent").images
    finally:
        model.pipe.unet.set_attn_processor(processors)
    recipe = BUILT_IN["leditspp"]
    x0 = model.encode([image], torch.zeros(1, 4, 8, 8))
    ours = edit(model, recipe.plan(model.layout), x0, steps=7, strength=5 / 7, solver=recipe.scheduler)
    assert relative(ours, expected) < 1e-4


@pytest.mark.slow
def test_infedit_is_the_consistency_sampling_of_its_paper(model: Model, x0: Tensor) -> None:
    """DDCM with virtual inversion (Xu et al., algorithms 1 and 2), each quantity by its own equation."""
    unet, (scheduler, timesteps) = model.pipe.unet, solver_from("ddim", model.scheduler, 4, 0.75)
    drawing, noise = generators(), x0.flip(-1)
    texts = {words: model.text([words] * 2, SIZE).embeddings for words in ("", SOURCE, TARGET)}
    source = target = scheduler.add_noise(x0, noise, timesteps[:1])
    for i, t in enumerate(timesteps):
        a = scheduler.alphas_cumprod[t]
        plain, towards = (unet(target, t, texts[words]).sample for words in ("", TARGET))
        consistent = (source - a.sqrt() * x0) / (1 - a).sqrt()
        of_source = unet(source, t, texts[SOURCE]).sample
        epsilon = plain + 2.3 * (towards - plain) - of_source + consistent
        clean = (target - (1 - a).sqrt() * epsilon) / a.sqrt()
        if i + 1 < len(timesteps):
            drawn = torch.cat([torch.randn(1, 4, 8, 8, generator=g) for g in drawing])
            source, target = (scheduler.add_noise(z, drawn, timesteps[i + 1][None]) for z in (x0, clean))
    plan = BUILT_IN["infedit"].plan(model.layout)
    assert relative(edit(model, plan, x0, guidance_scale=2.3, strength=0.75), clean) < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("name", ["edit-friendly", "turboedit"])
def test_along_maps_is_the_ddpm_of_the_papers(model: Model, x0: Tensor, name: str) -> None:
    """By DDPM's own mean (Ho et al., 2020, eq. 7) and z (Huberman-Spiegelglas et al., algorithm 1)."""
    recipe, x0 = BUILT_IN[name], x0[:1]
    turbo = recipe.model == "turbo"
    ddim = spaced(model.scheduler, trailing=turbo)
    scheduler, timesteps = solver_from("ddim", ddim, 5, 0.8)
    plan = recipe.plan(model.layout)
    assert plan.maps
    plan = replace(plan, maps=replace(plan.maps, last=turbo, last_norm=1.0 if turbo else None))
    taken = timesteps.tolist()
    noised_at = [t - 200 if turbo else t for t in taken]
    drawn = [torch.randn(1, 4, 8, 8, generator=g) for g in [generators()[0]] for t in noised_at if t > 0]
    sources = [x0]
    for t in reversed(noised_at):
        sources.append(
            scheduler.add_noise(x0, drawn[len(sources) - 1 - turbo], torch.tensor([t])) if t > 0 else x0
        )
    sources.reverse()

    def mean(latents: Tensor, i: int, away: str, towards: str, scale: float) -> Tensor:
        a = scheduler.alphas_cumprod[taken[i]]
        a_then = (
            scheduler.alphas_cumprod[taken[i + 1]]
            if i + 1 < len(taken)
            else scheduler.final_alpha_cumprod
        )
        without, given = (
            model.pipe.unet(latents, taken[i], model.text([words], SIZE).embeddings).sample
            for words in (away, towards)
        )
        epsilon = without + scale * (given - without)
        clean = (latents - (1 - a).sqrt() * epsilon) / a.sqrt()
        beta = 1 - a / a_then
        return (a_then.sqrt() * beta * clean + (1 - beta).sqrt() * (1 - a_then) * latents) / (1 - a)

    target, uncond = sources[0], SOURCE if turbo else ""
    for i in range(len(taken)):
        noise_map = sources[i + 1] - mean(sources[i], i, "", SOURCE, recipe.inversion_guidance)
        if i + 1 == len(taken):
            noise_map = noise_map / max(1.0, float(noise_map.norm())) * turbo
        target = mean(target, i, uncond, TARGET, 4.0) + noise_map
    same: Any = {"uncond": uncond, "guidance_scale": 4.0, "steps": 5, "strength": 0.8, "ddim": ddim}
    assert relative(edit(model, plan, x0, **same), target) < 1e-4


def _parts(model: Model, scheduler: SchedulerMixin) -> dict[str, Any]:
    parts = model.pipe.components | {"scheduler": scheduler}
    parts.pop("image_encoder", None)
    return {**parts, "requires_safety_checker": False}
