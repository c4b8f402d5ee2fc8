"""The script that holds the core against tensors of the authors' released sampler."""

import json
import runpy
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

PACK = Path(__file__).parent / "conformance"
Check = Callable[[Path], tuple[object, list[str]]]
SCRIPT = Path(__file__).parents[1] / "scripts" / "check_conformance.py"


@pytest.fixture
def check(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Check:
    """Run the script on a pack; its exit code and the lines that it prints."""

    def run(pack: Path) -> tuple[object, list[str]]:
        monkeypatch.setattr(sys, "argv", [str(SCRIPT), str(pack)])
        with pytest.raises(SystemExit) as end:
            runpy.run_path(str(SCRIPT), run_name="__main__")
        return end.value.code, capsys.readouterr().out.splitlines()

    return run


def test_every_case_is_below_the_bar(check: Check) -> None:
    code, lines = check(PACK)
    assert code == 0, lines
    errors = {line.split()[0]: float(line.split()[1]) for line in lines}
    with_skips = {"skip45", "attn34_skip45"}
    switched = {f"{case}:skips_once" for case in with_skips}
    assert errors.keys() == {"sdedit", "attn345"} | with_skips | switched
    assert max(errors.values()) < 1e-4


@pytest.mark.slow
def test_a_case_that_differs_fails(tmp_path: Path, check: Check) -> None:
    pack = shutil.copytree(PACK, tmp_path / "pack")
    tensors = load_file(pack / "tensors.safetensors")
    tensors["latents.skip45"] = tensors["latents.skip45"] * 1.001
    tensors["latents.attn345"] = torch.full_like(tensors["latents.attn345"], torch.nan)
    save_file(tensors, pack / "tensors.safetensors")
    cases = json.loads((pack / "cases.json").read_text())
    kept = [case for case in cases if case["name"] in ("attn345", "skip45")]
    (pack / "cases.json").write_text(json.dumps(kept))
    code, lines = check(pack)
    assert code == 1
    assert [line.split()[0] for line in lines if "TOO LARGE" in line] == [
        "attn345",
        "skip45",
        "skip45:skips_once",
    ]
