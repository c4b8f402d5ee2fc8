"""A job on several devices, here the CPU twice: as on one, whatever becomes of a process."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from click.testing import Result
from PIL import Image

from sdcorrect.errors import UsageError
from sdcorrect.models import choose_devices

Run = Callable[..., Result]
PATIENCE = 120  #: seconds
QUICK = ["-p", "render", "--steps", "2", "--strength", "1.0", "--set", "size=32", "--device", "cpu"]


@pytest.fixture
def many(tmp_path: Path) -> Path:
    """A folder of 40 different pictures, and one that is none."""
    folder = tmp_path / "many"
    folder.mkdir()
    for number in range(40):
        Image.new("RGB", (32, 32), (6 * number, 99, 255 - number)).save(folder / f"{number}.png")
    (folder / "broken.png").write_bytes(b"\x89PNG")
    return folder


def on_two(folder: Path, out: Path) -> "subprocess.Popen[str]":
    started = [sys.executable, "-c", "from sdcorrect.cli import app; app()", "translate"]
    command = [*started, str(folder), "-o", str(out), *QUICK, "--devices", "cpu,cpu"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def children_at_work(process: "subprocess.Popen[str]", out: Path) -> list[psutil.Process]:
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until and process.poll() is None:
        if len(list(out.glob("correct/*.png"))) > 2:
            spawned = psutil.Process(process.pid).children()
            return [child for child in spawned if "spawn_main" in " ".join(child.cmdline())]
        time.sleep(0.05)
    raise AssertionError("no picture was made")


def files_of(out: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in out.glob("correct/*.png")}


@pytest.mark.slow
def test_two_devices_make_what_one_makes(sdcorrect: Run, many: Path, tmp_path: Path) -> None:
    assert sdcorrect("translate", many, "-o", tmp_path / "one", *QUICK).exit_code == 3
    two = on_two(many, tmp_path / "two")
    assert two.wait(PATIENCE) == 3
    assert files_of(tmp_path / "one") == files_of(tmp_path / "two")
    assert two.stdout is not None and "40/41" in two.stdout.read()
    one, of_two = (json.loads((tmp_path / n / "job.json").read_text()) for n in ("one", "two"))
    assert one["counts"] == of_two["counts"] == {"correct": {"done": 40, "failed": 1}}
    again = sdcorrect("translate", many, "-o", tmp_path / "two", *QUICK)
    assert "nothing to do" in again.stdout


@pytest.mark.slow
def test_the_others_take_over_what_a_killed_process_had(many: Path, tmp_path: Path) -> None:
    process = on_two(many, tmp_path / "out")
    children_at_work(process, tmp_path / "out")[0].kill()
    assert process.wait(PATIENCE) == 3
    assert len(files_of(tmp_path / "out")) == 40
    assert process.stdout is not None
    assert "warning: device cpu failed; the others carry on" in process.stdout.read()


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_all(many: Path, tmp_path: Path, number: int, code: int) -> None:
    process = on_two(many, tmp_path / "out")
    children = children_at_work(process, tmp_path / "out")
    os.kill(process.pid, number)
    assert process.wait(PATIENCE) == code
    assert not [child for child in children if child.is_running()]


@pytest.mark.slow
def test_more_devices_than_pictures_are_told(tmp_path: Path) -> None:
    Image.new("RGB", (32, 32), "red").save(tmp_path / "a.png")
    process = on_two(tmp_path / "a.png", tmp_path / "out")
    told, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0
    assert "2 devices for 1 picture: 1 idle" in told.splitlines()


@pytest.mark.parametrize("names", ["0,1", "cuda:7", "nothing", "cpu,", "-1"])
def test_a_device_that_is_not_there_is_told_in_one_line(names: str) -> None:
    with pytest.raises(UsageError) as told:
        choose_devices(names)
    assert "\n" not in str(told.value) and "cpu" in str(told.value)


def test_devices_are_named_in_any_way() -> None:
    assert choose_devices("cpu, cpu") == ["cpu", "cpu"]
    assert choose_devices("all")


def test_a_launcher_gives_each_process_its_own(
    translate: Run, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1"}.items():
        monkeypatch.setenv(name, value)
    refused = translate(pictures, "-o", tmp_path / "out", "--devices", "cpu,cpu")
    assert refused.exit_code == 2
    assert "torchrun gives each process its own" in refused.stderr
    part = translate(pictures, "-o", tmp_path / "out", "--dry-run")
    assert "runs only shard 1-of-2, because torchrun's variables say so (process 1 of 2)" in part.stderr
