"""The script that holds the core against tensors of the authors' released sampler."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

PACK = Path(__file__).parent / "conformance"
SCRIPT = Path(__file__).parents[1] / "scripts" / "check_conformance.py"


def check(pack: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), str(pack)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


def test_every_case_is_below_the_bar() -> None:
    result = check(PACK)
    assert result.returncode == 0, result.stderr
    errors = {line.split()[0]: float(line.split()[1]) for line in result.stdout.splitlines()}
    with_skips = {"skip45", "attn34_skip45"}
    switched = {f"{case}:skips_once" for case in with_skips}
    assert errors.keys() == {"sdedit", "attn345"} | with_skips | switched
    assert max(errors.values()) < 1e-4


@pytest.mark.slow
def test_a_case_that_differs_fails(tmp_path: Path) -> None:
    pack = shutil.copytree(PACK, tmp_path / "pack")
    tensors = load_file(pack / "tensors.safetensors")
    tensors["latents.skip45"] = tensors["latents.skip45"] * 1.001
    tensors["latents.attn345"] = torch.full_like(tensors["latents.attn345"], torch.nan)
    save_file(tensors, pack / "tensors.safetensors")
    cases = json.loads((pack / "cases.json").read_text())
    kept = [case for case in cases if case["name"] in ("attn345", "skip45")]
    (pack / "cases.json").write_text(json.dumps(kept))
    result = check(pack)
    assert result.returncode == 1
    assert [line.split()[0] for line in result.stdout.splitlines() if "TOO LARGE" in line] == [
        "attn345",
        "skip45",
        "skip45:skips_once",
    ]
