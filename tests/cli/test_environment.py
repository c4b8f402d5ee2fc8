"""The variables that stand in for flags, and completion in shells."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from sdcorrect.cli import app

Run = Callable[..., Result]


def planned(result: Result) -> dict[str, Any]:
    assert result.exit_code == 0, result.stderr
    job: dict[str, Any] = json.loads(result.stdout.rpartition("would translate")[0])
    return job


JOB = "device: cpu\ndtype: float32\noffline: true\n"


@pytest.mark.parametrize(
    ("variables", "flags", "expected"),
    [
        ({}, [], ("cpu", "float32", True)),
        ({"DEVICE": "", "DTYPE": "", "OFFLINE": ""}, [], ("cpu", "float32", True)),  # as good as none
        ({"DEVICE": "cuda:1", "DTYPE": "auto", "OFFLINE": "0"}, [], ("cuda:1", "auto", False)),
        (
            {"DEVICE": "cuda:1", "DTYPE": "float16", "OFFLINE": "1"},
            ["--set", "device=cpu", "--set", "dtype=auto", "--set", "offline=false"],
            ("cpu", "auto", False),
        ),
        (
            {"DEVICE": "cuda:1", "DTYPE": "float16", "OFFLINE": "1"},
            ["--device", "mps", "--dtype", "auto", "--no-offline", "--set", "dtype=bfloat16"],
            ("mps", "auto", False),
        ),
        ({"OFFLINE": "no"}, ["--offline", "--set", "offline=false"], ("cpu", "float32", True)),
        ({}, ["--no-offline"], ("cpu", "float32", False)),
    ],
)
def test_flags_override_set_which_overrides_variables_which_override_the_job(
    translate: Run,
    pictures: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    variables: dict[str, str],
    flags: list[str],
    expected: tuple[str, str, bool],
) -> None:
    job = tmp_path / "job.yaml"
    job.write_text(JOB)
    for name, value in variables.items():
        monkeypatch.setenv(f"SDCORRECT_{name}", value)
    told = planned(translate("-c", job, pictures, "-o", tmp_path / "out", "--dry-run", *flags))
    assert (told["device"], told["dtype"], told["offline"]) == expected


@pytest.mark.parametrize(
    ("variable", "value", "told"),
    [
        ("OFFLINE", "maybe", "should be 1 or 0 (or true, false, yes, no); found 'maybe'"),
        ("DTYPE", "half", "'half' is not one of 'auto', 'float32', 'float16', 'bfloat16'"),
        ("DEVICE", "gpu", "there is no device 'gpu'; give auto, cpu, cuda, cuda:1, mps or xpu"),
        ("CACHE", __file__, f"{__file__} is a file; give a folder"),
        ("CACHE", " ", "is empty; is a shell variable unset?"),
    ],
)
@pytest.mark.parametrize("command", ["translate", "doctor"])
def test_a_variable_that_makes_no_sense_is_told_by_name_in_a_line(
    sdcorrect: Run, monkeypatch: pytest.MonkeyPatch, command: str, variable: str, value: str, told: str
) -> None:
    monkeypatch.setenv(f"SDCORRECT_{variable}", value)
    result = sdcorrect(command)
    assert result.exit_code == 2
    assert result.stderr == f"error: SDCORRECT_{variable}: {told}\n"


@pytest.mark.parametrize(("variable", "flag"), [("0", []), ("1", ["--no-offline"])])
def test_evaluate_asks_the_hub_though_the_job_did_not_when_told_so(
    sdcorrect: Run,
    translate: Run,
    pictures: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    variable: str,
    flag: list[str],
) -> None:
    out = tmp_path / "out"
    assert translate(pictures / "sub", "-o", out, "--offline").exit_code == 0
    monkeypatch.setattr("sdcorrect.models.sources._reach", lambda address: "it is not there")
    unknown = ("evaluate", out, "--metrics", "clip_image", "--clip", "no/such")
    assert "not contacted offline" in sdcorrect(*unknown).stderr
    monkeypatch.setenv("SDCORRECT_OFFLINE", variable)
    assert "it is not there" in sdcorrect(*unknown, *flag).stderr


def test_the_cache_is_where_the_hub_keeps_downloads(
    sdcorrect: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", "/nowhere")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SDCORRECT_CACHE", "kept")
    assert sdcorrect("recipes").exit_code == 0
    assert os.environ["HF_HUB_CACHE"] == str(tmp_path / "kept")
    assert sdcorrect("--cache", tmp_path / "other", "recipes").exit_code == 0
    assert os.environ["HF_HUB_CACHE"] == str(tmp_path / "other")


def test_shells_complete_commands_options_and_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("_SDCORRECT_COMPLETE", "complete_bash")
    for words, found in {
        "sdcorrect transl": "translate",
        "sdcorrect init paper-c": "paper-coco",
    }.items():
        monkeypatch.setenv("COMP_WORDS", words)
        monkeypatch.setenv("COMP_CWORD", str(len(words.split()) - 1))
        assert found in CliRunner().invoke(app, [], prog_name="sdcorrect").stdout.split()
