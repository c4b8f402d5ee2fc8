from collections.abc import Callable
from dataclasses import replace

import pytest
import yaml
from click.testing import Result
from pydantic import ValidationError

from sdcorrect.core.evaluations import evaluations_to_denoise, evaluations_to_invert
from sdcorrect.core.layout import UNetLayout
from sdcorrect.core.plan import Injection, blocks_of, effective_steps
from sdcorrect.errors import UsageError
from sdcorrect.origins import GUIDANCE_SCALE, ORIGINS, STEPS, STRENGTH, evaluations, grouped
from sdcorrect.recipes import ALIASES, BUILT_IN, Inject, Recipe, built_in

SD15 = UNetLayout.from_config(
    {
        "down_block_types": [*["CrossAttnDownBlock2D"] * 3, "DownBlock2D"],
        "mid_block_type": "UNetMidBlock2DCrossAttn",
        "up_block_types": ["UpBlock2D", *["CrossAttnUpBlock2D"] * 3],
        "layers_per_block": 2,
    }
)
SDXL = UNetLayout.from_config(
    {
        "down_block_types": ["DownBlock2D", *["CrossAttnDownBlock2D"] * 2],
        "mid_block_type": "UNetMidBlock2DCrossAttn",
        "up_block_types": [*["CrossAttnUpBlock2D"] * 2, "UpBlock2D"],
        "layers_per_block": 2,
    }
)
MINI = UNetLayout.from_config(
    {
        "down_block_types": [*["CrossAttnDownBlock2D"] * 2, "DownBlock2D"],
        "mid_block_type": "UNetMidBlock2DCrossAttn",
        "up_block_types": ["UpBlock2D", *["CrossAttnUpBlock2D"] * 2],
        "layers_per_block": 2,
    }
)


def test_layouts_of_the_families() -> None:
    assert SD15.decoder == tuple(range(12))
    assert SD15.attention_levels == ((3, 4, 5), (6, 7, 8), (9, 10, 11))
    assert SD15.encoder_attention == tuple(f"encoder.{block}" for block in (1, 2, 4, 5, 7, 8))
    assert MINI.attention_levels == ((3, 4, 5), (6, 7, 8))
    assert MINI.having("cross-attention") == (
        *(f"encoder.{block}" for block in (1, 2, 4, 5)),
        "mid",
        *range(3, 9),
    )
    assert SDXL.decoder == tuple(range(9))
    assert SDXL.attention_levels == ((0, 1, 2), (3, 4, 5))
    assert SDXL.encoder_attention == tuple(f"encoder.{block}" for block in (4, 5, 7, 8))


@pytest.mark.parametrize(
    ("layout", "attention", "skip"),
    [(SD15, (3, 4), (4, 5)), (MINI, (3, 4), (4, 5)), (SDXL, (0, 1), (1, 2))],
)
def test_correct_is_the_authors_preset_on_every_family(
    layout: UNetLayout, attention: tuple[int, ...], skip: tuple[int, ...]
) -> None:
    plan = BUILT_IN["correct"].plan(layout)
    assert plan.inversion == "one-step"
    assert blocks_of(plan.injections, "self-attention") == attention
    assert blocks_of(plan.injections, "skip") == skip


@pytest.mark.parametrize("layout", [SD15, SDXL, MINI])
@pytest.mark.parametrize("name", ["correct-adain", "correct-adain-fast"])
def test_correct_adain_is_correct_with_own_statistics(name: str, layout: UNetLayout) -> None:
    paper, adain = (BUILT_IN[n].plan(layout).injections for n in ("correct", name))
    assert [i.statistics for i in adain] == ["source", "own"]
    assert [replace(i, statistics="source") for i in adain] == [*paper]


@pytest.mark.parametrize("layout", [SD15, SDXL, MINI])
@pytest.mark.parametrize("name", ["correct-wide", "correct-wide-fast"])
def test_correct_wide_puts_queries_back_in_all_self_attention(name: str, layout: UNetLayout) -> None:
    (queries,) = BUILT_IN[name].plan(layout).injections
    assert queries == Injection("query", layout.having("query"))
    assert {"mid", *layout.encoder_attention, *layout.attention} == {*queries.blocks}


def test_the_authors_names_lead_to_their_presets() -> None:
    assert built_in("all") is BUILT_IN["correct"]
    assert built_in("only-spatial") is BUILT_IN["correct-features"]
    assert ALIASES.keys().isdisjoint(BUILT_IN)


