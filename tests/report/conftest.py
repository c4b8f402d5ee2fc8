"""Real output folders."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result
from pages import HOSTILE, NAMES, Folder
from typer.testing import CliRunner

from sdcorrect.cli import app

EXAMPLES = Path(__file__).parents[2] / "sdcorrect" / "assets" / "pictures"
QUICK = ("-p", "in 3d render style", "--steps", "2", "--strength", "1", "--set", "size=32")


@pytest.fixture(scope="session")
def _translated(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    root = tmp_path_factory.mktemp("translated")
    pictures, out = root / "pictures", root / "out"
    for name in (*NAMES, HOSTILE):
        (pictures / name).parent.mkdir(parents=True, exist_ok=True)
        example = name if name in NAMES else "violin.png"
        shutil.copy(EXAMPLES / example, pictures / name)
    (pictures / "broken.png").write_text("no picture")
    command = ["translate", pictures, "-o", out, *QUICK, "--set", "variants=[sdedit, correct]"]
    result = CliRunner().invoke(app, [str(word) for word in command])
    assert result.exit_code == 3, result.output
    return Folder(out, pictures)


@pytest.fixture
def folder(_translated: Folder, tmp_path: Path) -> Folder:
    """A fresh copy of a job of five pictures, one of hostile name, and one that failed; two variants."""
    return Folder(shutil.copytree(_translated.out, tmp_path / "out"), _translated.pictures)


@pytest.fixture
def report(folder: Folder) -> Callable[..., Result]:
    """Write the page of `folder`: `report("--embed")`."""

    def run(*arguments: object) -> Result:
        result = CliRunner().invoke(app, ["report", str(folder.out), *map(str, arguments)])
        assert result.exit_code == 0, result.output
        return result

    return run
