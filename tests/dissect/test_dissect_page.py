"""The page of a dissection, opened in a real browser."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from pages import Opened, serious
from typer.testing import CliRunner

from sdcorrect.cli import app

EXAMPLES = Path(__file__).parents[2] / "sdcorrect" / "assets" / "pictures"
HOSTILE = """<img src=x onerror="document.title='run'">'&amp; #1?%41 $x^2$.png"""
ALL_DECODED = "[...document.images].every(image => image.complete && image.naturalWidth > 0)"


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dissected")
    shutil.copy(EXAMPLES / "violin.png", folder / HOSTILE)
    quick = ["--steps", "2", "--strength", "1", "--size", "32", "--blocks", "4"]
    command = ["dissect", str(folder / HOSTILE), "-p", "<b>bold</b>", "-o", str(folder / "out"), *quick]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    return folder / "out" / "dissect.html"


def test_it_shows_its_pictures_and_asks_for_nothing(
    page_file: Path, opened: Callable[..., Opened]
) -> None:
    shown = opened(page_file)
    page = shown.page
    assert page.title() == page.locator("h1").inner_text() == f"Dissection of {HOSTILE}"
    assert page.get_by_text("<b>bold</b>").count() == 1
    assert page.locator("img").count() == 3 + 1 + 5 * (1 + 2 * 2)
    assert page.evaluate(ALL_DECODED)
    assert {url for url in shown.requests if not url.startswith("data:")} == {page_file.as_uri()}
    row = page.get_by_role("row", name="4", exact=False).first
    assert row.locator(".put-back").all_inner_texts() == ["0.000 put back"] * 2


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_on_a_phone_and_axe_finds_nothing_serious(
    page_file: Path, opened: Callable[..., Opened], scheme: str
) -> None:
    page = opened(page_file, width=390, color_scheme=scheme).page
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    assert serious(page) == []
