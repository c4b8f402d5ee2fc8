"""Where discrepancy lies and what it costs: run on a few icons."""

import json
from pathlib import Path

import discrepancy_icons
import pytest
from PIL import Image


def _row(name: str, divergence: float, loss: float) -> discrepancy_icons.Row:
    return discrepancy_icons.Row(
        name,
        0.8,
        {"sdedit": {3: divergence, 4: 1 - divergence / 2}, "correction": {3: 0.0, 4: 0.0}},
        {"sdedit": loss, "correction": 0.0},
    )


def test_ranks_divergence_against_loss() -> None:
    values = [(0.1, 0.2), (0.2, 0.3), (0.5, 0.35), (0.9, 0.9)]
    rows = [_row(str(place), *pair) for place, pair in enumerate(values)]
    found = discrepancy_icons.correlations(rows)
    assert found["block 3"]["rho"] == pytest.approx(1)
    assert found["block 4"]["rho"] == pytest.approx(-1)


@pytest.mark.slow
def test_writes_figure_and_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Path(__file__).parents[2] / "sdcorrect" / "assets" / "icons" / "flat"
    words = [str(folder), "--output", str(tmp_path), "--limit", "3", "--strengths", "0.3", "0.9"]
    monkeypatch.setattr("sys.argv", ["discrepancy_icons.py", *words])
    discrepancy_icons.main()
    content = json.loads((tmp_path / "discrepancy.json").read_text())
    assert [of["strength"] for of in content["spearman"]] == [0.3, 0.9]
    assert len(content["pictures"]) == 6
    for row in content["pictures"]:
        blocks = row["divergence"]
        # what is put back is the inversion's own
        assert blocks["correction"]["3"] < 1e-3 < blocks["sdedit"]["3"]
    weak, strong = (
        sum(row["loss"]["sdedit"] for row in content["pictures"] if row["strength"] == strength)
        for strength in (0.3, 0.9)
    )
    assert weak < strong
    assert Image.open(tmp_path / "discrepancy.png").size[0] > 1000
    assert "strength 0.9: 3 pictures" in capsys.readouterr().out


def test_names_what_it_cannot_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken.png").write_bytes(b"no picture")
    monkeypatch.setattr("sys.argv", ["discrepancy_icons.py", str(tmp_path), "--strengths", "0.5"])
    with pytest.raises(SystemExit, match=r"broken\.png"):
        discrepancy_icons.main()
