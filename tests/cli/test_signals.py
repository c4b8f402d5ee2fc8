"""Signals to a real run in a process of its own."""

import json
import signal
import subprocess
import sys
import time
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
    ("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGUSR1, 142)]
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


def test_a_second_signal_does_not_wait(pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run = start(pictures, out, steps=999)
    wait_for(run, out / "job.json")
    run.send_signal(signal.SIGUSR1)
    run.send_signal(signal.SIGTERM)
    run.communicate(timeout=60)
    assert run.returncode in (142, 143)
    assert_whole(out)
