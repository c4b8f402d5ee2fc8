"""A run that SLURM's variables narrow says so, whoever's array they are of."""

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

Run = Callable[..., Result]


@pytest.fixture
def inherited(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a shell inside of another program's array task has, and a job that is submitted from it."""
    task = {"ID": 3, "COUNT": 4, "MIN": 0, "MAX": 3, "STEP": 1}
    for name, value in task.items():
        monkeypatch.setenv(f"SLURM_ARRAY_TASK_{name}", str(value))
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "77")
    monkeypatch.setenv("SLURM_JOB_ID", "95")


NOTE = (
    "note: runs only shard 3-of-4, because SLURM's variables say so (task 3 of array 77); "
    "--num-shards 1 runs all"
)


@pytest.mark.usefixtures("inherited")
def test_the_shard_is_told_first_and_a_dry_run_agrees(
    translate: Run, pictures: Path, tmp_path: Path
) -> None:
    for number in range(8):
        (pictures / f"{number}.png").write_bytes((pictures / "bicycle.png").read_bytes())
    (pictures / "notes.doc").touch()
    dry = translate(pictures, "-o", tmp_path / "out", "--method", "sdedit", "--dry-run")
    assert dry.stderr.splitlines()[0] == NOTE
    assert not (tmp_path / "out").exists()
    quiet = translate(pictures, "-o", tmp_path / "out", "--method", "sdedit", "--dry-run", "-q")
    assert (quiet.stderr, quiet.stdout) == ("", dry.stdout)
    run = translate(pictures, "-o", tmp_path / "out", "--method", "sdedit")
    assert run.exit_code == 0
    assert run.stderr.splitlines()[:2] == [NOTE, "left out 1 non-picture file: 1 .doc"]
    done = len(list((tmp_path / "out" / "sdedit").rglob("*.png")))
    assert 0 < done < 11
    assert f"would translate {done} pictures (shard 3-of-4)" in dry.stdout


@pytest.mark.usefixtures("inherited")
def test_one_shard_takes_all_pictures(translate: Run, pictures: Path, tmp_path: Path) -> None:
    arguments = (pictures, "-o", tmp_path / "out", "--num-shards", 1, "--dry-run")
    result = translate(*arguments)
    assert "would translate 3 pictures with correct" in result.stdout
    assert result.stderr == ""


@pytest.mark.usefixtures("inherited")
def test_variables_of_half_an_array_stop_the_run(
    translate: Run, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SLURM_ARRAY_TASK_COUNT")
    for more in ([], ["--dry-run"]):
        result = translate(pictures, "-o", tmp_path / "out", *more)
        assert result.exit_code == 2
        assert "SLURM_ARRAY_TASK_COUNT is not set" in result.stderr and "--num-shards 1" in result.stderr
        assert result.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()
