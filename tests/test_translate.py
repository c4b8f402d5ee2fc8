"""Recipes through the translator: what each costs, shares and keeps of its own."""

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from PIL import Image, ImageChops

from sdcorrect.errors import UsageError
from sdcorrect.models import Model
from sdcorrect.recipes import BUILT_IN, Recipe
from sdcorrect.translate import Request, Translation, Translator


@pytest.fixture
def image(icon: Image.Image) -> Image.Image:
    return icon.resize((32, 32))


def small(name: str, **changes: Any) -> Recipe:
    """A built-in recipe in so few steps that it can be tested."""
    quick = {key: 5 for key in ("steps", "inversion_steps") if getattr(BUILT_IN[name], key)}
    return BUILT_IN[name].model_copy(update={**quick, **changes})


def run(model: Model, image: Image.Image, *recipes: Recipe, **settings: Any) -> dict[str, Translation]:
    job = {"steps": 4, "strength": 0.75, "guidance_scale": 5.0, **settings}
    request = Request(image, 0, "a church, in 3d render style", "", "a church, in flat design style")
    return Translator(model, recipes, **job)([request], variants=[recipe.name for recipe in recipes])


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("sdedit", 2 * 3),
        ("correct", 1 + 2 * 3),
        ("correct-fast", 1 + 2 * 5),
        ("correct-adain", 1 + 2 * 3),
        ("correct-adain-fast", 1 + 2 * 5),
        ("correct-wide", 1 + 2 * 3),
        ("correct-wide-fast", 1 + 2 * 5),
        ("ddim", 4 + 2 * 4),
        ("pnp", 5 + 3 * 5),
        ("p2p", 5 + 4 * 5),
        ("p2p-refine", 5 + 4 * 5),
        ("masactrl", 5 + 4 * 5),
        ("p2p-direct", 5 + 3 * 5),
        ("infedit", 3 * 3),
        ("leditspp", 2 * 4 + 2 * 4),
        *(
            pytest.param(*expected, marks=pytest.mark.slow)
            for expected in (
                ("pnp-direct", 5 + 3 * 5),
                ("p2p-direct-refine", 5 + 3 * 5),
                ("masactrl-direct", 5 + 3 * 5),
                ("p2p-npi", 5 + 4 * 5),
                ("npi", 5 + 2 * 5),
                ("renoise", 10 * 5 + 2 * 5),
                ("cyclediffusion", 3 * 3),
                ("flowedit", 4 * 3),
                ("edit-friendly", 2 * 3 + 2 * 3),
            )
        ),
    ],
)
def test_evaluations_a_picture(model: Model, image: Image.Image, name: str, expected: int) -> None:
    recipe = small(name)
    assert run(model, image, recipe)[name].evaluations == expected
    translator = Translator(model, [recipe], steps=4, strength=0.75, guidance_scale=5.0)
    assert translator.evaluations([name]) == expected


def test_each_recipe_alone_gives_what_it_gives_among_others(model: Model, image: Image.Image) -> None:
    recipes = [small(name) for name in ("sdedit", "correct", "correct-fast", "ddim", "pnp", "masactrl")]
    together = run(model, image, *recipes)
    for recipe in recipes:
        alone = run(model, image, recipe)[recipe.name]
        assert alone.evaluations == together[recipe.name].evaluations
        assert not ImageChops.difference(alone.pictures[0], together[recipe.name].pictures[0]).getbbox()


def test_recipes_that_read_the_clean_picture_at_other_timesteps_share_no_inversion(
    model: Model, image: Image.Image
) -> None:
    at = {
        (timestep, scaled): BUILT_IN["correct"].model_copy(
            update={"name": f"at-{timestep}-{scaled}", "timestep": timestep, "scale_input": scaled}
        )
        for timestep, scaled in ((1, False), (601, False), (601, True))
    }
    together = run(model, image, *at.values())
    pictures = [together[recipe.name].pictures[0] for recipe in at.values()]
    for recipe, picture in zip(at.values(), pictures, strict=True):
        alone = run(model, image, recipe)[recipe.name].pictures[0]
        assert not ImageChops.difference(alone, picture).getbbox()
    assert len({picture.tobytes() for picture in pictures}) == 3


