"""Real output folders, and a real Chromium that their pages are opened in."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import Result
from pages import HOSTILE, NAMES, Folder, Opened
from playwright.sync_api import Browser, expect, sync_playwright
from typer.testing import CliRunner

from sdcorrect.cli import app

EXAMPLES = Path(__file__).parents[2] / "sdcorrect" / "assets" / "pictures"
#: How long a page may take to answer on a busy machine, ms.
PATIENCE = 60_000
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


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        arguments = ["--disable-gpu", "--disable-quic"]
        expect.set_options(timeout=PATIENCE)
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=arguments)
        yield browser
        browser.close()


@pytest.fixture
def opened(browser: Browser) -> Iterator[Callable[..., Opened]]:
    """Open a file: `opened(path, width=390, color_scheme="dark")`. No page may complain."""
    all_opened = []

    def run(file: Path, width: int = 1280, **options: object) -> Opened:
        page = browser.new_page(viewport={"width": width, "height": 800}, **options)
        page.set_default_timeout(PATIENCE)
        result = Opened(page)
        all_opened.append(result)
        page.on("request", lambda request: result.requests.append(request.url))
        page.on("console", lambda message: result.complaints.append(message.text))
        page.on("pageerror", lambda error: result.complaints.append(str(error)))
        page.goto(file.as_uri())
        return result

    yield run
    for result in all_opened:
        result.page.close()
        assert result.complaints == []


@pytest.fixture
def report(folder: Folder) -> Callable[..., Result]:
    """Write the page of `folder`: `report("--embed")`."""

    def run(*arguments: object) -> Result:
        result = CliRunner().invoke(app, ["report", str(folder.out), *map(str, arguments)])
        assert result.exit_code == 0, result.output
        return result

    return run
