"""Signals to a real run in a process of its own."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from drill import QUICK, Drill
from PIL import Image

COMMAND = (sys.executable, "-c", "from sdcorrect.cli import app; app()", "translate")


def wait_for(path: Path, ended: Callable[[], bool]) -> None:
    for _ in range(1200):
        if path.exists() and path.stat().st_size:
            return
        assert not ended(), path
        time.sleep(0.05)
    raise TimeoutError(path)


def assert_whole(out: Path) -> None:
    assert not list(out.rglob("*.tmp"))
    for file in out.rglob("*.png"):
        Image.open(file).load()
    for file in out.glob("records/*.jsonl"):
        assert all(json.loads(line)["status"] == "done" for line in file.open())


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (signal.SIGTERM, 143),
        pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow),
        pytest.param(signal.SIGUSR1, 142, marks=pytest.mark.slow),
    ],
)
def test_a_signal_drops_the_batch_in_hand_and_exits(
    pictures: Path, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    out = tmp_path / "out"
    command = [*COMMAND, str(pictures), "-o", str(out), *QUICK, "--steps", "999"]
    run = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    wait_for(out / "job.json", lambda: run.poll() is not None)
    run.send_signal(number)
    _, messages = run.communicate(timeout=60)
    assert run.returncode == code
    assert f"stopped by {number.name}" in messages
    assert "Traceback" not in messages
    assert_whole(out)


def test_a_run_that_is_blocked_in_a_read_heeds_term(pictures: Path, tmp_path: Path) -> None:
    shutil.copy(pictures / "bicycle.png", pictures / "z.png")
    run = Drill(pictures, tmp_path / "out", "--batch-size", "1", blocked="z.png")
    with run.running() as process:
        run.wait_for_lines(process, 3)
        os.kill(process.pid, signal.SIGTERM)
        process.join(timeout=15)
    assert process.exitcode == 143, run.messages()
    assert "stopped by SIGTERM" in run.messages() and "Traceback" not in run.messages()
    assert_whole(run.out)


def test_interrupted_while_it_loads_it_gives_the_cursor_back(pictures: Path, tmp_path: Path) -> None:
    terminal, theirs = os.openpty()
    command = [*COMMAND, str(pictures), "-o", str(tmp_path / "out"), "-p", "in oil"]
    environment = {**os.environ, "TERM": "xterm"}
    with subprocess.Popen(command, stdout=theirs, stderr=theirs, env=environment) as run:
        os.close(theirs)
        shown = b""
        while b"\x1b[?25l" not in shown:  # the spinner hides it
            shown += os.read(terminal, 1000)
        run.send_signal(signal.SIGINT)
        with suppress(OSError):  # the end of a terminal that nobody writes to any more
            while more := os.read(terminal, 1000):
                shown += more
    os.close(terminal)
    assert run.returncode == 130
    assert shown.rfind(b"\x1b[?25h") > shown.rfind(b"\x1b[?25l")
    assert b"Traceback" not in shown


def test_a_second_signal_does_not_wait(pictures: Path, tmp_path: Path) -> None:
    run = Drill(pictures, tmp_path / "out", "--steps", "999")
    with run.running() as process:
        wait_for(run.out / "job.json", lambda: not process.is_alive())
        os.kill(process.pid, signal.SIGUSR1)
        os.kill(process.pid, signal.SIGTERM)
        process.join(timeout=60)
    assert process.exitcode in (142, 143)
    assert_whole(run.out)
