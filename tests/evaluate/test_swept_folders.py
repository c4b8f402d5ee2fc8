"""One folder of a sweep: compared at the same strength and seed, in a table, and as curves."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

Run = Callable[..., Result]


@pytest.mark.slow
def test_a_sweep_is_a_table_and_curves(
    folders: Any, translate: Run, sdcorrect: Run, networks: Path, tmp_path: Path
) -> None:
    out, table = tmp_path / "out", tmp_path / "table.md"
    settings = ("--set", "variants=[sdedit, correct, {name: fixed, inversion: full, start: inverted}]")
    sweep = ("--strength", "1,0.5", "--seed", "0,1")
    result = translate(folders.pictures, "-o", out, *settings, *sweep)
    assert result.exit_code == 0, result.stderr
    measured = sdcorrect("evaluate", out, "--frontier", "--table", table, "--clip", networks / "clip")
    assert measured.exit_code == 0, measured.stderr
    assert "to sdedit at the same strength and seed" in " ".join(measured.stdout.split())
    found = json.loads((out / "evaluation.json").read_text())["variants"]
    rows = [line.split(" | ") for line in table.read_text().splitlines()[2:] if line.startswith("| ")]
    assert [(row[0].strip("| "), row[1], row[2]) for row in rows] == [
        *((s, n, recipe) for s in ("0.5", "1") for n in "01" for recipe in ("sdedit", "correct")),
        *(("-", n, "fixed") for n in "01"),
    ]
    csv = [line.split(",") for line in (out / "evaluation.csv").read_text().splitlines()]
    column = csv[0].index("ssim")
    ssim = {(row[0], row[1]): float(row[column]) for row in csv[1:]}
    pictures = {path for _, path in ssim}
    of = "strength-0.5-seed-1"
    differences = [ssim[f"correct-{of}", path] - ssim[f"sdedit-{of}", path] for path in pictures]
    against = found[f"correct-{of}"]["against_base"]["ssim"]
    assert against["difference"] == pytest.approx(sum(differences) / len(differences), abs=1e-5)
    assert not found[f"sdedit-{of}"]["against_base"] and not found["fixed-seed-1"]["against_base"]
    curves = json.loads((out / "frontier.json").read_text())["curves"]
    assert {recipe: [point["strength"] for point in curve] for recipe, curve in curves.items()} == {
        "sdedit": [0.5, 1],
        "correct": [0.5, 1],
        "fixed": [None],
    }
    seeds = [found[f"correct-strength-0.5-seed-{n}"]["metrics"]["ssim"]["mean"] for n in (0, 1)]
    assert curves["correct"][0]["means"]["ssim"] == pytest.approx(sum(seeds) / 2)
    figure = tmp_path / "figure.pdf"
    assert sdcorrect("plot", out, "-o", figure).exit_code == 0 and figure.exists()
    one = sdcorrect("evaluate", out, "--base", "fixed-seed-0", "--metrics", "ssim")
    assert one.exit_code == 0 and "diff.: to fixed-seed-0 on" in " ".join(one.stdout.split())
    report = sdcorrect("report", out)
    assert report.exit_code == 0, report.stderr
    assert "correct 0.5 seed 1" in (out / "report.html").read_text()
