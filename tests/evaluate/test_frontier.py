"""Curves over strengths, and what they dominate."""

import json
import os
import shutil
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result
from jsonschema import Draft202012Validator
from matplotlib.axes import Axes
from PIL import Image

from sdcorrect.evaluate.frontier import area_under
from sdcorrect.evaluate.frontier_plot import draw
from sdcorrect.evaluate.results import Frontier, Plane, Point

Run = Callable[..., Result]


def area(*points: tuple[float, float]) -> float:
    styles, kept = np.array(points).T
    return area_under(styles, kept)


def test_a_point_dominates_a_rectangle_and_a_line_what_lies_under_it() -> None:
    assert area((0.5, 0.4)) == pytest.approx(0.2)
    assert area((1, 1)) == pytest.approx(1)
    assert area((0, 1), (1, 0)) == pytest.approx(0.5, abs=0.02)
    assert area((0, 1), (1, 1)) == pytest.approx(1)
    # left of its weakest strength a curve has what it has there
    assert area((0.5, 0.8), (1, 0)) == pytest.approx(0.5 * 0.8 + 0.2, abs=0.02)


def test_what_is_dominated_adds_nothing_and_order_does_not_matter() -> None:
    curve = (0.0, 1.0), (0.6, 0.7), (1.0, 0.2)
    assert area(*curve) == pytest.approx(area(*curve[::-1]))
    assert area((0.6, 0.7), (0.3, 0.1)) == pytest.approx(area((0.6, 0.7)))
    assert area(*curve) > area(*curve[1:]) > area(*curve[2:])


def drawn(variants: int, strengths: Sequence[float]) -> Axes:
    curves = {
        f"v{number}": [
            Point(folder="out", strength=s, means={"clip": s + number / 300, "ssim": 1 - s / 2})
            for s in strengths
        ]
        for number in range(variants)
    }
    between = {"least_style": 0, "most_style": 1, "least_kept": 0, "most_kept": 1}
    planes = [Plane(style="clip", kept="ssim", areas={}, **between)]
    written = {"sdcorrect": "0", "written": datetime.now(), "pictures": 1, "left_out": 0, "base": "v0"}
    (panel,) = draw(Frontier(**written, curves=curves, planes=planes)).axes
    return panel


@pytest.mark.parametrize("strengths", [(0.5,), (0.5, 1.0)])
def test_no_two_of_many_variants_look_alike(strengths: Sequence[float]) -> None:
    lines = drawn(30, strengths).lines
    looks = {(line.get_color(), line.get_marker()) for line in lines}
    assert len(looks) == len(lines) == 30
    assert len({line.get_color() for line in lines[:8]}) == 8


def test_strengths_are_written_beside_their_points_and_over_nothing() -> None:
    panel = drawn(4, (0.5, 0.7, 1.0))
    boxes = [label.get_window_extent() for label in panel.texts]
    points = [point for line in panel.lines for point in panel.transData.transform(line.get_xydata())]
    assert len(boxes) == 2 * 4
    for number, box in enumerate(boxes):
        assert panel.bbox.contains(*box.min) and panel.bbox.contains(*box.max)
        assert not box.count_overlaps(boxes[:number])
        assert not any(box.contains(*point) for point in points)


