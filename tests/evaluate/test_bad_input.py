"""What evaluate cannot work with is one clear line each."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import Result
from PIL import Image

Evaluate = Callable[..., Result]


def complaint(result: Result) -> str:
    assert result.exit_code in (1, 2), result.stdout
    assert len(result.stderr.splitlines()) == 1
    assert "Traceback" not in result.stderr
    return result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--metrics", "ssmi"], "no such metric; did you mean ssim?"),
        (["--profile", "papers"], "there is no such profile; did you mean paper?"),
        (["--base", "pnp"], "is none of the variants there: sdedit, correct"),
        (["--reference", "nowhere"], "--reference nowhere: there is no such folder"),
        (["--reference", __file__], "is a file; give the folder"),
        (["--metrics", "style_accuracy"], "--other-style"),
        (["--metrics", "lpips"], "metric lpips needs"),
        (["--clip", "nobody/nothing", "--offline"], "`hf download nobody/nothing --include"),
        (["--structure", "nobody/nothing", "--offline"], "`hf download nobody/nothing --include"),
        (["--clip", "nowhere"], "there is no such file or folder"),
        (["--profile", "paper"], "--style 'cartoon style of '"),
        (["--profile", "pie-bench"], "need edit masks: give --masks"),
        (["--device", "abacus"], "there is no device 'abacus'; give auto, cpu"),
    ],
)
def test_wrong_options(
    evaluate: Evaluate,
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    assert message in complaint(evaluate(*arguments))


def test_results_that_cannot_be_written(evaluate: Evaluate, folders: Any) -> None:
    file = folders.out / "job.json" / "evaluation.csv"
    result = evaluate("--metrics", "ssim", "--csv", file)
    assert result.exit_code == 1
    assert "evaluation.csv: cannot be written: " in result.stderr.splitlines()[-1]


def test_absent_lpips_names_the_command_that_brings_it(
    evaluate: Evaluate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    message = complaint(evaluate("--metrics", "ssim,lpips"))
    assert "`pip install torchvision`" in message or "`python -c" in message


def test_folders_that_are_no_output(evaluate: Evaluate, folders: Any) -> None:
    shutil.rmtree(folders.out / "records")
    assert "has no records" in complaint(evaluate())
    (folders.out / "job.json").unlink()
    assert "no job.json; give an output folder" in complaint(evaluate())
    shutil.rmtree(folders.out)
    assert "no job.json; give an output folder" in complaint(evaluate())


def test_outputs_that_no_record_tells_of(evaluate: Evaluate, folders: Any) -> None:
    shutil.copy(folders.out / "correct" / "church.png", folders.out / "correct" / "chapel.png")
    assert "1 output in it (correct/chapel.png) is without a record" in complaint(evaluate())


def test_outputs_that_are_not_there(evaluate: Evaluate, folders: Any) -> None:
    (folders.out / "correct" / "church.png").unlink()
    (folders.out / "sdedit" / "church.png").unlink()
    message = complaint(evaluate())
    assert "2 outputs in the records (correct/church.png, sdedit/church.png) are missing" in message
    assert "run sdcorrect translate again" in message


def test_outputs_of_another_size_than_recorded(evaluate: Evaluate, folders: Any) -> None:
    Image.new("RGB", (48, 32)).save(folders.out / "correct" / "church.png")
    assert "church.png: is 48x32 px, but 32x32 px by its record" in complaint(evaluate())


def test_outputs_that_cannot_be_read(evaluate: Evaluate, folders: Any) -> None:
    file = folders.out / "correct" / "church.png"
    file.write_bytes(file.read_bytes()[:500])
    assert "church.png: damaged or not decodable" in complaint(evaluate())


def test_sources_that_have_changed(evaluate: Evaluate, folders: Any) -> None:
    Image.new("RGB", (64, 64)).save(folders.pictures / "church.png")
    assert "church.png: has changed since it was translated" in complaint(evaluate())


def test_references_that_are_missing(evaluate: Evaluate, folders: Any, tmp_path: Path) -> None:
    truth = shutil.copytree(folders.pictures, tmp_path / "truth")
    (truth / "church.png").unlink()
    message = complaint(evaluate("--reference", truth))
    assert "no picture for 1 of 3 pictures (church.png); add them" in message
    for name in ("bicycle", "sub/ghost"):
        (truth / f"{name}.png").rename(truth / f"{name}-true.png")
    assert "found at the same relative paths" in complaint(evaluate("--reference", truth))


def test_references_of_another_size(evaluate: Evaluate, folders: Any, tmp_path: Path) -> None:
    truth = shutil.copytree(folders.pictures, tmp_path / "truth")
    Image.new("RGB", (48, 40)).save(truth / "church.png")
    message = complaint(evaluate("--reference", truth))
    assert "church.png: is 48x40 px, but its output is 32x32 px and its source 128x128 px" in message


def test_two_references_for_one_picture(evaluate: Evaluate, folders: Any, tmp_path: Path) -> None:
    truth = shutil.copytree(folders.pictures, tmp_path / "truth")
    for suffix in ("bmp", "webp"):
        Image.new("RGB", (32, 32)).save(truth / f"church.{suffix}")
    (truth / "church.png").unlink()
    assert "church.bmp, church.webp all match church.png; keep one" in complaint(
        evaluate("--reference", truth)
    )


def test_captions_that_are_missing(evaluate: Evaluate, folders: Any) -> None:
    (folders.pictures / "church.txt").unlink()
    message = complaint(evaluate("--profile", "paper", "--style", ""))
    assert "no caption for 1 of 3 pictures (church.png)" in message and "--captions blip" in message


def test_masks_that_are_missing(evaluate: Evaluate, folders: Any, tmp_path: Path) -> None:
    masked = ("--profile", "pie-bench", "--metrics", "psnr_unedited", "--masks")
    masks = shutil.copytree(folders.pictures, tmp_path / "masks")
    (masks / "church.png").unlink()
    assert "no picture for 1 of 3 pictures (church.png)" in complaint(evaluate(*masked, masks))
    mapping = tmp_path / "mapping_file.json"
    mapping.write_text(json.dumps({"1": {"image_path": "church.jpg", "mask": [0, 9]}}))
    assert "no mask for 2 of 3 pictures (bicycle.png, " in complaint(evaluate(*masked, mapping))
    mapping.write_text("[]")
    assert "not PIE-Bench's mapping file" in complaint(evaluate(*masked, mapping))


def test_networks_of_another_kind(evaluate: Evaluate, networks: Path) -> None:
    assert "is a vit; expected a clip" in complaint(evaluate("--clip", networks / "vit"))
    expected = "is a blip; expected a clip or a vision-text-dual-encoder or a vit"
    assert expected in complaint(evaluate("--structure", networks / "blip"))


def test_networks_that_are_not_whole(evaluate: Evaluate, networks: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    broken = shutil.copytree(networks / "clip", tmp_path / "clip")
    tensors: dict[str, torch.Tensor] = load_file(broken / "model.safetensors")
    del tensors["text_projection.weight"]
    save_file(tensors, broken / "model.safetensors", {"format": "pt"})
    assert "weights are missing: text_projection.weight" in complaint(evaluate("--clip", broken))
    shutil.copy(networks / "clip" / "model.safetensors", broken)
    (broken / "tokenizer.json").unlink()
    (broken / "preprocessor_config.json").unlink()
    assert "tokenizer or preprocessor is missing" in complaint(evaluate("--clip", broken))
