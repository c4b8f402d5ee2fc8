"""Set-up: once, by one of several that are started together, by uv where there is one."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SETUP = Path(__file__).parents[2] / "scripts" / "setup.sh"
#: What stands in for installers: they note that they begin and end, and take their time.
SLOW = 'echo "begin $*" >>log; sleep 0.4; echo end >>log'


def program(file: Path, body: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"#!/bin/bash\n{body}\n")
    file.chmod(0o755)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project to set up, and a python3 whose environments have a pip that only notes its calls."""
    (tmp_path / "scripts").mkdir()
    shutil.copy(SETUP, tmp_path / "scripts")
    for name in ("pyproject.toml", "scripts/constraints.txt"):
        (tmp_path / name).write_text("as it is\n")
    program(tmp_path / "kept" / "pip", SLOW)
    made = 'mkdir -p "$3/bin"; cp kept/pip "$3/bin/pip"'
    program(
        tmp_path / "bin" / "python3",
        f'if [ "$2" = venv ]; then {made}; else exec {sys.executable} "$@"; fi',
    )
    return tmp_path


def start(project: Path) -> "subprocess.Popen[str]":
    path = f"{project / 'bin'}:/usr/bin:/bin"
    return subprocess.Popen(
        ["bash", "-c", "source scripts/setup.sh; echo ready"],
        cwd=project,
        env={**os.environ, "PATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_of_several_at_once_one_sets_up_and_all_go_on(project: Path) -> None:
    ended = [
        (*run.communicate(timeout=30), run.returncode) for run in [start(project) for _ in range(3)]
    ]
    assert [(out, code) for out, _, code in ended] == [("ready\n", 0)] * 3
    begin, end = (project / "log").read_text().splitlines()
    assert begin.startswith("begin install") and end == "end"
    told = "".join(err for _, err, _ in ended)
    assert told.count("setting up .venv") == 1 and told.count("waiting for it") == 2
    out, err = start(project).communicate(timeout=30)
    assert (out, err) == ("ready\n", "")  # nothing is left to do, and nothing is said
    (project / "pyproject.toml").write_text("changed\n")
    assert "setting up" in start(project).communicate(timeout=30)[1]


def test_a_set_up_that_fails_is_no_set_up(project: Path) -> None:
    program(project / "kept" / "pip", "echo no network >&2; exit 1")
    run = start(project)
    out, err = run.communicate(timeout=30)
    assert (out, run.returncode) == ("", 1) and "no network" in err
    program(project / "kept" / "pip", SLOW)
    assert start(project).communicate(timeout=30)[0] == "ready\n"


@pytest.mark.parametrize("works", [True, False])
def test_uv_sets_up_where_there_is_one_else_pip(project: Path, works: bool) -> None:
    program(
        project / "bin" / "uv", f'echo "uv $*" >>log; mkdir -p .venv; {"true" if works else "exit 3"}'
    )
    out, err = start(project).communicate(timeout=30)
    assert out == "ready\n"
    assert ("uv failed; using pip instead" in err) != works
    assert ("begin install" in (project / "log").read_text()) != works
