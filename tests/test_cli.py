"""The main job through the command line, on real pictures; and what goes wrong, in one line."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result
from PIL import Image

from sdcorrect import __version__

Run = Callable[..., Result]


def job_of(out: Path) -> dict:
    return json.loads((out / "job.json").read_text())


def files_of(out: Path) -> dict[str, bytes]:
    return {p.relative_to(out).as_posix(): p.read_bytes() for p in out.rglob("*.png")}


def test_a_folder_and_a_prompt_are_enough(translate: Run, pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = translate(pictures, "-o", out)
    assert result.exit_code == 0, result.output
    assert set(files_of(out)) == {f"correct/{name}.png" for name in ("bicycle", "church", "sub/ghost")}
    with Image.open(out / "correct" / "church.png") as picture:
        assert (picture.size, picture.mode) == ((32, 32), "RGB")
    assert "correct" in result.stdout
    assert str(out) in result.stdout.replace("\n", "")


def test_variants_are_folders_and_evaluations_are_counted(
    translate: Run, pictures: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    result = translate(
        pictures, "-o", out, "--set", "variants=[sdedit, correct]", "--steps", 4, "--strength", 0.75
    )
    assert result.exit_code == 0, result.output
    job = job_of(out)
    assert job["effective_steps"] == {"sdedit": 3, "correct": 3}
    assert job["unet_evaluations"]["sdedit"]["per_picture"] == 2 * 3
    assert job["unet_evaluations"]["correct"]["per_picture"] == 1 + 2 * 3
    assert job["job"]["prompt"] == "in 3d render style"
    files = files_of(out)
    assert files["sdedit/bicycle.png"] != files["correct/bicycle.png"]


def test_the_second_run_does_nothing_and_says_so(translate: Run, pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    translate(pictures, "-o", out)
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()}
    again = translate(pictures, "-o", out)
    assert again.exit_code == 0
    assert "nothing to do" in again.stdout
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_a_new_picture_alone_is_done(translate: Run, pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    translate(pictures, "-o", out)
    before = files_of(out)
    shutil.copy(pictures / "bicycle.png", pictures / "added.png")
    assert translate(pictures, "-o", out).exit_code == 0
    after = files_of(out)
    assert {name: after[name] for name in before} == before
    # a picture's result is that of its content and the job, whatever its name
    assert after["correct/added.png"] == after["correct/bicycle.png"]


def test_bytes_are_the_same_in_any_order_and_company(
    translate: Run, pictures: Path, tmp_path: Path
) -> None:
    together, alone = tmp_path / "together", tmp_path / "alone"
    translate(pictures, "-o", together, "--batch-size", 2)
    only = tmp_path / "only"
    only.mkdir()
    shutil.copy(pictures / "church.jpg", only / "zebra.jpg")
    translate(only, "-o", alone, "--batch-size", 2)
    assert files_of(together)["correct/church.png"] == files_of(alone)["correct/zebra.png"]


def test_the_seed_changes_the_pictures(translate: Run, pictures: Path, tmp_path: Path) -> None:
    for seed in (0, 1):
        translate(pictures, "-o", tmp_path / str(seed), "--seed", seed, "--limit", 1)
    first, second = (files_of(tmp_path / seed) for seed in ("0", "1"))
    assert list(first) == list(second) == ["correct/bicycle.png"]
    assert first != second


def test_another_job_in_the_same_folder_is_refused_until_overwrite(
    translate: Run, pictures: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    translate(pictures, "-o", out)
    before = files_of(out)
    refused = translate(pictures, "-o", out, "--seed", 5)
    assert refused.exit_code == 2
    assert "seed was 0 and is 5" in refused.stderr
    assert "--overwrite" in refused.stderr
    assert files_of(out) == before
    assert translate(pictures, "-o", out, "--seed", 5, "--overwrite").exit_code == 0
    assert files_of(out) != before
    assert job_of(out)["job"]["seed"] == 5


def test_a_variant_can_be_added_to_a_finished_job(
    translate: Run, pictures: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    translate(pictures, "-o", out, "--method", "sdedit")
    assert translate(pictures, "-o", out, "--set", "variants=[sdedit, correct]").exit_code == 0
    assert len(files_of(out)) == 6


def test_dry_run_touches_nothing(translate: Run, pictures: Path, tmp_path: Path) -> None:
    result = translate(pictures, "-o", tmp_path / "out", "--dry-run")
    assert result.exit_code == 0
    assert "would translate 3 pictures with correct" in result.stdout.replace("\n", " ")
    assert not (tmp_path / "out").exists()


def test_a_job_file_with_its_folder_beside_it(sdcorrect: Run, pictures: Path, tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text(
        "input: {path: pictures}\noutput: {path: out, format: jpg}\nprompt: flat design style\n"
        "steps: 2\nstrength: 1\nsize: 32\nmethod: sdedit\nlimit: 1\n"
    )
    assert sdcorrect("validate", tmp_path / "job.yaml").exit_code == 0
    assert sdcorrect("translate", "-c", tmp_path / "job.yaml").exit_code == 0
    with Image.open(tmp_path / "out" / "sdedit" / "bicycle.jpg") as picture:
        assert picture.format == "JPEG"


def test_an_unreadable_picture_fails_alone(translate: Run, pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    (pictures / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    result = translate(pictures, "-o", out)
    assert result.exit_code == 3
    assert "failed: broken.png (correct):" in result.stderr.replace("\n", "")
    assert len(files_of(out)) == 3
    records = [json.loads(line) for f in out.glob("records/*.jsonl") for line in f.open()]
    (failed,) = [record for record in records if record["status"] == "failed"]
    assert failed["input"]["path"] == "broken.png"
    assert failed["error"]
    assert job_of(out)["counts"]["correct"] == {"done": 3, "failed": 1}


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["{tmp}/none", "-o", "{tmp}/out"], "none: there is no such folder"),
        (["{tmp}/empty", "-o", "{tmp}/out"], "empty: it has no files; give a folder of pictures"),
        (["{tmp}/texts", "-o", "{tmp}/out"], "texts: none of its 1 files is a picture"),
        (["{pictures}", "-o", "{tmp}/out", "--set", "stpes=3"], "did you mean steps?"),
        (["{pictures}", "-o", "{tmp}/out", "--set", "size=big"], "size: should be a valid integer"),
        (
            ["{pictures}", "-o", "{tmp}/out", "--strength", "1.5"],
            "strength: should be less than or equal",
        ),
        (["{pictures}", "-o", "{tmp}/out", "--strength", "0"], "strength: should be greater than 0"),
        (["{pictures}", "-o", "{tmp}/out", "--strength", "0.1"], "is less than one step"),
        (["{pictures}", "-o", "{tmp}/out", "--method", "corrct"], "did you mean correct?"),
        (
            [
                "{pictures}",
                "-o",
                "{tmp}/out",
                "--set",
                "method={name: m, inversion: one-step, inject: [{tensor: skip, blocks: [9]}]}",
            ],
            "recipe m: block 9 of this U-Net has no skip; choose from blocks 0, 1, 2, 3, 4, 5, 6, 7, 8",
        ),
        (["{pictures}", "-o", "{tmp}/out", "--model", "./nowhere"], "model ./nowhere: there is no such"),
        (["{pictures}", "-o", "{tmp}/texts/a.txt/out"], "a.txt is a file; give a folder"),
        (["{pictures}"], "output: is missing; give -o DIR"),
    ],
)
def test_what_is_wrong_is_one_line(
    translate: Run, pictures: Path, tmp_path: Path, arguments: list[str], expected: str
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_text("no picture")
    filled = [argument.replace("{tmp}", str(tmp_path)) for argument in arguments]
    result = translate(*[argument.replace("{pictures}", str(pictures)) for argument in filled])
    assert result.exit_code in (1, 2)
    assert expected in result.stderr
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_debug_shows_the_traceback(translate: Run, tmp_path: Path) -> None:
    result = translate(tmp_path / "none", "-o", tmp_path / "out", "--debug")
    assert result.exit_code == 1
    assert "there is no such folder" in str(result.exception)


def test_validate_names_file_line_and_key(sdcorrect: Run, tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text("prompt: p\nstrenth: 2\n")
    result = sdcorrect("validate", tmp_path / "job.yaml")
    assert result.exit_code == 2
    assert "job.yaml:2: strenth: there is no such setting; did you mean strength?" in result.stderr


def test_validate_tells_all_files_that_are_missing(sdcorrect: Run, tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text(
        "prompt: '{caption}'\ninput: {path: photos, captions: words.json, classes: names.csv}\n"
        "mask: masks\noutput: {path: job.yaml}\nmodel: model.ckpt\nvae: owner/name\n"
        "loras: [loras/ink.safetensors]\ncontrolnets: [{path: owner/canny, hint: hints}]\n"
    )
    result = sdcorrect("validate", tmp_path / "job.yaml")
    assert result.exit_code == 2
    expected = (
        *("note: vae owner/name: ", "note: controlnet owner/canny: ", "job.yaml is a file"),
        *(
            "hints: there is no such folder",
            "masks: there is no such folder",
            "photos: there is no such",
        ),
        *("words.json: cannot be", "names.csv: cannot be", "model model.ckpt: there is no such"),
        "lora loras/ink.safetensors: there is no such",
    )
    for line, told in zip(result.stderr.splitlines(), expected, strict=True):
        assert told in line


def test_validate_takes_files_that_are_there(sdcorrect: Run, pictures: Path, tmp_path: Path) -> None:
    (tmp_path / "ink.safetensors").touch()
    (tmp_path / "model").mkdir()
    job = tmp_path / "job.yaml"
    job.write_text(
        "prompt: a\ninput: {path: pictures}\noutput: {path: out}\nmodel: model\n"
        "loras: [ink.safetensors]\n"
    )
    result = sdcorrect("validate", job)
    assert (result.exit_code, result.stderr) == (0, "")
    assert "a valid job (correct" in result.stdout


def test_recipes_and_version(sdcorrect: Run) -> None:
    listing = sdcorrect("recipes")
    assert listing.exit_code == 0
    for name in ("sdedit", "correct", "all: the authors' name for correct"):
        assert name in listing.stdout
    # in the 80 columns of a pipe
    assert max(map(len, listing.stdout.splitlines())) <= 80
    assert "…" not in listing.stdout
    for words in ("A full inversion and a source prompt", "paper", "follows", "checked"):
        assert words in listing.stdout
    assert sdcorrect("--version").stdout == f"sdcorrect {__version__}\n"


def test_an_output_folder_without_permission_is_one_line(
    translate: Run, pictures: Path, tmp_path: Path
) -> None:
    # root may write anywhere, but nobody may write into a file system that holds no files
    place = Path("/proc/sdcorrect") if os.geteuid() == 0 else tmp_path / "closed" / "out"
    if os.geteuid() != 0:
        place.parent.mkdir(mode=0o500)
    result = translate(pictures, "-o", place)
    assert result.exit_code == 1
    assert "cannot be written" in result.stderr
    assert result.stderr.count("\n") == 1
