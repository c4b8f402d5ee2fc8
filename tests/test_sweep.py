"""Lists of strengths and seeds: what they expand to, and that each picture is that of a single run."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from PIL import Image
from typer.testing import CliRunner

import sdcorrect as package
from sdcorrect.cli import app
from sdcorrect.cli.options import strengths, swept
from sdcorrect.config import Job, load_job
from sdcorrect.errors import UsageError
from sdcorrect.inputs.items import find_items
from sdcorrect.models import Model

Run = Callable[..., Result]
WHOLE = {"input.path": "in", "output.path": "out", "prompt": "p"}
#: Neither strength nor seed changes what it makes.
FIXED = {"name": "fixed", "inversion": "full", "start": "inverted", "posterior": "mean"}
DRAWN = {"name": "drawn", "inversion": "full", "start": "inverted"}


def job(**settings: Any) -> Job:
    return load_job(None, WHOLE | settings)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"strength": 0.5, "seed": 1}, ["correct"]),
        ({"strength": [0.5, 1]}, ["correct-strength-0.5", "correct-strength-1"]),
        ({"strength": [0.7]}, ["correct-strength-0.7"]),
        (
            {"strength": [0.1234567, 0.1234568]},
            ["correct-strength-0.1234567", "correct-strength-0.1234568"],
        ),
        (
            {"strength": [0.7, 0.5], "seed": range(2)},
            [f"correct-strength-{s}-seed-{n}" for n in (0, 1) for s in (0.7, 0.5)],
        ),
        (
            {"variants": ["sdedit", FIXED, DRAWN], "seed": [3, 1]},
            ["sdedit-seed-3", "fixed", "drawn-seed-3", "sdedit-seed-1", "drawn-seed-1"],
        ),
        # flowedit keeps its own strength, an inversion over all steps has none
        (
            {"variants": ["sdedit", "flowedit", DRAWN], "strength": [0.5, 0.8], "source_prompt": "s"},
            ["sdedit-strength-0.5", "sdedit-strength-0.8", "flowedit", "drawn"],
        ),
    ],
)
def test_each_recipe_is_at_each_strength_and_seed_that_changes_its_pictures(
    settings: dict[str, Any], expected: list[str]
) -> None:
    assert [variant.name for variant in job(**settings).expanded] == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("strength: []", "job.yaml:4: strength: is an empty list; give one number, or the numbers"),
        ("seed: [0, 1, 0]", "job.yaml:4: seed: 0 stands there twice; give each number once"),
        ("strength: [0.5, 0.50]", "strength: 0.5 stands there twice"),
        ("strength: [0.5, '0.7']", "job.yaml:4: strength.1: should be a valid number; found '0.7'"),
        ("strength:\n- 0.5\n- 1.5", "job.yaml:6: strength.1: should be less than or equal to 1"),
        ("seed: [1, on]", "seed.1: should be a valid integer; found on, which YAML reads as true"),
        ("strength: [[0.5]]", "strength.0: should be a valid number; found [0.5]"),
        ("strength: [0.01, 0.5]", "strength 0.01 of 20 steps is less than one step"),
        ("method: {name: m, strength: [0.5]}", "method.strength: a recipe has one strength of its own"),
        (
            "strength: [0.5]\nvariants: [sdedit, {name: sdedit-strength-0.5, strength: 0.3}]",
            "variants: the sweep names a variant sdedit-strength-0.5, and there is a recipe of",
        ),
        (f"seed: [1]\nmethod: {{name: {'m' * 196}}}", "longer than 200 letters; give the recipe a sh"),
    ],
)
def test_a_list_that_cannot_be_swept_over_is_one_line(tmp_path: Path, text: str, expected: str) -> None:
    file = tmp_path / "job.yaml"
    file.write_text(f"input: {{path: in}}\noutput: {{path: out}}\nprompt: p\n{text}\n")
    with pytest.raises(UsageError) as error:
        load_job(file, {})
    assert expected in str(error.value) and "\n" not in str(error.value)


def test_a_comma_at_the_end_is_a_list_of_one_and_a_decimal_comma_is_one_line() -> None:
    assert (strengths("0.95,"), strengths("0.5,1"), strengths("1")) == ([0.95], [0.5, 1], 1)
    assert swept("0,5") == [0, 5]
    result = CliRunner().invoke(app, ["translate", "in", "-o", "out", "-p", "x", "--strength", "0,5"])
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
    assert "write 0.5 with a point" in result.stderr


def test_a_picture_with_a_seed_of_its_own_follows_no_sweep(tmp_path: Path, icon: Image.Image) -> None:
    icon.save(tmp_path / "icon.png")
    (tmp_path / "list.csv").write_text("path,seed\nicon.png,7\n")
    given = {"input.path": str(tmp_path / "list.csv"), "output.path": str(tmp_path / "out")}
    assert find_items(job(**given, strength=[0.5, 1]))[0].seed == 7
    with pytest.raises(UsageError, match="gives icon.png the seed 7, and the job sweeps over seeds"):
        find_items(job(**given, seed=[0, 1]))


def test_swept_pictures_are_those_of_single_runs_and_share_what_they_can(
    model: Model, icon: Image.Image
) -> None:
    loaded = package.StableDiffusion(model)
    quick = {"steps": 2, "size": 32, "progress": False, "variants": ["sdedit", "correct", FIXED]}
    encoded: list[object] = []
    hook = model.pipe.vae.encoder.register_forward_hook(lambda *_: encoded.append(1))
    before = model.evaluations
    swept = loaded.translate(icon, "in 3d", strength=[0.5, 1], seed=[0, 1], **quick)
    hook.remove()
    assert len(swept) == 9 and len(encoded) == 1
    # two recipes, two seeds, 1 and 2 steps of two rows; correct's source for each seed; fixed once
    assert model.evaluations - before == 2 * 2 * (2 + 4) + 2 + (2 + 4)
    for strength, seed in ((0.5, 1), (1, 0)):
        alone = loaded.translate(icon, "in 3d", strength=strength, seed=seed, **quick)
        for name, expected in alone.items():
            found = swept["fixed" if name == "fixed" else f"{name}-strength-{strength}-seed-{seed}"]
            assert found.image.tobytes() == expected.image.tobytes(), (name, strength, seed)
            assert found.evaluations == expected.evaluations
            assert name == "fixed" or found.seed == expected.seed


def test_a_longer_list_makes_what_is_new_and_files_are_those_of_a_single_run(
    translate: Run, pictures: Path, tmp_path: Path
) -> None:
    only = pictures / "bicycle.png"
    assert translate(only, "-o", tmp_path / "alone", "--seed", "3").exit_code == 0
    out = tmp_path / "out"
    assert translate(only, "-o", out, "--seed", "3,4").exit_code == 0
    result = translate(only, "-o", out, "--seed", "5,4,3")
    assert result.exit_code == 0, result.output
    records = [json.loads(line) for line in (out / "records" / "0-of-1.jsonl").open()]
    assert [record["variant"] for record in records] == [f"correct-seed-{n}" for n in (3, 4, 5)]
    swept = out / "correct-seed-3" / "bicycle.png"
    assert swept.read_bytes() == (tmp_path / "alone" / "correct" / "bicycle.png").read_bytes()
    told = json.loads((out / "job.json").read_text())
    assert told["job"]["seed"] == [5, 4, 3]
    assert told["fingerprint"]["sweep"]["correct-seed-5"] == {
        "recipe": "correct",
        "strength": None,
        "seed": 5,
    }
    other = translate(only, "-o", out, "--seed", "3")
    assert (
        other.exit_code == 2 and "the folder sweeps over seeds, and this job has one, 3" in other.stderr
    )
    assert translate(only, "-o", out, "--seed", "3,").exit_code == 0
    listed = translate(only, "-o", out, "--seed", "3,x")
    assert (listed.exit_code, listed.stderr.count("\n")) == (2, 1)
    assert "seed.1: should be a valid integer; found 'x'" in listed.stderr
