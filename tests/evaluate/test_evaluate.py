"""From a translated folder to figures."""

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import Result
from jsonschema import Draft202012Validator
from PIL import Image
from torchmetrics.functional.image import peak_signal_noise_ratio

from sdcorrect.cli.bench import EXAMPLES
from sdcorrect.evaluate import backbones, blip
from sdcorrect.evaluate.clip import Clip

Evaluate = Callable[..., Result]
DEFAULT = ["ssim", "psnr", "structure_distance", "clip_image", "clip_text"]


def table(out: Path) -> dict[tuple[str, str], dict[str, float]]:
    with (out / "evaluation.csv").open(newline="") as stream:
        return {
            (row.pop("variant"), row.pop("path")): {k: float(v or "nan") for k, v in row.items()}
            for row in csv.DictReader(stream)
        }


def figures(out: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((out / "evaluation.json").read_text())
    return content


def pixels(file: Path, size: int = 32) -> torch.Tensor:
    image = Image.open(file).convert("RGB").resize((size, size), Image.Resampling.LANCZOS)
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)[None] / 255


def test_every_picture_is_measured_in_every_variant(evaluate: Evaluate, folders: Any) -> None:
    result = evaluate()
    assert result.exit_code == 0, result.stderr
    rows = table(folders.out)
    assert set(rows) == {
        (variant, path)
        for variant in ("sdedit", "correct")
        for path in ("bicycle.png", "church.png", "sub/ghost.png")
    }
    assert all(list(values) == DEFAULT for values in rows.values())
    expected = peak_signal_noise_ratio(
        pixels(folders.out / "correct" / "church.png"),
        pixels(folders.pictures / "church.png"),
        data_range=1.0,
    )
    assert rows["correct", "church.png"]["psnr"] == pytest.approx(float(expected), rel=1e-5)
    assert "lpips was not measured" in result.stderr


def test_clip_compares_the_output_with_source_and_prompt(
    evaluate: Evaluate, folders: Any, networks: Path
) -> None:
    assert evaluate("--batch-size", 1).exit_code == 0
    clip = Clip(str(networks / "clip"))
    output = Image.open(folders.out / "correct" / "sub" / "ghost.png")
    source = Image.open(folders.pictures / "sub" / "ghost.png").resize((32, 32), 1)
    one, other = clip.images([output, source])
    text = clip.texts(["in 3d render style"])[0]
    values = table(folders.out)["correct", "sub/ghost.png"]
    assert values["clip_image"] == pytest.approx(float(one @ other), rel=1e-4)
    assert values["clip_text"] == pytest.approx(float(one @ text), rel=1e-4)


def test_the_json_is_of_its_schema_and_of_the_table(
    evaluate: Evaluate, folders: Any, sdcorrect: Callable[..., Result]
) -> None:
    assert evaluate("--base", "correct").exit_code == 0
    schema = json.loads(sdcorrect("schema", "evaluation").stdout)
    content = figures(folders.out)
    Draft202012Validator(schema).validate(content)
    rows = table(folders.out)
    own = [values["ssim"] for (variant, _), values in rows.items() if variant == "sdedit"]
    mean = content["variants"]["sdedit"]["metrics"]["ssim"]
    assert mean["mean"] == pytest.approx(np.mean(own), rel=1e-5)
    assert mean["low"] <= mean["mean"] <= mean["high"] and mean["n"] == 3
    assert content["base"] == "correct"
    assert content["variants"]["correct"]["against_base"] == {}
    base = [values["ssim"] for (variant, _), values in rows.items() if variant == "correct"]
    against = content["variants"]["sdedit"]["against_base"]["ssim"]
    assert against["difference"] == pytest.approx(np.mean(own) - np.mean(base), rel=1e-4)
    assert content["metrics"]["structure_distance"]["better"] == "lower"
    assert content["networks"].keys() == {"clip", "structure"}


def test_neither_batches_nor_what_is_left_out_change_a_value(evaluate: Evaluate, folders: Any) -> None:
    evaluate("--batch-size", 1)
    alone = table(folders.out)
    evaluate("--batch-size", 16, "--metrics", "clip_image,ssim")
    together = table(folders.out)
    for key, values in together.items():
        assert list(values) == ["clip_image", "ssim"]
        assert values == pytest.approx({name: alone[key][name] for name in values}, rel=1e-4)


def test_the_truth_is_compared_with_at_the_same_paths_whatever_the_suffix(
    evaluate: Evaluate, folders: Any, tmp_path: Path
) -> None:
    """The sources as the truth: to both the outputs must be equally near."""
    truth = shutil.copytree(folders.pictures, tmp_path / "truth")
    Image.open(truth / "church.png").save(truth / "church.bmp")
    (truth / "church.png").unlink()
    result = evaluate("--reference", truth)
    assert result.exit_code == 0, result.stderr
    for values in table(folders.out).values():
        for name in ("ssim", "psnr", "structure_distance", "clip_image"):
            assert values[f"{name}_truth"] == pytest.approx(values[name], rel=1e-4)
        assert "clip_text_truth" not in values


def test_a_truth_that_is_the_output_is_found_to_be_equal(evaluate: Evaluate, folders: Any) -> None:
    result = evaluate("--reference", folders.out / "correct", "--metrics", "psnr,ssim")
    assert result.exit_code == 0, result.stderr
    assert table(folders.out)["correct", "church.png"]["psnr_truth"] == float("inf")
    of_equals = figures(folders.out)["variants"]["correct"]["metrics"]["psnr_truth"]
    assert (of_equals["n"], of_equals["mean"], of_equals["not_finite"]) == (0, None, 3)
    assert "psnr_truth: 3 values are not finite" in result.stderr