@pytest.fixture(scope="session")
def _strengths(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("strengths") / "kept"


@pytest.fixture
def strengths(folders: Any, translate: Run, tmp_path: Path, _strengths: Path) -> list[Path]:
    """The same job at three strengths, the last of them with a variant of its own; made once."""
    outs = [tmp_path / "curves" / name for name in ("0.5", "1", "inverted")]
    if _strengths.is_dir():
        shutil.copytree(_strengths, tmp_path / "curves")
        return outs
    variants = ("[sdedit, correct]", "[sdedit, correct]", "[ddim]")
    for out, strength, chosen in zip(outs, (0.5, 1, 1), variants, strict=True):
        settings = ("--set", "size=32", "--set", f"variants={chosen}", "--strength", strength)
        result = translate(folders.pictures, "-o", out, *settings)
        assert result.exit_code == 0, result.stderr
    shutil.copytree(tmp_path / "curves", _strengths)
    return outs


@pytest.fixture
def measured(sdcorrect: Run, networks: Path) -> Run:
    return lambda *arguments: sdcorrect("evaluate", "--clip", networks / "clip", *arguments)


def test_several_folders_become_curves_areas_and_a_plot(
    measured: Run, sdcorrect: Run, strengths: list[Path], folders: Any
) -> None:
    result = measured("--frontier", *strengths, "--reference", folders.pictures)
    assert result.exit_code == 0, result.stderr
    content = json.loads((strengths[0].parent / "frontier.json").read_text())
    Draft202012Validator(json.loads(sdcorrect("schema", "frontier").stdout)).validate(content)
    assert {name: [p["strength"] for p in curve] for name, curve in content["curves"].items()} == {
        "sdedit": [0.5, 1],
        "correct": [0.5, 1],
        "ddim": [1],
    }
    assert [(plane["kept"], plane["style"]) for plane in content["planes"]] == [
        ("ssim_truth", "clip_text"),
        ("structure_distance_truth", "clip_text"),
    ]
    assert (content["pictures"], content["left_out"], content["base"]) == (3, 0, "sdedit")
    for out in strengths:
        of_folder = json.loads((out / "evaluation.json").read_text())["variants"]
        for variant, found in of_folder.items():
            (point,) = (p for p in content["curves"][variant] if p["folder"] == str(out))
            for metric, mean in point["means"].items():
                assert mean == pytest.approx(found["metrics"][metric]["mean"])
    for plane in content["planes"]:
        for variant, found in plane["areas"].items():
            assert 0 <= found["low"] <= found["high"] <= 1
            assert (found["difference"] is None) == (variant == "sdedit")
    with Image.open(strengths[0].parent / "frontier.png") as plot:
        assert plot.format == "PNG"
    assert "ssim_truth over clip_text" in result.stdout
    _plot_tells_the_same_again(sdcorrect, strengths, content)


def _plot_tells_the_same_again(sdcorrect: Run, strengths: list[Path], content: Any) -> None:
    """From the folder of the folders, to another file, without a network."""
    figure = strengths[0].parent.parent / "figure.pdf"
    result = sdcorrect("plot", strengths[0].parent, "-o", figure)
    assert result.exit_code == 0, result.stderr
    assert figure.read_bytes().startswith(b"%PDF")
    again = json.loads(figure.with_suffix(".json").read_text())
    assert again["curves"].keys() == content["curves"].keys()
    for ours, theirs in zip(again["planes"], content["planes"], strict=True):
        for variant, found in theirs["areas"].items():
            assert ours["areas"][variant]["area"] == pytest.approx(found["area"], abs=1e-3)


def test_one_evaluated_folder_is_a_plot_of_points(evaluate: Run, sdcorrect: Run, folders: Any) -> None:
    assert evaluate().exit_code == 0
    result = sdcorrect("plot", folders.out)
    assert result.exit_code == 0, result.stderr
    assert "3 pictures, one folder" in result.stdout
    assert "not evaluated" not in result.stderr
    file = folders.out / "evaluation.json"
    found = json.loads(file.read_text())
    del found["variants"]["correct"]
    file.write_text(json.dumps(found))
    csv = folders.out / "evaluation.csv"
    kept = [line for line in csv.read_text().splitlines() if not line.startswith("correct,")]
    csv.write_text("".join(f"{line}\n" for line in kept))
    told = sdcorrect("plot", folders.out)
    assert told.exit_code == 0, told.stderr
    assert f"not evaluated: correct; run sdcorrect evaluate {folders.out}" in told.stderr
    _is_made_later(folders.out, csv, "church.png")
    told = sdcorrect("plot", folders.out)
    assert f"not evaluated: correct; 1 new picture; run sdcorrect evaluate {folders.out}" in told.stderr
    with Image.open(folders.out / "frontier.png") as plot:
        assert plot.format == "PNG"


def _is_made_later(out: Path, csv: Path, picture: str) -> None:
    """As if `picture` had been added to the job since `csv` was written."""
    csv.write_text("".join(line for line in csv.open() if f",{picture}," not in line))
    file = out / "records" / "0-of-1.jsonl"
    records = [json.loads(line) for line in file.open()]
    for record in records:
        if record["input"]["path"] == picture:
            record["finished"] = "2999-01-01T00:00:00Z"
    file.write_text("".join(f"{json.dumps(record)}\n" for record in records))


def test_what_cannot_be_plotted_is_one_line(
    evaluate: Run, sdcorrect: Run, folders: Any, tmp_path: Path
) -> None:
    def refused(message: str, *arguments: object) -> None:
        result = sdcorrect("plot", *arguments)
        assert result.exit_code == 2, result.output
        assert message in result.stderr and result.stderr.count("\n") == 1

    refused("was not evaluated; run sdcorrect evaluate", folders.out)
    refused("no output folder in it was evaluated; run sdcorrect evaluate", folders.out.parent)
    refused("there is no such folder", tmp_path / "none")
    refused("no job.json in it", folders.pictures)
    refused("ends in .png, .pdf, .svg", folders.out, "-o", tmp_path / "figure.jpg")
    assert evaluate("--metrics", "ssim,psnr").exit_code == 0
    refused("curves need clip_text or style_accuracy", folders.out)
    assert evaluate().exit_code == 0
    csv = folders.out / "evaluation.csv"
    whole = csv.read_text()
    csv.write_text(whole.replace("psnr", "lpips", 1))
    refused("has other columns than evaluation.json", folders.out)
    csv.write_text(whole)
    os.utime(csv, (0, 0))
    refused("is older than the output of", folders.out)
    (folders.out / "evaluation.json").write_text("{}")
    refused("was not written by this version of sdcorrect", folders.out)


def test_a_picture_that_is_missing_somewhere_counts_nowhere(
    measured: Run, strengths: list[Path]
) -> None:
    records = strengths[1] / "records" / "0-of-1.jsonl"
    kept = [line for line in records.read_text().splitlines() if '"church.png"' not in line]
    records.write_text("".join(f"{line}\n" for line in kept))
    for variant in ("sdedit", "correct"):
        (strengths[1] / variant / "church.png").unlink()
    result = measured("--frontier", *strengths)
    assert result.exit_code == 0, result.stderr
    assert "note: 1 picture is left out, which some variants lack" in result.stderr
    content = json.loads((strengths[0].parent / "frontier.json").read_text())
    assert (content["pictures"], content["left_out"]) == (2, 1)
    kept = [line for line in kept if '"variant": "correct"' not in line]
    records.write_text("".join(f"{line}\n" for line in kept))
    shutil.rmtree(strengths[1] / "correct")
    result = measured("--frontier", *strengths, "--metrics", "ssim,clip_text")
    assert result.exit_code == 2
    assert f"and {strengths[1]}/correct has none; `sdcorrect status` tells what" in result.stderr


def test_what_is_no_curve_is_one_line(
    measured: Run, translate: Run, strengths: list[Path], folders: Any, tmp_path: Path
) -> None:
    half, whole, _ = strengths
    same = shutil.copytree(half, tmp_path / "same")
    other = tmp_path / "other"
    settings = ("--set", "size=32", "--set", "variants=[sdedit]", "--strength", 0.5)
    translate(folders.pictures, "-o", other, *settings, "--seed", 3, "--strength", 0.75)
    for arguments, message in (
        ((half, whole), "2 output folders: give one, or add --frontier"),
        (("--frontier", half), "give two or more output folders"),
        (("--frontier", half, half), "give two or more output folders"),
        (("--frontier", half, whole, "--csv", tmp_path / "all.csv"), "are for one folder"),
        (("--frontier", half, same), "both have sdedit at strength 0.5; give each strength once"),
        (("--frontier", half, other), "differ in seed (0, 3); a curve needs one job"),
        (("--frontier", half, whole, "--metrics", "ssim,psnr"), "curves need clip_text or"),
    ):
        result = measured(*arguments)
        assert result.exit_code == 2, (arguments, result.output)
        assert message in " ".join(result.stderr.split()) and result.stderr.count("\n") == 1
    assert not (tmp_path / "curves" / "frontier.json").exists()
