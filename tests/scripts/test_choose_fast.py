"""Choosing the fast recipe: distances are the evaluation's, and the cheapest inside comes first."""

import json
from argparse import Namespace
from pathlib import Path
from typing import Any

import choose_fast
import pytest

from sdcorrect.evaluate.results import Comparison

ICONS = Path(__file__).parents[2] / "sdcorrect" / "assets" / "icons"


def _chosen(out: Path, monkeypatch: pytest.MonkeyPatch, *words: str) -> dict[str, Any]:
    fixed = [str(ICONS / "flat"), "-p", "in 3d render style", "-o", str(out), "--limit", "2"]
    monkeypatch.setattr("sys.argv", ["choose_fast.py", *fixed, *words])
    assert choose_fast.main() == 0
    found: dict[str, Any] = json.loads((out / "choice.json").read_text())
    return found


@pytest.mark.slow
def test_bands_are_of_the_evaluations_means(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["--strengths", "0.6", "--solvers", "dpm++", "--steps", "3", "12", "--guided", "1"]
    plain = ["--reuse", "0", "--metrics", "ssim", "psnr", "--rounds", "0"]
    found = _chosen(tmp_path, monkeypatch, *words, *plain)
    assert {name: of["evaluations"] for name, of in found.items()} == {
        "dpmpp-12-guided-1": 25,
        "dpmpp-3-guided-1": 7,
    }
    for distances in (of["distances"] for of in found.values()):
        assert [d["metric"] for d in distances] == ["ssim", "psnr"]
        for distance in distances:
            worse = distance["base"] - distance["value"]
            worse /= 0.01 if distance["metric"] == "ssim" else 0.01 * distance["base"]
            assert distance["bands"] == pytest.approx(worse)
            # two pictures: the interval of their mean is from one's difference to the other's
            assert (distance["low"] + distance["high"]) / 2 == pytest.approx(worse)
            assert distance["low"] < distance["high"]
    near, far = (
        max(abs(d["bands"]) for d in found[name]["distances"])
        for name in ("dpmpp-12-guided-1", "dpmpp-3-guided-1")
    )
    assert near < far


@pytest.mark.slow
def test_every_seed_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["--strengths", "0.6", "--solvers", "dpm++", "--steps", "3", "--guided", "1", "--reuse", "0"]
    plain = ["--metrics", "ssim", "--rounds", "0", "--seeds"]
    both, first, second = (
        _chosen(tmp_path, monkeypatch, *words, *plain, *seeds)["dpmpp-3-guided-1"]["distances"][0]
        for seeds in (["0", "7"], ["0"], ["7"])
    )
    assert first["value"] != second["value"]
    assert both["value"] == pytest.approx((first["value"] + second["value"]) / 2)
    assert both["base"] == pytest.approx((first["base"] + second["base"]) / 2)


@pytest.mark.parametrize(("better", "sign"), [("higher", 1), ("lower", -1)])
def test_less_is_worse_where_higher_is_better(better: str, sign: int) -> None:
    found = Comparison(n=9, difference=-0.3, low=-0.5, high=0.1, better=0.5, p=0.5)
    distance = choose_fast.distance(0.8, "psnr", 10.0, found, better)
    assert distance is not None
    assert distance.bands == pytest.approx(sign * 3)
    assert sorted([distance.low * sign, distance.high * sign]) == pytest.approx([-1, 5])
    assert distance.value == pytest.approx(9.7)


@pytest.mark.parametrize(
    ("bands", "low", "high", "off"),
    [(0.9, 0.5, 1.3, 0.9), (-1.4, -2.0, -0.8, 0.8), (-2.4, -3.2, -1.7, 1.7), (-0.3, -6.0, 4.0, -0.3)],
    ids=["worse", "better, perhaps by a band", "surely better by more", "either"],
)
def test_surely_better_is_off_too(bands: float, low: float, high: float, off: float) -> None:
    distance = choose_fast.Distance(0.8, "psnr", bands, low, high, 10.0, 10.0)
    assert distance.off == pytest.approx(off)


@pytest.mark.parametrize(
    ("text", "guided", "name", "evaluations"),
    [
        ("1", (0.0, 1.0), "unipc-5-guided-1", 11),
        ("0.8", (0.0, 0.8), "unipc-5-guided-0.8", 10),
        ("0.2-1", (0.2, 1.0), "unipc-5-guided-0.2-1", 10),
    ],
)
def test_guidance_may_begin_late_or_end_early(
    text: str, guided: tuple[float, float], name: str, evaluations: int
) -> None:
    assert choose_fast.window(text) == guided
    arguments = Namespace(solvers=["unipc"], steps=[5], guided=[guided], reuse=[0])
    [recipe] = choose_fast.candidates(arguments)
    assert (recipe.name, recipe.guidance_window) == (name, guided)
    assert choose_fast.evaluations(recipe) == evaluations


def test_the_cheapest_inside_comes_first_then_the_nearest() -> None:
    off = {"far": 3.0, "inside": 0.2, "cheap": 0.9, "near": 1.1}
    cost = {"far": 5, "inside": 25, "cheap": 13, "near": 7}
    assert choose_fast.ordered(off, cost) == ["cheap", "inside", "near", "far"]


@pytest.mark.parametrize(("metric", "band"), [("ssim", 0.01), ("ssim_truth", 0.01), ("psnr", 0.2)])
def test_a_band_is_absolute_for_ssim_alone(metric: str, band: float) -> None:
    assert choose_fast.band_of(metric, 20.0) == pytest.approx(band)


def test_one_picture_alone_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        _chosen(tmp_path, monkeypatch, "--limit", "1")
    assert "one picture has no interval; give 2 or more" in capsys.readouterr().err
