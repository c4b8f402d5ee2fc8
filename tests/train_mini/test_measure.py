"""What is told of trained weights: distances, and sheets whose order is hidden."""

import json
from pathlib import Path

import measure
import numpy as np
import pytest
import sheets
import torch
from PIL import Image


def test_the_frechet_distance_is_that_of_the_means_where_the_spreads_are_alike() -> None:
    truth = torch.randn(120, 16, generator=torch.Generator().manual_seed(0))
    assert measure.frechet(truth, truth) == pytest.approx(0, abs=1e-3)
    assert measure.frechet(truth + 0.5, truth) == pytest.approx(16 * 0.25, rel=1e-3)


def _left_by_measure(folder: Path, grey: int) -> Path:
    """An output folder with a result of each held-out icon by one recipe, all in one grey."""
    recipe = folder / "3d" / "correct-wide"
    recipe.mkdir(parents=True)
    for name in sheets.names():
        Image.new("RGB", (64, 64), (grey,) * 3).save(recipe / name)
    return folder


def test_hidden_sheets_show_both_models_and_the_key_tells_them_apart(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before, after = (
        _left_by_measure(tmp_path / name, grey) for name, grey in (("old", 10), ("new", 20))
    )
    folder = tmp_path / "sheets"
    sheets.hidden_sheets(before, after, folder, "correct-wide")
    key = json.loads((folder / "key.json").read_text())
    assert sorted(key) == sorted([of, name] for of in ("old", "new") for name in sheets.names())
    seen = []
    for file in sorted(folder.glob("*.png"), key=lambda file: int(file.stem)):
        sheet = np.asarray(Image.open(file).convert("L"))
        pair = (sheets.SIDE + sheets.GAP) * 2 + sheets.GAP
        tile = sheets.SIDE + 2 * sheets.GAP + sheets.NUMBER
        middle = (sheets.NUMBER + sheets.SIDE // 2, sheets.SIDE + sheets.GAP + sheets.SIDE // 2)
        seen += [int(v) for row in sheet[middle[0] :: tile] for v in row[middle[1] :: pair]]
    assert seen[: len(key)] == [{"old": 10, "new": 20}[of] for of, _ in key]
    # not one model first, and not by turns
    assert len({of for of, _ in key[:40]}) == 2

    good = [number for number, (of, _) in enumerate(key) if of == "new"][:7]
    capsys.readouterr()
    sheets.count(folder, good)
    assert capsys.readouterr().out.splitlines() == ["new: 7 of 120", "old: 0 of 120"]


def test_a_sheet_of_all_has_source_recipe_and_truth_of_each(tmp_path: Path) -> None:
    sheets.sheet_of_all(_left_by_measure(tmp_path / "out", 10), tmp_path / "all.png")
    sheet = np.asarray(Image.open(tmp_path / "all.png"))
    name = sheets.names()[1]
    left = sheets.SIDE + 2 * sheets.GAP
    of_second = sheet[:, left : left + sheets.SIDE]
    side, step = sheets.SIDE, sheets.SIDE + sheets.GAP
    assert np.array_equal(of_second[:side], np.asarray(sheets.opened(sheets.SOURCE / name)))
    assert (of_second[step : step + side] == 10).all()
    assert np.array_equal(
        of_second[2 * step : 2 * step + side], np.asarray(sheets.opened(sheets.TRUTH / name))
    )
