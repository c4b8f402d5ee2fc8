"""Real components at tiny size: the embedded model, folders of small pictures, and a real Chromium."""

import gc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import Result
from pages import Opened
from PIL import Image
from playwright.sync_api import Browser, expect, sync_playwright
from typer.testing import CliRunner

from sdcorrect.cli import app
from sdcorrect.libraries import lean_imports
from sdcorrect.settings import ModelSettings

with lean_imports():  # as the commands import them, and faster
    from diffusers import UNet2DConditionModel

    from sdcorrect.models import Model, load

TESTS = Path(__file__).parent
EXAMPLES = TESTS.parent / "sdcorrect" / "assets" / "pictures"
#: Modules of which no two run at once: those that time what they start in processes of their own, and
#: those that share what is made once.
TOGETHER = {
    "interrupted": (
        "batch/test_bad_pictures.py",
        "batch/test_fault_matrix.py",
        "batch/test_kills.py",
        "cli/test_signals.py",
    ),
    "browser": ("dissect/test_dissect_page.py", "report/test_page.py"),
    "evaluated": (
        "evaluate/test_bad_input.py",
        "evaluate/test_evaluate.py",
        "evaluate/test_frontier.py",
        "evaluate/test_swept_folders.py",
    ),
}
#: How long a page may take to answer on a busy machine, ms.
PATIENCE = 60_000


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave tests that take a GPU out where there is none, unless they are asked for."""
    if torch.cuda.is_available() or "gpu" in config.getoption("markexpr"):
        return
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="no CUDA here; -m gpu runs it on the CPU"))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Of several workers, one alone runs the modules that stand `TOGETHER`.

    pytest-xdist's own mark for this does nothing with pytest 9.2.
    """
    from xdist.scheduler import LoadScopeScheduling

    class Scheduling(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0].removeprefix("tests/")
            return next((name for name, files in TOGETHER.items() if file in files), nodeid)

    return Scheduling(config, log) if config.getvalue("dist") == "loadgroup" else None


def pytest_collection_finish() -> None:
    """Keep the garbage collector from scanning all that was imported, again and again for nothing."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _inference() -> Iterator[None]:
    with torch.inference_mode():
        yield


@pytest.fixture(scope="session")
def model() -> Model:
    return load(ModelSettings(device="cpu"))


@pytest.fixture(scope="session")
def unet(model: Model) -> UNet2DConditionModel:
    return model.pipe.unet


@pytest.fixture
def icon() -> Image.Image:
    """An example picture at the embedded model's own size, 64 x 64 px."""
    return Image.open(EXAMPLES / "church.png").convert("RGB").resize((64, 64))


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder with three different pictures, one of them in a subfolder."""
    folder = tmp_path / "pictures"
    (folder / "sub").mkdir(parents=True)
    for source, target in {
        "bicycle": "bicycle.png",
        "church": "church.jpg",
        "ghost": "sub/ghost.png",
    }.items():
        Image.open(EXAMPLES / f"{source}.png").convert("RGB").save(folder / target)
    return folder


@pytest.fixture
def sdcorrect() -> Callable[..., Result]:
    """Run the command line in this process: `sdcorrect("translate", folder, "-o", out)`."""

    def run(*arguments: Any) -> Result:
        return CliRunner().invoke(app, [str(argument) for argument in arguments])

    return run


@pytest.fixture
def translate(sdcorrect: Callable[..., Result]) -> Callable[..., Result]:
    """Translate at the smallest size and in the fewest steps that still do everything."""

    def run(*arguments: Any) -> Result:
        quick = ("-p", "in 3d render style", "--steps", "2", "--strength", "1", "--set", "size=32")
        return sdcorrect("translate", *quick, *arguments)

    return run


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
