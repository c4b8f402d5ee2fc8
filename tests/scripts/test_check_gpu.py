"""The script for people with a card runs to its end without one, in small."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "check_gpu.sh"


@pytest.mark.slow
def test_all_of_it_runs_in_small_on_the_cpu(tmp_path: Path) -> None:
    run = subprocess.run(
        ["bash", SCRIPT, tmp_path, "--device", "cpu", "--small"],
        env={**os.environ, "PYTHON": sys.executable},
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    found = json.loads((tmp_path / "gpu.json").read_text())
    assert all(found["bytes"][name]["twice"] for name in found["bytes"])
    assert {row["recipe"] for row in found["sd15"]} >= {"sdedit", "correct", "correct-fast", "pnp-50"}
    assert all("s/picture" in row and "to sdedit" in row for row in found["rows"])
    assert found["folder"]["pictures"] == 4
    assert found["waits"] == "needs CUDA"
    assert "correct-fast" in (tmp_path / "table.txt").read_text()
    assert "passed" in (tmp_path / "tests-gpu.txt").read_text()


def test_a_section_that_fails_leaves_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import check_gpu

    def broken(_check: object) -> None:
        raise RuntimeError("no such kernel")

    monkeypatch.setitem(check_gpu.SECTIONS, "bytes", (0, broken))
    words = [str(tmp_path), "--device", "cpu", "--small", "--only", "bytes", "waits"]
    monkeypatch.setattr("sys.argv", ["check_gpu.py", *words])
    assert check_gpu.main() == 1
    found = json.loads((tmp_path / "gpu.json").read_text())
    assert found["bytes"]["error"].startswith("RuntimeError: no such kernel")
    assert found["waits"] == "needs CUDA"
