import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result
from PIL import Image

from sdcorrect.config import load_job
from sdcorrect.costs import Stopwatch, Timing, all_fitting, compare, cost_of
from sdcorrect.models import Model
from sdcorrect.recipes import BUILT_IN, Recipe

QUICK = ("--steps", "2", "--strength", "1", "--size", "32", "--repeats", "1")


def test_recipes_are_measured_on_the_examples(sdcorrect: Callable[..., Result], tmp_path: Path) -> None:
    file = tmp_path / "bench.json"
    result = sdcorrect("bench", "--recipes", "sdedit,correct", *QUICK, "--json", file)
    assert result.exit_code == 0, result.stderr
    sdedit, correct = json.loads(file.read_text())["recipes"]
    assert (sdedit["recipe"], sdedit["evaluations"], sdedit["ratio"]) == ("sdedit", 4, 1)
    assert (correct["recipe"], correct["evaluations"]) == ("correct", 5)
    assert sdedit["runs"] == 2 and correct["runs"] == 1
    # of two runs the median is their mean, to which the run between them is compared
    assert correct["ratio"] == pytest.approx(correct["seconds"] / sdedit["seconds"])
    assert 0 < correct["outside_model"] < 0.5
    assert correct["peak_memory_mib"] > 100
    # in the 80 columns of a pipe
    assert max(map(len, result.stdout.splitlines())) <= 80
    assert {"correct", "evaluations"} <= set(result.stdout.split())


def test_the_base_can_be_chosen(sdcorrect: Callable[..., Result], tmp_path: Path) -> None:
    file = tmp_path / "bench.json"
    command = ("bench", "--recipes", "sdedit,correct", *QUICK, "--base", "correct", "--json", file)
    assert sdcorrect(*command).exit_code == 0
    assert [cost["ratio"] == 1 for cost in json.loads(file.read_text())["recipes"]] == [False, True]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--recipes", "sdedit,corect"], "did you mean correct?"),
        (["--recipes", "sdedit", "--base", "correct"], "is not among the recipes to measure"),
        (["nowhere"], "there is no such"),
        (["--recipes", "sdedit", *QUICK, "--json", "/nowhere/bench.json"], "cannot be written"),
    ],
)
def test_each_wrong_bench_is_one_clear_line(
    sdcorrect: Callable[..., Result], arguments: list[str], message: str
) -> None:
    result = sdcorrect("bench", *arguments)
    assert result.exit_code in (1, 2)
    assert message in result.stderr and len(result.stderr.splitlines()) == 1


def test_a_run_is_compared_with_those_of_the_base_next_to_it() -> None:
    taken = [("a", 1), ("b", 2), ("a", 3), ("a", 5), ("b", 1), ("c", 8), ("a", 7)]
    runs = [Timing(name, seconds, 1, 0.0, None) for name, seconds in taken]
    cost = cost_of(runs, "b", "a")
    assert (cost.runs, cost.seconds) == (2, 1.5)
    assert cost.ratio == pytest.approx((2 / 2 + 1 / 6) / 2)
    assert cost.ratio_low < cost.ratio < cost.ratio_high
    assert cost_of(runs, "c", "a").ratio == pytest.approx(8 / 6)
    assert cost_of(runs, "a", "a").ratio == 1


@pytest.mark.slow
def test_recipes_cheap_beside_the_dearest_run_more_often(model: Model, icon: Image.Image) -> None:
    dear = Recipe(name="dear", inversion="full", inversion_steps=60)
    job = load_job(
        None,
        {
            "input.path": ".",
            "output.path": ".",
            "prompt": "in 3d render style",
            "guidance_scale": 1,
            "steps": 1,
            "strength": 1,
            "variants": ["sdedit", dear.model_dump()],
        },
    )
    costs = compare(model, job, [icon.resize((32, 32))], repeats=1, base="dear")
    assert {cost.recipe: cost.runs for cost in costs} == {"sdedit": 10, "dear": 2}


def test_the_stopwatch_counts_the_networks_alone_and_leaves_them(model: Model) -> None:
    watch = Stopwatch(model)
    with watch.watching():
        model.pipe.unet(model.noise([0], (32, 32))[0], 1, model.embed("").embeddings)
    assert watch.whole / 2 < watch.seconds < watch.whole
    spent = watch.seconds
    model.pipe.unet(model.noise([0], (32, 32))[0], 1, model.embed("").embeddings)
    assert watch.seconds == spent


@pytest.mark.slow
def test_quality_and_costs_in_one_table_and_one_page(
    sdcorrect: Callable[..., Result], tmp_path: Path
) -> None:
    out, page = tmp_path / "out", tmp_path / "docs" / "page.md"
    command = ("bench", "--methods", "sdedit,correct", "--evaluate", *QUICK, "--limit", "2", "-o", out)
    result = sdcorrect(*command, "--page", page)
    assert result.exit_code == 0, result.stderr
    text = page.read_text()
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith("| `")]
    assert {row[0] for row in rows} == {"| `sdedit`", "| `correct`"}
    assert {row[-2] for row in rows} == {"4", "5"}
    assert float(rows[0][1]) >= float(rows[1][1])
    assert "SSIM to the truth" in text and "style accuracy" in text and "```bash" in text
    made = {file: file.stat().st_mtime_ns for file in out.rglob("*.png")}
    assert len(made) == 4
    # stopped, it goes on from there
    assert sdcorrect(*command).exit_code == 0
    assert (out / "leaderboard.md").is_file()
    assert made == {file: file.stat().st_mtime_ns for file in out.rglob("*.png")}


def test_all_recipes_are_those_that_fit(model: Model) -> None:
    settings = {
        "input.path": "in",
        "output.path": "out",
        "prompt": "in 3d style",
        "source_prompt": "in ink style",
    }
    fitting, left_out = all_fitting(model, settings)
    assert {"sdedit", "correct", "pnp", "p2p", "masactrl"} <= set(fitting)
    assert set(fitting) | set(left_out) == set(BUILT_IN)
    assert "blocks" in left_out["correct-attention-7-9"]
    assert "needs equalizer" in left_out["p2p-reweight"]
    assert all("\n" not in reason for reason in left_out.values())
