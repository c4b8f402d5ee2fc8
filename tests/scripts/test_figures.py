"""What was measured is what the tables and sheets of the docs show."""

import json
from pathlib import Path
from typing import Any

import fill_tables
import pytest
import sheet
from PIL import Image

PAGE = """# Figures

| strength | recipe | SSIM to the truth | p against `sdedit`: SSIM, structure distance | evaluations |
|---|---|---|---|---|
| 0.5 | `sdedit` | old | | 20 |
| 0.8 | `correct` | old | old | 33 |
| - | `ddim` | old | old | 60 |

| direction | recipe | structure, style accuracy |
|---|---|---|
| 3D to flat | `correct` | old |

| to | recipe | structure distance to the source |
|---|---|---|
| 3D | `correct` | old |

| direction, icons | recipe | SSIM | SDEdit's |
|---|---|---|---|
| gone, 1 | `gone` | old | old |

| problem | what to try |
|---|---|
| old | stays |
"""
FILLED = """# Figures

| strength | recipe | SSIM to the truth | p against `sdedit`: SSIM, structure distance | evaluations |
|---|---|---|---|---|
| 0.5 | `sdedit` | 0.500 |  | 20 |
| 0.8 | `correct` | 0.625 | 0.0400, < 0.0001 | 33 |
| - | `ddim` | 0.700 |  | 60 |

| direction | recipe | structure, style accuracy |
|---|---|---|
| 3D to flat | `correct` | 0.75 |

| to | recipe | structure distance to the source |
|---|---|---|
| 3D | `correct` | 0.0250 |

| direction, icons | recipe | SSIM | SDEdit's |
|---|---|---|---|
| flat to ink, 80 | `correct` | 0.4 | 0.3 |

| problem | what to try |
|---|---|
| old | stays |
"""


def _write(file: str, content: Any) -> None:
    Path(file).parent.mkdir(parents=True, exist_ok=True)
    Path(file).write_text(content if isinstance(content, str) else json.dumps(content))


def _variant(metric: str, mean: float, **p: float) -> Any:
    return {"metrics": {metric: {"mean": mean}}, "against_base": {name: {"p": p[name]} for name in p}}


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    p = {"ssim_truth": 0.04, "structure_distance_truth": 1e-7}
    for folder, variants in {
        "benchmark/flat-to-3d/0.5": {"sdedit": _variant("ssim_truth", 0.5)},
        "benchmark/flat-to-3d/0.8": {"correct": _variant("ssim_truth", 0.625, **p)},
        "benchmark/flat-to-3d/inverted": {"ddim": _variant("ssim_truth", 0.7, **p)},
        "figures/shapes/3d": {"correct": _variant("structure_distance", 0.025)},
    }.items():
        _write(f"out/{folder}/evaluation.json", {"variants": variants})
    plane = {"kept": "structure_distance_truth", "style": "style_accuracy"}
    areas = {"correct": {"area": 0.75}}
    _write("out/benchmark/3d-to-flat/frontier.json", {"planes": [plane | {"areas": areas}]})
    table = "| direction, icons | recipe | SSIM | SDEdit's |\n|---|---|---|---|\n"
    _write("out/figures/equal-style.md", f"{table}| flat to ink, 80 | `correct` | 0.4 | 0.3 |\n")
    _write("page.md", PAGE)
    return Path("page.md")


def test_each_cell_shows_what_its_row_and_head_name(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["fill_tables.py", str(page)])
    fill_tables.main()
    assert page.read_text() == FILLED


def test_a_sheet_has_a_row_for_each_folder_and_only_pictures_of_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    colours = {"source": "red", "made": "blue"}
    for folder, colour in colours.items():
        for name in ("a", "b", folder):
            (tmp_path / folder).mkdir(exist_ok=True)
            Image.new("RGB", (8, 8), colour).save(tmp_path / folder / f"{name}.png")
    rows, png = [str(tmp_path / folder) for folder in colours], tmp_path / "sheet.png"
    monkeypatch.setattr("sys.argv", ["sheet.py", *rows, "-o", str(png)])
    sheet.main()
    with Image.open(png) as drawn:
        step = sheet.SIDE + sheet.GAP
        assert drawn.size == (2 * step + sheet.GAP, 2 * step + sheet.GAP)
        seen = drawn.convert("RGB")
        assert [seen.getpixel((x, y)) for y in (step // 2, 2 * step - 9) for x in (40, 110)] == [
            *[(255, 0, 0)] * 2,
            *[(0, 0, 255)] * 2,
        ]
