"""Output folders that others have made or spoiled: no traceback, no hang, and nothing from outside."""

import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from click.testing import Result
from hostile import SECRET, Spoil, spoiled, watched
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
            note(spoil.__qualname__)
            spoil(out, made.secrets)
        for command in COMMANDS:
            with watched(made.secrets, PATIENCE, MEMORY) as touched:
                result = run(command, out)
            told = f"{command[0]}: exit {result.exit_code}\n{result.output[:2000]}"
            assert not touched, told
            assert isinstance(result.exception, SystemExit | None), (told, result.exception)
            assert result.exit_code in (0, 1, 2, 3), told
            assert "Traceback" not in result.output and "--debug tells" not in result.output, told
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
        check(made, spoils)

    of_every_kind()
