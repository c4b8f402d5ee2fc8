import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from sdcorrect.bench import Stopwatch, now
from sdcorrect.models import Model

QUICK = ("--steps", "2", "--strength", "1", "--size", "32", "--repeats", "1")


def test_recipes_are_measured_on_the_examples(sdcorrect: Callable[..., Result], tmp_path: Path) -> None:
    file = tmp_path / "bench.json"
    result = sdcorrect("bench", "--recipes", "sdedit,correct", *QUICK, "--json", file)
    assert result.exit_code == 0, result.stderr
    sdedit, correct = json.loads(file.read_text())["recipes"]
    assert (sdedit["recipe"], sdedit["evaluations"], sdedit["ratio"]) == ("sdedit", 4, 1)
    assert (correct["recipe"], correct["evaluations"]) == ("correct", 5)
    assert correct["ratio"] == pytest.approx(correct["seconds"] / sdedit["seconds"])
    assert 0 < correct["outside_model"] < 0.5
    assert correct["peak_memory_mib"] > 100
    assert "correct" in result.stdout


def test_the_base_can_be_chosen(sdcorrect: Callable[..., Result], tmp_path: Path) -> None:
    file = tmp_path / "bench.json"
    command = ("bench", "--recipes", "sdedit,correct", *QUICK, "--base", "correct", "--json", file)
    assert sdcorrect(*command).exit_code == 0
    assert [cost["ratio"] == 1 for cost in json.loads(file.read_text())["recipes"]] == [False, True]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--recipes", "sdedit,corect"], "did you mean correct?"),
        (["--recipes", "sdedit", "--base", "correct"], "is not among the recipes measured"),
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


def test_the_stopwatch_counts_the_networks_alone_and_leaves_them(model: Model) -> None:
    watch = Stopwatch(model)
    began = now(model)
    with watch.watching():
        model.pipe.unet(model.noise([0], (32, 32))[0], 1, model.embed("").embeddings)
    whole = now(model) - began
    assert whole / 2 < watch.seconds < whole
    spent = watch.seconds
    model.pipe.unet(model.noise([0], (32, 32))[0], 1, model.embed("").embeddings)
    assert watch.seconds == spent
