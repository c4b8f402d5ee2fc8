"""Kill a run at any moment, type the same command again: the end is that of an undisturbed run."""

import io
import os
import signal
import time
from pathlib import Path
from random import Random

import pytest
from drill import Drill, make_pictures
from PIL import Image

BATCH = 2


@pytest.mark.parametrize(("count", "kills"), [(8, 3), pytest.param(40, 25, marks=pytest.mark.slow)])
def test_killed_runs_end_as_an_undisturbed_one(tmp_path: Path, count: int, kills: int) -> None:
    folder = make_pictures(tmp_path / "pictures", count)
    undisturbed = Drill(folder, tmp_path / "undisturbed", "--batch-size", str(BATCH))
    assert undisturbed.finish() == 0, undisturbed.messages()
    expected = undisturbed.outputs()
    assert len(expected) == count
    for content in expected.values():
        Image.open(io.BytesIO(content)).load()

    killed = Drill(folder, tmp_path / "killed", "--batch-size", str(BATCH))
    random = Random(0)
    for _ in range(kills):
        before = len(killed.lines())
        with killed.running() as process:
            if random.random() < 0.3:  # while it starts
                time.sleep(random.uniform(0, 1))
            else:  # at work
                killed.wait_for_lines(process, before + random.choice([1, 1, 2]))
                time.sleep(random.uniform(0, 0.1))
            if process.is_alive():
                os.kill(process.pid, signal.SIGKILL)
        for name, content in killed.outputs().items():
            assert content == expected[name], f"{name} is torn"
    assert killed.finish() == 0, killed.messages()

    assert killed.outputs() == expected
    assert sorted(killed.recorded()) == sorted(undisturbed.recorded())
    assert not list(killed.out.rglob("*.tmp"))
    assert "Traceback" not in killed.messages()
    # a batch that is not full is filled up
    assert killed.decoded() <= count + kills * BATCH + BATCH - 1


@pytest.mark.slow
def test_two_runs_at_once_leave_what_one_leaves(tmp_path: Path) -> None:
    folder = make_pictures(tmp_path / "pictures", 6)
    alone = Drill(folder, tmp_path / "alone")
    assert alone.finish() == 0

    first, second = (Drill(folder, tmp_path / "out") for _ in range(2))
    second.name = "second"
    with first.running() as one:
        first.wait_for_lines(one, 1)
        os.kill(one.pid, signal.SIGSTOP)  # or it may be through before the second has started
        try:
            assert second.finish() == 1
        finally:
            os.kill(one.pid, signal.SIGCONT)
        one.join()
    assert one.exitcode == 0
    assert second.messages().startswith(f"error: output {second.out}: process {one.pid} on ")
    assert "is working on 0-of-1" in second.messages()
    assert second.messages().count("\n") == 1, second.messages()
    assert first.outputs() == alone.outputs()
    assert sorted(first.recorded()) == sorted(alone.recorded())