def test_a_recipes_own_settings_hold_and_a_warning_says_so(
    model: Model, image: Image.Image, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        Translator(model, [BUILT_IN["pnp"]], steps=20, strength=0.8, guidance_scale=5.0)
    (record,) = caplog.records
    assert "pnp keeps its own steps 50 (the job's: 20), guidance_scale 7.5" in record.message
    assert "negative_prompt 'ugly, blurry" in record.message
    caplog.clear()
    translator = Translator(model, [BUILT_IN["correct"]], steps=20, strength=0.8, guidance_scale=5.0)
    assert not caplog.records
    assert translator.methods["correct"].effective_steps == 16


def test_the_negative_prompt_of_a_recipe_is_used(model: Model, image: Image.Image) -> None:
    with_it, without = (small("pnp", negative_prompt=text) for text in ("in ink style", None))
    pictures = [run(model, image, recipe)["pnp"].pictures[0] for recipe in (with_it, without)]
    assert ImageChops.difference(*pictures).getbbox()


def test_a_spilled_trajectory_gives_the_same_picture_and_is_cleared_away(
    model: Model, image: Image.Image, tmp_path: Path
) -> None:
    spill = tmp_path / "spill"
    kept = run(model, image, small("pnp"))["pnp"].pictures[0]
    spilled = run(model, image, small("pnp"), spill=spill)["pnp"].pictures[0]
    assert not ImageChops.difference(kept, spilled).getbbox()
    assert list(spill.iterdir()) == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"inversion_steps": 7}, "recipe pnp: an inversion of 7 steps misses timestep"),
        (
            {"inject": ({"tensor": "skip", "blocks": ["4"], "window": (0, 0.1)},)},
            r"recipe pnp: skip: none of the 5 steps \(timesteps 801 to 1\) "
            "is in its window 0 to 0.1; widen it, or take more steps",
        ),
        ({"scheduler": "dpm++"}, "full inversion works only with scheduler: ddim"),
        ({"scheduler": "sde-dpm++", "of": "correct"}, "correct: sde-dpm.. needs noise maps"),
        (
            {"scheduler": "unipc", "of": "edit-friendly"},
            "noise maps work only with scheduler: ddim or sde-dpm",
        ),
        (
            {"scheduler": "lcm", "of": "cyclediffusion"},
            "eta works only with scheduler: ddim; lcm has none",
        ),
        ({"of": "turboedit"}, "turboedit is for Turbo models, .* mini spaces them leading; choose"),
    ],
)
def test_what_cannot_be_done_is_refused_before_it_starts(
    model: Model, changes: dict[str, Any], message: str
) -> None:
    own = {key: value for key, value in changes.items() if key not in ("scheduler", "of")}
    recipe = Recipe.model_validate({**small(changes.get("of", "pnp")).model_dump(), **own})
    scheduler = changes.get("scheduler", "ddim")
    with pytest.raises(UsageError, match=message):
        Translator(model, [recipe], steps=4, strength=1, guidance_scale=5.0, scheduler=scheduler)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--method", "p2p"], "recipe p2p needs source_prompt"),
        (["--method", "p2p", "--set", "source_prompt=a cat"], "cannot be aligned word for word"),
        (["--method", "p2p-reweight", "--set", "source_prompt=a cat"], "needs equalizer"),
        (
            ["--method=p2p-reweight", "--set=source_prompt=a cat", "--set=equalizer={snowy: 2}"],
            "has no word 'snowy'",
        ),
        (["--set", "equalizer={style: 2}"], "no recipe of this job uses it"),
        (
            ["--method", "correct-attention-7-9"],
            "block 9 of this U-Net has no self-attention; choose from",
        ),
        (["--method", "ddim", "--set", "scheduler=unipc"], "full inversion works only"),
    ],
)
def test_each_wrong_method_is_one_clear_line(
    translate: Callable[..., Result], pictures: Path, tmp_path: Path, arguments: list[str], message: str
) -> None:
    result = translate(pictures, "-o", tmp_path / "out", *arguments)
    assert result.exit_code == 2
    errors = [line for line in result.stderr.splitlines() if line.startswith("error:")]
    assert len(errors) == 1 and message in errors[0]


def test_prompt_to_prompt_from_the_command_line(
    translate: Callable[..., Result], pictures: Path, tmp_path: Path
) -> None:
    recipe = json.dumps(small("p2p-refine").model_dump(mode="json"))
    job = tmp_path / "job.yaml"
    job.write_text(
        f"source_prompt: '{{stem}} in flat design style'\nequalizer: {{render: 2}}\nmethod: {recipe}\n"
    )
    out = tmp_path / "out"
    result = translate(pictures, "-c", job, "-o", out, "-p", "{stem} in 3d render style")
    assert result.exit_code == 0, result.stderr
    records = [json.loads(line) for line in (out / "records/0-of-1.jsonl").read_text().splitlines()]
    assert [(r["status"], r["unet_evaluations"], r["effective_steps"]) for r in records] == [
        ("done", 5 + 4 * 5, 5)
    ] * 3


def test_a_recipe_whose_own_steps_come_to_none_is_refused(model: Model) -> None:
    recipe = BUILT_IN["sdedit"].model_copy(update={"steps": 2})
    with pytest.raises(UsageError, match="recipe sdedit: strength 0.4 of 2 steps is less than one step"):
        Translator(model, [recipe], steps=20, strength=0.4, guidance_scale=5.0)


def test_the_mean_of_the_posterior_leaves_nothing_to_the_seed(model: Model, image: Image.Image) -> None:
    def differs(posterior: str) -> bool:
        recipe = small("ddim", posterior=posterior)
        translator = Translator(model, [recipe], steps=4, strength=1.0, guidance_scale=5.0)
        requests = [Request(image, seed, "in 3d render style") for seed in (0, 1)]
        pictures = translator(requests, variants=["ddim"])["ddim"].pictures
        return ImageChops.difference(*pictures).getbbox() is not None

    assert BUILT_IN["pnp"].posterior == "mean"
    assert (differs("mean"), differs("sample")) == (False, True)


def test_the_source_prompt_and_the_equalizer_reach_the_picture(model: Model, image: Image.Image) -> None:
    def picture(recipe: Recipe, **settings: Any) -> Image.Image:
        return run(model, image, recipe, **settings)[recipe.name].pictures[0]

    empty, told = (small("ddim", inversion_prompt=which) for which in ("empty", "source"))
    assert ImageChops.difference(picture(empty), picture(told)).getbbox()
    p2p = small("p2p")
    assert ImageChops.difference(picture(p2p), picture(p2p, equalizer={"render": 5})).getbbox()