def test_the_style_is_told_from_others(evaluate: Evaluate, folders: Any, networks: Path) -> None:
    assert evaluate("--other-style", "in flat design style").exit_code == 0
    clip = Clip(str(networks / "clip"))
    styles = clip.texts(["in 3d render style", "in flat design style"])
    for (variant, path), values in table(folders.out).items():
        near = clip.images([Image.open(folders.out / variant / path)]) @ styles.T
        assert values["style_accuracy"] == float(near.argmax() == 0)


def test_a_job_on_mini_is_measured_by_the_clip_that_comes_with_it(
    folders: Any, networks: Path, sdcorrect: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backbones, "MINI_CLIP", networks / "clip")
    assert sdcorrect("evaluate", folders.out).exit_code == 0
    used = figures(folders.out)["networks"]
    assert (used["clip"]["name"], used["structure"]["name"]) == ("mini", "mini")


def test_what_is_not_done_is_counted_and_told(evaluate: Evaluate, folders: Any) -> None:
    """One picture fails, one is new, one is gone since."""
    Image.open(EXAMPLES / "ghost.png").save(folders.pictures / "new.png")
    (folders.pictures / "bicycle.png").unlink()
    result = evaluate("--metrics", "ssim")
    assert result.exit_code == 0, result.stderr
    assert "not measured: 1 to do (sdedit, correct); run" in result.stderr
    assert "1 recorded (bicycle.png) is no longer among the inputs" in result.stderr
    assert figures(folders.out)["variants"]["correct"]["remaining"] == 1
    assert len(table(folders.out)) == 4


def test_results_go_where_they_are_asked_to(evaluate: Evaluate, folders: Any, tmp_path: Path) -> None:
    files = tmp_path / "a.csv", tmp_path / "a.json"
    assert evaluate("--metrics", "ssim", "--csv", files[0], "--results", files[1]).exit_code == 0
    assert all(file.is_file() for file in files)
    assert not (folders.out / "evaluation.csv").exists()


def test_programs_are_told_of_each_picture_that_is_measured(evaluate: Evaluate, folders: Any) -> None:
    result = evaluate("--metrics", "ssim", "--json")
    first, *others, last = map(json.loads, result.stdout.splitlines())
    assert (first["event"], first["pictures"], first["metrics"]) == ("started", 3, ["ssim"])
    assert {(event["event"], event["variant"]) for event in others} == {
        ("done", "sdedit"),
        ("done", "correct"),
    }
    rows = table(folders.out)
    assert len(others) == len(rows)
    for event in others:
        told = rows[event["variant"], event["input"]["path"]]
        assert event["metrics"] == pytest.approx(told, rel=1e-4)
    assert last == {"event": "ended", "exit_code": 0, "results": [str(folders.out / "evaluation.json")]}


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["-q", "-v"], "--quiet and --verbose: give only one"),
        (["--log-level", "loud"], "no such level"),
        (["--json", "--results"], "requires an argument"),
    ],
)
def test_as_much_is_printed_as_is_asked_for(
    evaluate: Evaluate, folders: Any, flags: list[str], message: str
) -> None:
    quiet = evaluate("--metrics", "ssim", "-q")
    assert (quiet.exit_code, quiet.stdout) == (0, "")
    refused = evaluate("--metrics", "ssim", *flags)
    assert refused.exit_code == 2 and message in refused.stderr


def test_the_papers_profile_puts_the_style_before_the_captions(
    evaluate: Evaluate, folders: Any, networks: Path
) -> None:
    result = evaluate("--profile", "paper", "--style", "cartoon style of ")
    assert result.exit_code == 0, result.stderr
    values = table(folders.out)["sdedit", "church.png"]
    assert list(values) == ["clip_image", "clip_text", "ssim"]
    clip = Clip(str(networks / "clip"))
    output = clip.images([Image.open(folders.out / "sdedit" / "church.png")])[0]
    text = clip.texts(["cartoon style of a church on a hill"])[0]
    assert values["clip_text"] == pytest.approx(float(output @ text), rel=1e-4)
    assert "but profile paper specifies openai/clip-vit-large-patch14" in result.stderr
    assert figures(folders.out)["style"] == "cartoon style of "


def test_captions_may_be_of_a_coco_file_or_written_by_blip(
    evaluate: Evaluate, folders: Any, networks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paper = ("--profile", "paper", "--metrics", "clip_text", "--style", "")
    names = ("bicycle.png", "church.png", "ghost.png")
    coco = {
        "images": [{"id": n, "file_name": name} for n, name in enumerate(names)],
        "annotations": [{"image_id": n, "caption": "a cat"} for n in range(3)],
    }
    file = tmp_path / "captions.json"
    file.write_text(json.dumps(coco))
    assert evaluate(*paper, "--captions", file).exit_code == 0
    of_coco = table(folders.out)
    monkeypatch.setattr("sdcorrect.evaluate.evaluator.BLIP", str(networks / "blip"))
    result = evaluate(*paper, "--captions", "blip")
    assert result.exit_code == 0, result.stderr
    assert all(table(folders.out)[key] != values for key, values in of_coco.items())
    assert figures(folders.out)["networks"]["blip"]["name"] == str(networks / "blip")


def test_blip_writes_captions_of_the_pictures(networks: Path, icon: Image.Image) -> None:
    from sdcorrect.models.sources import Finder

    writer = blip.Blip(str(networks / "blip"), device=torch.device("cpu"), finder=Finder())
    black = Image.new("RGB", (40, 30))
    captions = writer([icon, black])
    assert captions == [writer([icon])[0], writer([black])[0]]
    assert all(isinstance(caption, str) and caption for caption in captions)
