"""Outputs that cannot have their names, and what earlier runs have left under them."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

Command = Callable[..., Result]


def statuses(out: Path) -> dict[str, str]:
    """The status of each picture by its last record."""
    lines = [json.loads(line) for file in out.glob("records/*.jsonl") for line in file.open()]
    return {line["input"]["path"]: line["status"] for line in lines}


def folder_in_the_way(out: Path, pictures: Path) -> str:
    (out / "correct" / "bicycle.png").mkdir(parents=True)
    return "bicycle.png"


def file_in_the_way(out: Path, pictures: Path) -> str:
    (out / "correct").mkdir(parents=True)
    (out / "correct" / "sub").write_text("no folder")
    return "sub/ghost.png"


def path_too_long(out: Path, pictures: Path) -> str:
    """The input can be opened, from a folder near it; its output's path is over the system's limit."""
    limit = os.pathconf("/", "PC_PATH_MAX")
    names: list[str] = []
    while len("/".join([str(pictures), *names])) < limit - 210:
        names.append("n" * 200)
    key = "/".join([*names, "a.png"])
    here = os.open(pictures, os.O_RDONLY)
    for name in names:
        os.mkdir(name, dir_fd=here)
        here = os.open(name, os.O_RDONLY, dir_fd=here)
    with open(pictures / "bicycle.png", "rb") as stream:
        content = stream.read()
    with open("a.png", "wb", opener=lambda path, flags: os.open(path, flags, dir_fd=here)) as copy:
        copy.write(content)
    return key


@pytest.mark.parametrize("obstacle", [folder_in_the_way, file_in_the_way, path_too_long])
def test_a_name_that_cannot_be_had_fails_its_picture_alone(
    translate: Command,
    pictures: Path,
    tmp_path: Path,
    obstacle: Callable[[Path, Path], str],
) -> None:
    out = tmp_path / ("out" + "o" * 230)  # a longer path than that of the pictures
    key = obstacle(out, pictures)
    result = translate(pictures, "-o", out)
    assert result.exit_code == 3, result.output
    found = statuses(out)
    assert found.pop(key) == "failed"
    assert set(found.values()) == {"done"} and len(found) >= 2
    (failure,) = [line for line in result.stderr.splitlines() if line.startswith("failed: ")]
    assert "cannot be written: " in failure
    assert not list(out.rglob("*.tmp"))


def test_metadata_too_long_for_jpeg_fails_its_picture_alone(
    translate: Command, pictures: Path, tmp_path: Path
) -> None:
    (pictures / "bicycle.txt").write_text("word " * 7000)
    (pictures / "church.txt").write_text("church")
    (pictures / "sub" / "ghost.txt").write_text("ghost")
    out = tmp_path / "out"
    result = translate(pictures, "-o", out, "-p", "{caption}", "--set", "output.format=jpg")
    assert result.exit_code == 3, result.output
    assert statuses(out) == {"bicycle.png": "failed", "church.jpg": "done", "sub/ghost.png": "done"}
    assert "cannot be written as jpg: EXIF data is too long" in result.stderr


def test_a_picture_that_fails_now_leaves_no_output_of_before(
    translate: Command,
    sdcorrect: Command,
    pictures: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    out = tmp_path / "out"
    translate(pictures, "-o", out)
    output = out / "correct" / "bicycle.png"
    assert output.is_file()
    (pictures / "bicycle.png").write_bytes(b"no picture any more")
    result = translate(pictures, "-o", out)
    assert result.exit_code == 3
    assert not output.exists()
    assert f"{output}: removed, because it came from an earlier run" in caplog.text
    assert json.loads((out / "job.json").read_text())["counts"] == {"correct": {"done": 2, "failed": 1}}
    assert sdcorrect("merge", out).exit_code == 3


def test_a_picture_that_is_gone_is_told_and_counts_nowhere(
    translate: Command, sdcorrect: Command, pictures: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    translate(pictures, "-o", out)
    shutil.copy(pictures / "church.jpg", pictures / "a.jpg")
    (pictures / "bicycle.png").unlink()
    told = "1 output comes from pictures that the job no longer covers: correct/bicycle.png"
    for arguments in ((), ("--overwrite",)):
        result = translate(pictures, "-o", out, *arguments)
        assert result.exit_code == 0
        assert told in " ".join(result.stderr.split())
        counts = json.loads((out / "job.json").read_text())["counts"]
        assert counts == {"correct": {"done": 3, "failed": 0}}
    # the records of the picture are gone, too: nothing speaks of it any more
    translate(pictures, "-o", out)
    merged = sdcorrect("merge", out)
    assert merged.exit_code == 0 and "3 done" in merged.stdout
    assert "3" in sdcorrect("status", out).stdout


def test_an_output_whose_name_changes_is_told_under_the_name_before(
    translate: Command, pictures: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    out = tmp_path / "out"
    translate(pictures, "-o", out)
    before = (out / "correct" / "bicycle.png").read_bytes()
    shutil.copy(pictures / "church.jpg", pictures / "bicycle.jpg")  # now both keep their own suffixes
    assert translate(pictures, "-o", out).exit_code == 0
    assert (out / "correct" / "bicycle.png.png").read_bytes() == before
    assert f"{out}/correct/bicycle.png: is the output of bicycle.png under another name" in caplog.text


def test_an_earlier_output_in_the_way_of_a_folder_fails_what_is_in_it_alone(
    translate: Command, pictures: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    translate(pictures, "-o", out)
    (pictures / "church.png").mkdir()
    shutil.copy(pictures / "bicycle.png", pictures / "church.png" / "b.png")
    assert translate(pictures, "-o", out).exit_code == 3
    assert statuses(out) == {
        "bicycle.png": "done",
        "church.jpg": "done",
        "church.png/b.png": "failed",
        "sub/ghost.png": "done",
    }
