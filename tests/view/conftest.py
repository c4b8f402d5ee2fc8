"""Real output folders, and a real Chromium that their pages are opened in."""

import csv
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from click.testing import Result
from playwright.sync_api import Browser, Page, expect, sync_playwright
from typer.testing import CliRunner

from sdcorrect.batch.ledger import latest_records
from sdcorrect.cli import app

EXAMPLES = Path(__file__).parents[2] / "sdcorrect" / "assets" / "pictures"
#: A path that would end the script it stands in, and mark up the page that shows it as it is.
HOSTILE = """<img src=x onerror="document.title='run'">'&amp; #1?%41/</script><b>.png"""
NAMES = ["bicycle.png", "church.png", "ghost.png", "tent.png"]
#: How long a page may take to answer on a busy machine, ms.
PATIENCE = 60_000
QUICK = ("-p", "in 3d render style", "--steps", "2", "--strength", "1", "--set", "size=32")


@dataclass
class Folder:
    """An output folder and the pictures it was made of."""

    out: Path
    pictures: Path

    @property
    def page(self) -> Path:
        return self.out / "report.html"


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


def write_evaluation(out: Path, values: dict[tuple[str, str], tuple[object, ...]]) -> None:
    """An `evaluation.csv` of the metrics ssim and lpips, by picture and variant."""
    with (out / "evaluation.csv").open("w", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(("variant", "path", "ssim", "lpips"))
        writer.writerows((variant, path, *row) for (path, variant), row in values.items())


def multiply(folder: Folder, count: int) -> None:
    """Record `count` more pictures, all alike, as the job would have."""
    record = latest_records(folder.out)["church.png", "sdedit"]
    lines = []
    for number in range(count):
        name = f"more/{number:05}.png"
        for variant in ("sdedit", "correct"):
            path = folder.out / variant / name
            path.parent.mkdir(exist_ok=True)
            path.hardlink_to(folder.out / variant / "church.png")
            update = {
                "input": record.input.model_copy(update={"path": name}),
                "output": record.output.model_copy(update={"path": f"{variant}/{name}"}),
                "variant": variant,
            }
            lines.append(record.model_copy(update=update).as_json())
    with (folder.out / "records" / "0-of-1.jsonl").open("ab") as stream:
        stream.writelines(lines)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        arguments = ["--disable-gpu", "--disable-quic"]
        expect.set_options(timeout=PATIENCE)
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=arguments)
        yield browser
        browser.close()


@dataclass
class Opened:
    """A page in the browser, with all that it asked for and complained of."""

    page: Page
    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)


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
