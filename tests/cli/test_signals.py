"""Signals to a real run in a process of its own."""

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
from PIL import Image

#: runs that are interrupted are timed: never two of them at once
pytestmark = pytest.mark.xdist_group("interrupted")
COMMAND = (sys.executable, "-c", "from sdcorrect.cli import app; app()", "translate")


def start(pictures: Path, out: Path, *, steps: int) -> subprocess.Popen[str]:
    arguments = ("-p", "flat design style", "--steps", str(steps), "--strength", "1")
    command = [*COMMAND, str(pictures), "-o", str(out), *arguments, "--set", "size=32"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for(process: subprocess.Popen[str], path: Path) -> None:
    for _ in range(1200):
        if path.exists() and path.stat().st_size:
            return
        assert process.poll() is None, process.communicate()
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
    run = start(pictures, out, steps=999)
    wait_for(run, out / "job.json")
    run.send_signal(number)
    _, messages = run.communicate(timeout=60)
    assert run.returncode == code
    assert f"stopped by {number.name}" in messages
    assert "Traceback" not in messages
    assert_whole(out)


def test_a_run_that_is_blocked_in_a_read_heeds_term(pictures: Path, tmp_path: Path) -> None:
    # the kernel lets nobody open a file on which another process holds a lease, until it gives it up
    blocked = pictures / "z.png"
    shutil.copy(pictures / "bicycle.png", blocked)
    with blocked.open("ab") as stream:
        signal.signal(signal.SIGIO, signal.SIG_IGN)  # what it would be told by
        fcntl.fcntl(stream, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        out = tmp_path / "out"
        run = start(pictures, out, steps=2)
        wait_for(run, out / "records" / "0-of-1.jsonl")
        run.send_signal(signal.SIGTERM)
        _, messages = run.communicate(timeout=15)
    assert run.returncode == 143, messages
    assert "stopped by SIGTERM" in messages and "Traceback" not in messages
    assert_whole(out)


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
    out = tmp_path / "out"
    run = start(pictures, out, steps=999)
    wait_for(run, out / "job.json")
    run.send_signal(signal.SIGUSR1)
    run.send_signal(signal.SIGTERM)
    run.communicate(timeout=60)
    assert run.returncode in (142, 143)
    assert_whole(out)
