"""A disk that fills up, a real one: a small tmpfs, which root may mount."""

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import Result
from PIL import Image

PAGE = 4096  #: what a tmpfs gives at a time, bytes
PAGES = 64


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ("mount", "-t", "tmpfs", "-o", f"size={PAGES * PAGE}", "tmpfs", folder)
    subprocess.run(mount, check=True)
    yield folder
    subprocess.run(("umount", folder), check=True)


@pytest.mark.parametrize("free", [0, 3, 5, 6, 7, 8])
def test_a_full_disk_is_one_line_and_the_run_goes_on_when_there_is_space(
    translate: Callable[..., Result], pictures: Path, disk: Path, free: int
) -> None:
    filler, out = disk / "filler", disk / "out"
    filler.write_bytes(b"0" * (PAGES - free) * PAGE)
    full = translate(pictures, "-o", out)
    assert full.exit_code == 1
    errors = [line for line in full.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert errors[0].startswith(f"error: output {out}")
    assert errors[0].endswith("cannot be written: No space left on device")
    assert not list(out.rglob("*.tmp")) and not list(out.rglob("*.lock"))
    for file in out.rglob("*.png"):
        Image.open(file).load()
    lines = [line for file in out.glob("records/*.jsonl") for line in file.open()]
    assert all(json.loads(line)["status"] == "done" for line in lines)
    if (out / "job.json").exists():
        json.loads((out / "job.json").read_text())

    filler.unlink()
    assert translate(pictures, "-o", out).exit_code == 0
    assert len(list(out.rglob("*.png"))) == 3
    assert sum(len(file.read_text().splitlines()) for file in out.glob("records/*.jsonl")) == 3