@pytest.mark.parametrize(
    ("blocks", "expected"),
    [
        ([4], (4,)),
        (["first-attention"], (3, 4, 5)),
        (["first-attention.2", 7], (5, 7)),
        (["9+"], (9, 10, 11)),
        (["first-attention.1+"], tuple(range(4, 12))),
        ([5, "first-attention"], (5, 3, 4)),
    ],
)
def test_blocks_by_number_and_by_level(blocks: list[str], expected: tuple[int, ...]) -> None:
    inject = Inject.model_validate({"tensor": "self-attention", "blocks": blocks})
    assert inject.resolve(SD15) == Injection("self-attention", expected)


def test_onward_stops_where_the_tensor_is_no_more() -> None:
    assert Inject(tensor="self-attention", blocks=("1+",)).resolve(SDXL).blocks == (1, 2, 3, 4, 5)
    assert Inject(tensor="skip", blocks=("7+",)).resolve(SDXL).blocks == (7, 8)


@pytest.mark.parametrize(
    ("tensor", "block", "message"),
    [
        ("skip", "9", "recipe mine: block 9 of this U-Net has no skip; .* 0, 1, 2, 3, 4, 5, 6, 7, 8"),
        ("self-attention", "2", "block 2 of this U-Net has no self-attention; .* mid, 3, 4, 5, 6, 7, 8"),
        ("skip", "first-attention.3", "this level has only 3 blocks"),
    ],
)
def test_blocks_that_the_unet_lacks_are_named(tensor: str, block: str, message: str) -> None:
    recipe = Recipe.model_validate(
        {"name": "mine", "inversion": "one-step", "inject": [{"tensor": tensor, "blocks": [block]}]}
    )
    with pytest.raises(UsageError, match=message):
        recipe.plan(MINI)


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ({"inject": [{"tensor": "skip", "blocks": [4]}]}, "set inversion"),
        ({"start": "inverted"}, "needs inversion: full"),
        ({"inversion": "one-step", "inversion_steps": 9}, "needs inversion: full"),
        (
            {"inversion": "one-step", "inject": [{"tensor": "skip", "blocks": ["middle"]}]},
            "'middle' names no blocks",
        ),
        ({"inversion": "one-step", "inject": [{"tensor": "skip", "blocks": []}]}, "at least 1 item"),
        ({"inversion": "one-step", "inject": [{"tensor": "value", "blocks": [4]}]}, "'self-attention'"),
        (
            {
                "inversion": "one-step",
                "inject": [{"tensor": "skip", "blocks": [4], "window": [0.5, 0.2]}],
            },
            "0 <= first < last <= 1",
        ),
        ({"name": "../mine"}, "name"),
        ({"source": "sampled"}, "needs start: inverted"),
        ({"inversion": "full", "inversion_guidance": 3}, "set inversion_prompt: source"),
        ({"inversion": "full", "start": "inverted", "words": "refine"}, "need each other"),
        ({"inversion": "full", "scheduler": "unipc"}, "unipc cannot follow it"),
        ({"solver_steps": 5}, "set scheduler"),
        (
            {
                "inversion": "one-step",
                "inject": [{"tensor": "skip", "blocks": [4], "window": [0, 1.5]}],
            },
            "0 <= first < last <= 1",
        ),
        (
            {
                "inversion": "one-step",
                "inject": [{"tensor": "skip", "blocks": [4], "window": [0, 0.5], "timesteps": [900, 1]}],
            },
            "not both",
        ),
        (
            {"inversion": "one-step", "inject": [{"tensor": "skip", "blocks": [4], "weight": 0}]},
            "greater than 0",
        ),
        ({"timestep": 401}, "timestep needs inversion: one-step"),
        ({"inversion_iterations": 3}, "inversion_iterations needs inversion: full"),
        (
            {"inversion": "full", "inversion_iterations": 3, "inversion_average": [1, 4]},
            r"0 <= first < end <= inversion_iterations \(3\)",
        ),
        ({"inversion": "full", "noise_shift": 1}, "noise_shift needs inversion: ddpm"),
        ({"inversion_prompt": "source"}, "inversion_prompt needs inversion: full or ddpm"),
        ({"inversion": "ddpm"}, "set start: inverted"),
        ({"inversion": "ddpm", "start": "inverted", "source": "sampled"}, "remove source"),
        ({"inversion": "ddpm", "start": "inverted", "scheduler": "lcm"}, "ddim or sde-dpm"),
        ({"source": "noised", "inversion": "full"}, "remove inversion and start"),
        ({"source_guidance": 2}, "source_guidance needs source: noised"),
        ({"source": "noised", "noise": "posterior"}, "needs eta above 0: set eta"),
        ({"source": "noised", "step_to": "clean", "eta": 0.5}, "remove eta"),
        ({"source": "noised", "eta": 0.5, "scheduler": "unipc"}, "eta works only with scheduler: ddim"),
        ({"source_branch_prompt": "source"}, "source_branch_prompt needs a branch"),
        ({"scheduler": "sde-dpm++"}, "sde-dpm.. needs noise maps"),
        ({"guidance_threshold": 1}, "less than 1"),
        ({"steps_offset": 2}, "less than or equal to 1"),
        ({"inversion": "full", "scale_input": True}, "scale_input needs inversion: one-step"),
        ({"inversion": "one-step", "timestep": 1000}, "less than or equal to 999"),
        *(
            (
                {
                    "inversion": "one-step",
                    "inject": [{"tensor": tensor, "blocks": [4], "statistics": "own"}],
                },
                f"statistics: own is for skip and resnet.*remove it from {tensor}",
            )
            for tensor in ("self-attention", "query", "key-value", "cross-attention")
        ),
        (
            {
                "inversion": "one-step",
                "inject": [{"tensor": "resnet", "blocks": [4], "statistics": "mine"}],
            },
            "'source' or 'own'",
        ),
    ],
)
def test_recipes_that_make_no_sense_are_refused(recipe: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Recipe.model_validate({"name": "mine", **recipe})


def test_a_recipe_is_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        BUILT_IN["correct"].name = "other"  # type: ignore[misc]


@pytest.mark.parametrize("name", BUILT_IN)
def test_a_recipe_shown_is_a_recipe_that_a_job_takes(
    name: str, sdcorrect: Callable[..., Result]
) -> None:
    shown = sdcorrect("recipes", "--show", name)
    assert shown.exit_code == 0
    assert Recipe.model_validate(yaml.safe_load(shown.stdout)["method"]) == BUILT_IN[name]


def test_a_recipe_that_is_not_there_cannot_be_shown(sdcorrect: Callable[..., Result]) -> None:
    result = sdcorrect("recipes", "--show", "pnp-5")
    assert result.exit_code == 2
    assert "did you mean pnp" in result.stderr


@pytest.mark.parametrize("layout", [SD15, SDXL, MINI])
@pytest.mark.parametrize("name", ["pnp", "p2p", "masactrl", "correct-attention-5-7"])
def test_the_methods_of_the_comparison_on_each_family(name: str, layout: UNetLayout) -> None:
    if layout is SDXL and name == "correct-attention-5-7":
        with pytest.raises(UsageError, match="block 6 of this U-Net has no self-attention"):
            BUILT_IN[name].plan(layout)
    else:
        assert BUILT_IN[name].plan(layout).injections


def test_where_the_public_implementations_put_tensors_back_in_sd15() -> None:
    features, attention = BUILT_IN["pnp"].plan(SD15).injections
    assert (features.tensor, features.blocks, features.window) == ("resnet", (4,), (0, 0.8))
    assert (attention.blocks, attention.window) == (tuple(range(4, 12)), (0, 0.5))
    cross, own = BUILT_IN["p2p"].plan(SD15).injections
    assert len(cross.blocks) == len(own.blocks) == 16
    assert (cross.window, own.window, own.max_tokens) == ((0, 0.4), (0, 0.6), 256)
    (keys,) = BUILT_IN["masactrl"].plan(SD15).injections
    assert keys.blocks == tuple(range(6, 12))
    assert [step for step in range(50) if keys.active(step, range(50))] == list(range(4, 50))


def test_every_recipe_is_in_one_group_and_of_one_origin() -> None:
    listed = [recipe.name for group in grouped() for recipe in group.recipes]
    assert sorted(listed) == sorted(BUILT_IN)
    assert sorted(name for origin in ORIGINS for name in origin.names) == sorted(BUILT_IN)


@pytest.mark.parametrize("name", BUILT_IN)
def test_the_evaluations_that_are_listed_are_those_that_are_taken(name: str) -> None:
    recipe = BUILT_IN[name]
    plan = recipe.plan(SD15)
    fully = plan.inversion == "full"
    plan = replace(plan, inversion_steps=plan.inversion_steps or STEPS if fully else None)
    strength = 1.0 if fully else recipe.strength or STRENGTH
    steps = recipe.solver_steps or effective_steps(recipe.steps or STEPS, strength)
    scale = recipe.guidance_scale or GUIDANCE_SCALE
    taken = evaluations_to_invert(plan, steps) + evaluations_to_denoise(plan, steps, scale)
    assert evaluations(recipe) == taken
