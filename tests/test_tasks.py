"""Jobs to start from, and the settings that they are written with."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from sdcorrect.config import Job, load_job
from sdcorrect.reference import SECTIONS, settings_of
from sdcorrect.tasks import PACKAGE, tasks

Run = Callable[..., Result]
OWN = Path(__file__).parents[1] / "configs"
#: A key that is commented out; sentences have blanks behind the mark.
COMMENTED = re.compile(r"^( *)#(?=\w+: )", re.M)


def test_the_tasks_are_the_projects_configs() -> None:
    assert tasks() == sorted(file.stem for file in OWN.glob("*.yaml"))


@pytest.mark.parametrize("task", tasks())
def test_a_job_to_start_from_is_the_tasks_with_every_key_told(
    sdcorrect: Run, tmp_path: Path, task: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = sdcorrect("init", task)
    assert result.exit_code == 0, result.stderr
    written = tmp_path / f"{task}.yaml"
    text = written.read_text()
    assert "configs" not in text and "../" not in text
    for setting in settings_of(Job):
        assert re.search(rf"^#?{setting.key}:", text, re.M), setting.key
    # all at once: the defaults are values that a job takes
    written.write_text(COMMENTED.sub(r"\1", text))
    original, every = load_job(OWN / f"{task}.yaml", {}), load_job(written, {})
    assert every.output.path == tmp_path / "out" / task
    there = original.input.path
    in_package = there.is_relative_to(PACKAGE)
    assert every.input.path == (there if in_package else tmp_path / there.relative_to(OWN.parent))
    paths = {"input", "output"}
    assert every.model_dump(exclude=paths) == original.model_dump(exclude=paths)
    assert every.input.min_side == original.input.min_side


def test_a_job_to_start_from_runs_at_once(sdcorrect: Run, tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    assert sdcorrect("init", "-o", file).exit_code == 0
    result = sdcorrect("translate", "-c", file, "--dry-run")
    assert "pictures with sdedit, correct" in result.stdout, result.stderr
    again = sdcorrect("init", "-o", file)
    assert (again.exit_code, again.stderr.count("\n")) == (2, 1)
    assert "exists already; choose another file with -o" in again.stderr


def test_a_task_that_is_none_is_one_line(sdcorrect: Run, tmp_path: Path) -> None:
    result = sdcorrect("init", "paper-coko", "-o", tmp_path / "job.yaml")
    assert (result.exit_code, result.stderr) == (
        2,
        "error: there is no task paper-coko; did you mean paper-coco?\n",
    )
    result = sdcorrect("init", "-o", tmp_path / "no" / "job.yaml")
    assert result.exit_code == 1 and "cannot be written: No such file" in result.stderr


@pytest.mark.parametrize("section", SECTIONS)
def test_every_setting_says_what_it_is_and_what_it_may_be(section: str) -> None:
    for setting in settings_of(SECTIONS[section]):
        assert setting.values and setting.meaning, setting.key
