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


def test_variables_stand_between_the_job_and_the_flags(
    translate: Run, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = tmp_path / "job.yaml"
    job.write_text("device: cpu\ndtype: float32\noffline: true\n")
    dry = ("-c", job, pictures, "-o", tmp_path / "out", "--dry-run")
    monkeypatch.setenv("SDCORRECT_DEVICE", "cuda:1")
    monkeypatch.setenv("SDCORRECT_DTYPE", "")  # as good as none
    monkeypatch.setenv("SDCORRECT_OFFLINE", "0")
    told = planned(translate(*dry))
    assert (told["device"], told["dtype"], told["offline"]) == ("cuda:1", "float32", True)
    monkeypatch.setenv("SDCORRECT_OFFLINE", "1")
    job.write_text("dtype: float16\n")
    told = planned(translate(*dry, "--device", "cpu"))
    assert (told["device"], told["dtype"], told["offline"]) == ("cpu", "float16", True)


def test_a_variable_that_makes_no_sense_is_told_by_name(
    translate: Run, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SDCORRECT_OFFLINE", "perhaps")
    result = translate(pictures, "-o", tmp_path / "out", "--dry-run")
    assert result.exit_code == 2
    assert "SDCORRECT_OFFLINE" in result.stderr


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
