"""What is wrong with a job's pictures is told before its model is looked for, in one line."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result
from PIL import Image

Run = Callable[..., Result]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A picture, and much that is none where files are expected."""
    folder = tmp_path / "in"
    folder.mkdir()
    Image.new("RGB", (32, 32)).save(folder / "a.png")
    (folder / "empty").mkdir()
    (folder / "hints").mkdir()
    (folder / "empty.txt").touch()
    (folder / "bad.csv").write_text("path\n..\n")
    for name in ("fifo.txt", "fifo.csv", "fifo.jsonl", "fifo.json", "fifo.yaml"):
        os.mkfifo(folder / name)
    (folder / "zero.txt").symlink_to("/dev/zero")
    return folder


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["none"], "none: there is no such folder or file"),
        (["none.txt"], "none.txt: there is no such folder or file"),
        (["empty"], "empty: it has no files"),
        (["*.tif"], "it has no files"),
        (["empty.txt"], "empty.txt: the list is empty"),
        (["bad.csv"], "bad.csv:2: path: does not name a file"),
        (["fifo.txt"], "fifo.txt: cannot read the list: it is not a file"),
        (["fifo.csv"], "fifo.csv: cannot read the list: it is not a file"),
        (["fifo.jsonl"], "fifo.jsonl: cannot read the list: it is not a file"),
        (["zero.txt"], "zero.txt: cannot read the list: it is not a file"),
        ([""], "input.path: is empty; is a shell variable unset?"),
        ([" "], "input.path: is empty"),
        (["a.png", "--output="], "output.path: is empty"),
        (["a.png", "--output=a.png"], "output.path: a.png is a file; give a folder"),
        (["a.png", "--output=a.png/out"], "output.path: a.png is a file; give a folder"),
        (["a.png", "--lora", "a.png:abc"], "--lora: a.png:abc: the weight 'abc' is no number"),
        (["a.png", "--lora", "a.png:0,7"], "the weight '0,7' is no number; write a.png:0.7"),
        (["a.png", "--lora", "a.png:"], "the weight '' is no number"),
        (["a.png", "-c", "fifo.yaml"], "fifo.yaml: cannot read the job: it is not a file"),
        (["a.png", "-c", "/dev/zero"], "/dev/zero: cannot read the job: it is not a file"),
        (["a.png", "-c", ""], "--config: is empty; is a shell variable unset?"),
        (["a.png", "-c", "$UNSET_9/j.yaml"], "the variable $UNSET_9 is not set"),
        (["$UNSET_9/a.png"], "input.path: $UNSET_9/a.png: the variable $UNSET_9 is not set"),
        (["a.png", "--set", "input.captions=fifo.json"], "fifo.json: cannot be read: it is not a file"),
        (["a.png", "--set", "input.classes=fifo.yaml"], "fifo.yaml: cannot be read: it is not a file"),
        (["a.png", "--set", "input.classes=zero.txt"], "zero.txt: cannot be read: it is not a file"),
        (
            ["a.png", "--set", "controlnets=[{path: x, hint: none}]"],
            "hint none: there is no such",
        ),
        (["a.png", "--set", "controlnets=[{path: x, hint: hints}]"], "hint hints: the folder is empty"),
        (["a.png", "--num-shards", "2"], "--num-shards and --shard-index belong together"),
        (["a.png", "--num-shards", "2", "--shard-index", "2"], "shard index 2 of 2 shards"),
    ],
)
def test_it_is_told_although_the_model_is_wrong_too(
    translate: Run,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    expected: str,
) -> None:
    monkeypatch.chdir(folder)
    began = time.monotonic()
    output = [] if any(a.startswith("--output=") for a in arguments) else ["-o", "out"]
    result = translate("--model", "./nowhere", *output, *arguments)
    assert result.exit_code == 2
    assert expected in result.stderr
    assert result.stderr.startswith("error: ") and result.stderr.count("\n") == 1
    assert not (folder / "out").exists()
    assert time.monotonic() - began < 20


@pytest.mark.parametrize("command", [["dissect"], ["bench", "--recipes", "sdedit"]])
def test_other_commands_look_at_the_pictures_first_too(
    sdcorrect: Run, folder: Path, monkeypatch: pytest.MonkeyPatch, command: list[str]
) -> None:
    monkeypatch.chdir(folder)
    given = [*command, "-p", "x", "--model", "./nowhere"]
    for path, expected in (
        ("none", "no such folder"),
        ("", "is empty"),
        ("fifo.txt", "it is not a file"),
    ):
        result = sdcorrect(*given, path)
        assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
        assert expected in result.stderr


def test_torch_is_not_waited_for(folder: Path) -> None:
    script = (
        "import sys\n"
        "from sdcorrect.cli import app\n"
        "try: app(['translate', 'empty', '-o', 'out', '-p', 'x'])\n"
        "except SystemExit as end: assert end.code == 2\n"
        "assert 'torch' not in sys.modules\n"
    )
    result = subprocess.run([sys.executable, "-c", script], cwd=folder, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_a_caption_that_is_a_fifo_fails_its_picture_alone(translate: Run, folder: Path) -> None:
    Image.new("RGB", (32, 32)).save(folder / "b.png")
    (folder / "b.txt").write_text("a bee")
    os.mkfifo(folder / "a.txt")
    result = translate(folder, "-o", folder / "out", "-p", "{caption}", "--method", "sdedit")
    assert result.exit_code == 3
    assert "failed: a.png (sdedit): its caption a.txt cannot be read: it is not a file" in result.stderr
    assert (folder / "out" / "sdedit" / "b.png").is_file()
