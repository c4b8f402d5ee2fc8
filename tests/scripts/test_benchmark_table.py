"""The benchmark's table and curves say what the evaluations say."""

import json
from pathlib import Path

import benchmark_table
import pytest
from PIL import Image


def _evaluation(folder: Path, variants: dict[str, float], p: float) -> None:
    metrics = [*benchmark_table.METRICS, "clip_text"]
    folder.mkdir(parents=True)
    content = {
        "variants": {
            name: {
                "pictures": 24,
                "metrics": {metric: {"mean": mean, "low": 0, "high": 1} for metric in metrics},
                "against_base": {}
                if name == "sdedit"
                else {metric: {"p": p} for metric in benchmark_table.TESTED},
            }
            for name, mean in variants.items()
        }
    }
    (folder / "evaluation.json").write_text(json.dumps(content))


@pytest.fixture
def out(tmp_path: Path) -> Path:
    _evaluation(tmp_path / "flat-to-ink" / "0.8", {"sdedit": 0.3}, p=1)
    _evaluation(tmp_path / "flat-to-3d" / "0.8", {"sdedit": 0.5, "correct": 0.625}, p=0.0079)
    _evaluation(tmp_path / "flat-to-3d" / "0.95", {"sdedit": 0.4, "correct": 0.45}, p=1e-7)
    _evaluation(tmp_path / "flat-to-3d" / "inverted", {"ddim": 0.7}, p=0.02)
    return tmp_path


def _made(out: Path, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    monkeypatch.setattr("sys.argv", ["benchmark_table.py", str(out)])
    benchmark_table.main()
    lines = (out / "table.md").read_text().splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_a_row_for_each_direction_strength_and_recipe(
    out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    head, rule, *rows = _made(out, monkeypatch)
    assert len(head) == len(rule)
    assert [(row[0], *row[2:5], row[-1]) for row in rows] == [
        ("flat-to-3d", "0.8", "`sdedit`", "0.500", ""),
        ("flat-to-3d", "0.8", "`correct`", "0.625", "0.0079, 0.0079"),
        ("flat-to-3d", "0.95", "`sdedit`", "0.400", ""),
        ("flat-to-3d", "0.95", "`correct`", "0.450", "< 0.0001, < 0.0001"),
        # what starts from a whole inversion has no strength and is not tested against SDEdit's
        ("flat-to-3d", "-", "`ddim`", "0.700", ""),
        ("flat-to-ink", "0.8", "`sdedit`", "0.300", ""),
    ]


def test_draws_two_panels_for_each_direction(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _made(out, monkeypatch)
    both = Image.open(out / "curves.png").size
    (out / "flat-to-ink" / "0.8" / "evaluation.json").unlink()
    _made(out, monkeypatch)
    one = Image.open(out / "curves.png")
    assert one.size[0] < both[0]
    assert one.size[1] == both[1]
    assert (213, 94, 0) in {colour for _, colour in one.convert("RGB").getcolors(1 << 20)}


def test_refuses_a_folder_without_evaluations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SystemExit, match=r"found no evaluation.json"):
        _made(tmp_path, monkeypatch)
