"""What is printed: names as they are, plain lines in logs, and nothing into a closed pipe."""

import fcntl
import logging
import os
import pty
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from sdcorrect.cli import judge, progress
from sdcorrect.cli.console import MOST_ALIKE, _Lines, verbosity
from sdcorrect.evaluate.leaderboard import METRICS, Board

Run = Callable[..., Result]
COMMAND = (sys.executable, "-c", "from sdcorrect.cli import app; app()")
QUICK = ("-p", "x", "--steps", "2", "--strength", "1", "--set", "size=32", "--method", "sdedit")
EXAMPLE = Path(__file__).parents[2] / "sdcorrect" / "assets" / "pictures" / "church.png"
#: What rich takes for styles, for errors in styles, and for the names of emoji.
MARKED = ["out [final]", "a[/b]", "[red]", "[/]", ":cat:", "[link=x]y", "\\[z]"]


@pytest.mark.parametrize("name", ["out [final]", "a[/b]", ":cat:"])
def test_names_are_printed_as_they_are(
    translate: Run, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (pictures / f"{Path(name).name}.png").write_bytes(b"no picture")
    result = translate(pictures, "-o", name, "--method", "sdedit", "--limit", 9)
    assert result.exit_code == 3
    assert f"pictures: {name}/<variant>/" in result.stdout
    assert f"failed: {Path(name).name}.png (sdedit): " in result.stderr
    dry = translate(pictures, "-o", name, "--dry-run")
    assert f"with correct into {name}\n" in dry.stdout


@pytest.mark.parametrize("name", MARKED)
def test_names_in_errors_and_of_other_commands(
    sdcorrect: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    job = Path(f"{name}.yaml")
    job.parent.mkdir(exist_ok=True)
    job.write_text(f"input: {{path: {EXAMPLE}}}\noutput: {{path: out}}\nprompt: p\n")
    assert sdcorrect("validate", job).stdout.startswith(f"{name}.yaml: a valid job")
    job.write_text("prompt: [\n")
    assert sdcorrect("validate", job).stderr.startswith(f"error: {name}.yaml:2: not YAML")
    for command in ("status", "merge"):
        assert f"error: {name}: no job.json" in sdcorrect(command, name).stderr
    refused = sdcorrect("translate", __file__, *QUICK, "--model", name, "-o", "o")
    assert f"model {name}: " in refused.stderr


def test_what_would_steer_a_terminal_is_escaped(sdcorrect: Run, tmp_path: Path) -> None:
    result = sdcorrect("status", tmp_path / "a\x1b[2Jb\nc")
    assert "a\\x1b[2Jb\\nc: no job.json" in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.slow
def test_a_log_has_plain_lines_whatever_the_environment_says(pictures: Path, tmp_path: Path) -> None:
    """Standard output goes to a file under FORCE_COLOR, messages go to a dumb terminal."""
    (pictures / "broken.png").write_bytes(b"no picture")
    above, below = pty.openpty()
    environment = {**os.environ, "FORCE_COLOR": "1", "TERM": "dumb", "TTY_COMPATIBLE": "1"}
    command = [*COMMAND, "translate", str(pictures), "-o", str(tmp_path / "out"), *QUICK]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=below, env=environment)
    os.close(below)
    messages = b""
    try:
        while read := os.read(above, 4096):
            messages += read
    except OSError:  # the other end is closed
        pass
    assert process.wait() == 3
    assert b"\x1b" not in messages + (tmp_path / "log").read_bytes()
    first, *lines = messages.decode().splitlines()
    assert first.startswith("4 pictures (sdedit): 4 to translate; mini on cpu in float32; about ")
    assert sorted(line.split()[1] for line in lines[:-1]) == ["done", "done", "done", "failed"]
    assert lines[-1].startswith("failed: broken.png (sdedit): ")


FOLLOWED = """
import time
from sdcorrect.cli import progress
for _ in progress.track(range(3), "reading", 3):
    time.sleep(0.15)
"""


def test_a_bar_in_a_terminal_moves_and_goes_when_all_is_done() -> None:
    above, below = pty.openpty()
    fcntl.ioctl(below, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    environment = {**os.environ, "TERM": "xterm"}
    process = subprocess.Popen([sys.executable, "-c", FOLLOWED], stderr=below, env=environment)
    os.close(below)
    assert process.wait() == 0
    *states, last = os.read(above, 1 << 16).decode().rstrip("\r").split("\r")
    assert last.strip() == ""
    shown = [state for state in states if state.strip()]
    counts = [state.partition("/3 pictures")[0][-1] for state in shown]
    assert counts == sorted(counts) and {"0", "1", "2"} <= set(counts)
    assert shown[0].startswith("reading   0% |") and max(map(len, shown)) <= 80


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_a_name_that_the_terminal_cannot_show_ends_nothing(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "日本.yaml").write_text(
        f"input: {{path: {EXAMPLE}}}\noutput: {{path: out}}\nprompt: p\n"
    )
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    command = [*COMMAND, "validate", str(tmp_path / "日本.yaml")]
    process = subprocess.run(command, env=environment, capture_output=True)
    assert (process.returncode, process.stderr) == (0, b"")
    assert b"\\u65e5\\u672c.yaml: a valid job" in process.stdout


def test_the_script_for_slurm_has_a_paths_own_bytes(tmp_path: Path) -> None:
    job = os.fsencode(tmp_path) + b"/\xff.yaml"
    Path(os.fsdecode(job)).write_text("input: {path: in}\noutput: {path: out}\nprompt: p\n")
    command = [*COMMAND, "slurm", "-c", os.fsdecode(job), "--tasks", "2"]
    process = subprocess.run(command, capture_output=True)
    assert process.returncode == 0, process.stderr
    assert b"/\xff.yaml" in process.stdout


@pytest.mark.parametrize("command", [["recipes"], ["--help"], ["schema", "job"], ["slurm"]])
def test_a_reader_that_goes_ends_it_quietly(command: list[str], tmp_path: Path) -> None:
    if command == ["slurm"]:
        (tmp_path / "j.yaml").write_text("input: {path: in}\noutput: {path: out}\nprompt: p\n")
        command = ["slurm", "-c", str(tmp_path / "j.yaml"), "--tasks", "2"]
    reading, writing = os.pipe()
    os.close(reading)
    process = subprocess.run([*COMMAND, *command], stdout=writing, stderr=subprocess.PIPE)
    os.close(writing)
    assert (process.returncode, process.stderr) == (141, b"")


@pytest.mark.slow
def test_a_run_whose_log_is_closed_ends_with_whole_records(pictures: Path, tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    command = [*COMMAND, "translate", str(pictures), "-o", str(tmp_path / "out"), *QUICK]
    process = subprocess.run(command, stdout=writing, stderr=writing)
    os.close(writing)
    assert process.returncode == 141
    records = (tmp_path / "out" / "records" / "0-of-1.jsonl").read_text()
    assert records.endswith("\n") and records.count('"done"') >= 1
    assert not list((tmp_path / "out").rglob("*.tmp"))


def test_of_warnings_that_are_alike_no_more_are_shown_than_a_person_reads(
    capsys: pytest.CaptureFixture[str],
) -> None:
    handler = _Lines()
    for number in range(5000):
        record = logging.LogRecord("n", logging.WARNING, "f", 1, "%s: ignored", (number,), None)
        handler.emit(record)
    handler.emit(logging.LogRecord("n", logging.WARNING, "f", 1, "another", (), None))
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "warning: 0: ignored"
    assert len(lines) == MOST_ALIKE + 2
    assert lines[-2:] == [
        "warning: more warnings like the last follow; only the first 100 are shown",
        "warning: another",
    ]


def test_a_wide_table_breaks_between_words(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    heads = ("recipe", *(head for head, _ in METRICS.values()), "U-Net evaluations", "seconds")
    names = ("correct", "correct-attention", "p2p-refine")
    judge._show(Board(heads, [(name, *["0.1234"] * (len(heads) - 1)) for name in names], 3))
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80 and "…" not in "".join(lines)
    printed = set(" ".join(lines).split())
    assert printed >= {word for head in heads for word in head.split()}
    assert printed >= {"correct-", "attention", "p2p-", "refine"}


@pytest.mark.parametrize("quiet", [False, True])
def test_what_takes_long_is_followed_quietly_too(monkeypatch: pytest.MonkeyPatch, quiet: bool) -> None:
    monkeypatch.setattr(progress, "TICK", 0.01)
    monkeypatch.setattr(progress, "PATIENCE", 0.01)
    monkeypatch.setattr(verbosity, "quiet", quiet)
    assert [*progress.track([time.sleep(0.05)], "sleeping", 1)] == [None]
    with progress.following("sleeping", 2) as shown:
        time.sleep(0.05)
        shown.update(2)
        assert shown.disable == quiet
