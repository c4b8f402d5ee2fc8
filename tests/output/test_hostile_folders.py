"""Output folders that others have made or spoiled: no traceback, no hang, and nothing from outside."""

import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from click.testing import Result
from hostile import PLACES, SECRET, THINGS, Spoil, bytes_of, spoiled, standing_for, watched
from hypothesis import HealthCheck, given, note, settings
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from typer.testing import CliRunner

from sdcorrect.cli import app

EXAMPLES = Path(__file__).parents[2] / "sdcorrect" / "assets" / "pictures"
#: How long a command may take on two small pictures, seconds.
PATIENCE = 30
#: How much more memory it may take than there is before, bytes.
MEMORY = 2 << 30
COMMANDS = (
    ("status", "@"),
    ("merge", "@"),
    ("report", "@", "--embed", "--grid", "@/sheet.png"),
    ("report", "@"),
    ("evaluate", "@", "--metrics", "ssim"),
)
#: How every line of the error stream begins.
KNOWN = re.compile(
    r"(error|warning|failed|note|not measured): |WARNING +|\d+/\d+ pictures measured$|\s*$"
)


@dataclass(frozen=True)
class Made:
    out: Path
    secrets: Path


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A finished job with all that the commands leave, and what lies outside of it."""
    root = tmp_path_factory.mktemp("hostile")
    pictures, secrets, out = root / "pictures", root / "secrets", root / "out"
    pictures.mkdir()
    secrets.mkdir()
    for number, name in enumerate(("bicycle", "church")):
        example = Image.open(EXAMPLES / f"{name}.png").convert("RGB")
        example.resize((48, 48)).save(pictures / f"{number:04}.png")
    about = PngInfo()
    about.add_text("comment", SECRET)
    Image.new("RGB", (32, 32), "red").save(secrets / "secret.png", pnginfo=about)
    (secrets / "secret.txt").write_text(SECRET)
    quick = ["-p", "x", "--steps", "2", "--strength", "1", "--set", "size=32"]
    run(["translate", str(pictures), "-o", "@", *quick, "--set", "variants=[sdedit, correct]"], out)
    for command in COMMANDS:
        assert run(command, out).exit_code == 0
    array = {"jobs": ["1"], "count": 2, "first": 0, "last": 1, "step": 1, "shards": {"0": 0}}
    (out / "records" / "arrays.json").write_text(json.dumps([array]))
    return Made(out, secrets)


def run(command: tuple[str, ...] | list[str], out: Path) -> Result:
    return CliRunner(env={"COLUMNS": "100000"}).invoke(
        app, [word.replace("@", str(out)) for word in command]
    )


def check(made: Made, spoils: list[Spoil]) -> None:
    """Spoil a copy of the folder, and look at it with every command."""
    secrets = {file: file.read_bytes() for file in made.secrets.iterdir()}
    with TemporaryDirectory(dir=made.out.parent) as folder:
        out = Path(folder, "out")
        shutil.copytree(made.out, out)
        for spoil in spoils:
            spoil(out, made.secrets)
        for command in COMMANDS:
            with watched(made.secrets, PATIENCE, MEMORY) as touched:
                result = run(command, out)
            told = f"{command[0]}: exit {result.exit_code}\n{result.output[:2000]}"
            assert not touched, told
            assert isinstance(result.exception, SystemExit | None), (told, result.exception)
            assert result.exit_code in (0, 1, 2, 3), told
            assert "Traceback" not in result.output and "--debug shows" not in result.output, told
            assert SECRET not in result.output, told
            lines = result.stderr.split("\n")
            assert all(map(KNOWN.match, lines)), told
            assert all(line.isprintable() for line in lines), told
            errors = [line for line in lines if line.startswith("error: ")]
            assert len(errors) == (result.exit_code in (1, 2)), told
        assert {file: file.read_bytes() for file in made.secrets.iterdir()} == secrets


@pytest.mark.parametrize("count", [20, pytest.param(400, marks=pytest.mark.slow)])
def test_no_folder_brings_a_traceback_a_hang_or_a_byte_from_outside(made: Made, count: int) -> None:
    @settings(max_examples=count, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(spoiled())
    def of_every_kind(spoils: list[Spoil]) -> None:
        note(" and ".join(spoil.__qualname__ for spoil in spoils))
        check(made, spoils)

    of_every_kind()


#: Links that a command would follow if it trusted the folder.
BAITS = [
    *(("job.json", "secret.txt"), ("records", ""), ("records/0-of-1.jsonl", "secret.txt")),
    *(("correct", ""), ("correct/0000.png", "secret.png"), ("report", ""), ("report/*", "")),
    *(("report/*/*", "secret.png"), ("evaluation.csv", "secret.txt"), ("correct/more", "")),
    *(("records/job.lock", "secret.txt"), ("records/merge.tmp", "secret.txt")),
    *(("report.html", "secret.txt"), ("report.tmp", "secret.txt")),
]


@pytest.mark.parametrize(("place", "what"), BAITS)
def test_no_link_is_followed(made: Made, place: str, what: str) -> None:
    check(made, [standing_for(place, what)])


@pytest.mark.slow
@pytest.mark.parametrize("place", PLACES)
def test_whatever_stands_in_the_place_of_a_file(made: Made, place: str) -> None:
    for what in THINGS:
        check(made, [standing_for(place, what)])


def spoiled_copy(made: Made, tmp_path: Path, file: str, change: tuple[str, str]) -> Path:
    out = shutil.copytree(made.out, tmp_path / "out")
    text = (out / file).read_text()
    assert change[0] in text
    (out / file).write_text(text.replace(*change, 1))
    return out


@pytest.mark.parametrize(
    ("file", "change", "told"),
    [
        ("job.json", ('"num_shards": 1', '"num_shards": 10000000'), "num_shards: should be less"),
        ("job.json", ('"num_shards": 1', '"num_shards": 0'), "num_shards: should be greater"),
        ("job.json", ('"pictures": 2', f'"pictures": {"9" * 5000}'), "limit (4300 digits)"),
        ("job.json", ('"pictures": 2', f'"pictures": {"[" * 200_000}'), "recursion"),
        ("job.json", ('"steps": 2', '"steps": NaN'), "steps"),
        ("job.json", ('"variants": {\n      "sdedit"', '"variants": {\n      "../x"'), "variants.../x"),
        ("job.json", ('"settings": {', f'"settings": {{"a": {"[" * 99}{"]" * 99},'), "than 16 levels"),
        ("records/0-of-1.json", ('"shard"', '"shards"'), "shard: Field required"),
    ],
)
def test_what_is_wrong_with_a_folder_is_one_line(
    made: Made, tmp_path: Path, file: str, change: tuple[str, str], told: str
) -> None:
    out = spoiled_copy(made, tmp_path, file, change)
    for command in COMMANDS[:3]:
        result = run(command, out)
        assert result.exit_code == 2
        assert result.stderr.startswith(f"error: {out / file}: cannot be read: ")
        assert told in result.stderr
        assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"size": [32, 32]', '"size": [1000000, 1000000]'),
        ('"size": [32, 32]', f'"size": [{"9" * 5000}, 1]'),
        ('Z"', '"'),
        ('"seconds": ', '"seconds": NaN, "x": '),
        ('"path": "sdedit/', '"path": "../'),
        ('"path": "sdedit/', '"path": "/'),
        ('"seed": ', f'"seed": {"[" * 200_000}, "x": '),
    ],
)
def test_a_record_that_cannot_be_is_done_again(
    made: Made, tmp_path: Path, caplog: pytest.LogCaptureFixture, old: str, new: str
) -> None:
    file = "records/0-of-1.jsonl"
    out = spoiled_copy(made, tmp_path, file, (old, new))
    result = run(("merge", "@"), out)
    assert result.exit_code == 1
    assert f"{out / file}:1: not a valid record; its picture is translated again" in caplog.text
    assert "1 picture is missing (sdedit/0000.png), in shards 0-of-1" in result.stderr


def test_records_without_an_end_are_not_read_into_memory(made: Made, tmp_path: Path) -> None:
    out = shutil.copytree(made.out, tmp_path / "out")
    for name in ("records/0-of-1.jsonl", "job.json", "evaluation.csv"):
        bytes_of(name, "sparse", 0)(out, made.secrets)
        with watched(made.secrets, PATIENCE, MEMORY):
            result = run(("report", "@"), out)
        assert result.exit_code == 2
        assert "bytes" in result.stderr and result.stderr.count("\n") == 1
        (out / name).unlink()
        shutil.copy(made.out / name, out / name)
