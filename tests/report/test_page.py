"""The report in a real browser: what it shows, and that it answers to mouse and keyboard."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result
from pages import HOSTILE, NAMES, Folder, Opened, multiply, serious, write_evaluation
from playwright.sync_api import Locator, Page, expect

Open = Callable[..., Opened]
Report = Callable[..., Result]

SSIM = {"bicycle.png": 0.5, "church.png": 0.9, "ghost.png": 0.1, "tent.png": None}


def names(page: Page) -> list[str]:
    return page.locator(".name > span").all_text_contents()


def loaded(images: Locator) -> bool:
    return images.evaluate_all(
        "async images => (await Promise.all(images.map(i => i.decode()))).length > 0"
    )


def divider_at(page: Page) -> str:
    return page.locator("#left-layer").evaluate("layer => getComputedStyle(layer).clipPath")


@pytest.fixture
def page(folder: Folder, report: Report, opened: Open) -> Page:
    """The report of `folder`, with metrics for three of the pictures of `sdedit`."""
    write_evaluation(folder.out, {(name, "sdedit"): (value, "") for name, value in SSIM.items()})
    report()
    return opened(folder.page).page


def test_all_pictures_stand_beside_their_sources(page: Page) -> None:
    assert names(page) == sorted([*NAMES, "broken.png", HOSTILE])
    church = page.get_by_role("button", name="Compare church.png: sdedit done, correct done")
    assert church.locator(".label > :first-child").all_text_contents() == ["source", "sdedit", "correct"]
    assert church.locator("img").count() == 3
    page.locator("footer").scroll_into_view_if_needed()
    assert loaded(page.locator(".card img"))


def test_a_name_is_text_whatever_it_holds(page: Page) -> None:
    expect(page.locator(".name > span").filter(has_text="onerror")).to_have_text(HOSTILE)
    page.get_by_role("searchbox").fill("onerror")
    page.locator(".card").click()
    expect(page.get_by_role("dialog").get_by_role("heading")).to_have_text(HOSTILE)
    assert page.title() == "in 3d render style · sdcorrect report"
    assert page.locator("h1 b, .name b, dialog b").count() == 0
    assert loaded(page.locator("dialog img"))


def test_failures_tell_their_reason(page: Page) -> None:
    row = page.locator(".problems tbody tr")
    assert row.locator("th, td").all_text_contents() == [
        "broken.png",
        "sdedit, correct",
        "not a picture that can be read",
    ]
    page.get_by_role("combobox", name="Status").select_option("failed")
    assert names(page) == ["broken.png"]


def test_the_divider_moves_by_keyboard_and_mouse(page: Page) -> None:
    page.get_by_role("button", name="Compare church.png").locator("[data-side='1']").click()
    slider = page.get_by_role("slider", name="Divider between the two pictures")
    expect(slider).to_be_focused()
    expect(page.get_by_role("combobox", name="Right")).to_have_value("1")
    assert divider_at(page) == "inset(0px 50% 0px 0px)"
    for _ in range(5):
        page.keyboard.press("ArrowRight")
    assert divider_at(page) == "inset(0px 45% 0px 0px)"
    expect(slider).to_have_attribute("aria-valuetext", "55 % source, 45 % correct")
    box = slider.bounding_box()
    assert box
    page.mouse.move(box["x"] + box["width"] * 0.55, box["y"] + 20)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.2, box["y"] + 20)
    page.mouse.up()
    assert divider_at(page) == "inset(0px 80% 0px 0px)"


def test_any_two_are_compared_at_full_size(page: Page) -> None:
    page.get_by_role("button", name="Compare church.png").click()
    page.get_by_role("combobox", name="Left").select_option("sdedit")
    page.get_by_role("combobox", name="Right").select_option("correct")
    dialog = page.get_by_role("dialog")
    for name in ("sdedit", "correct"):
        image = dialog.get_by_role("img", name=f"church.png, {name}")
        assert image.get_attribute("src") == f"{name}/church.png"
        assert image.evaluate("image => image.decode().then(() => image.naturalWidth)") == 32
    assert dialog.locator("tbody tr").first.locator("th, td").all_text_contents()[:2] == [
        "sdedit",
        "done",
    ]
    assert "0.9" in dialog.locator("tbody tr").first.text_content()


def test_what_failed_says_why_in_the_viewer(page: Page) -> None:
    page.get_by_role("button", name="Compare broken.png").click()
    expect(page.locator("#right-layer p")).to_have_text("failed: not a picture that can be read")
    expect(page.locator("#left-layer p")).to_have_text("no picture")


def test_search_finds_names_and_prompts(page: Page) -> None:
    page.keyboard.press("/")
    page.keyboard.type("CHUR")
    assert names(page) == ["church.png"]
    expect(page.locator("#count")).to_have_text("1 of 6")
    page.get_by_role("searchbox").fill("3d render")
    assert len(names(page)) == 6
    page.get_by_role("searchbox").fill("no such")
    expect(page.get_by_text("No picture matches.")).to_be_visible()
    page.get_by_role("button", name="Show all").click()
    assert len(names(page)) == 6


def test_sorting_by_a_metric_puts_last_what_has_none(page: Page) -> None:
    page.get_by_role("combobox", name="Sort by").select_option("ssim, sdedit")
    assert names(page)[:3] == ["ghost.png", "bicycle.png", "church.png"]
    assert page.locator(".card").first.locator(".label b").text_content() == "0.1"
    page.get_by_role("button", name="Descending").click()
    assert names(page)[:3] == ["church.png", "bicycle.png", "ghost.png"]
    page.get_by_role("combobox", name="Sort by").select_option("name")
    assert names(page)[0] == "tent.png"


def test_variants_are_hidden_and_shown(page: Page) -> None:
    page.get_by_role("checkbox", name="sdedit").uncheck()
    card = page.get_by_role("button", name="Compare church.png")
    assert card.locator(".label > :first-child").all_text_contents() == ["source", "correct"]
    page.get_by_role("checkbox", name="sdedit").check()
    assert card.locator("img").count() == 3


def test_the_keyboard_alone_goes_everywhere(page: Page) -> None:
    page.locator("#count").evaluate("count => document.getElementsByName('variant')[1].focus()")
    page.keyboard.press("Tab")
    expect(page.locator(".card").first).to_be_focused()
    page.keyboard.press("ArrowRight")
    expect(page.locator(".card").nth(1)).to_be_focused()
    page.keyboard.press("End")
    expect(page.locator(".card").last).to_be_focused()
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_role("heading")).to_have_text("tent.png")
    expect(page.get_by_role("button", name="Next picture")).to_be_disabled()
    page.keyboard.press("p")
    expect(dialog.get_by_role("heading")).to_have_text("ghost.png")
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    expect(page.get_by_role("button", name="Compare ghost.png")).to_be_focused()


def test_totals_settings_and_timings_are_told(page: Page) -> None:
    cells = page.locator(".about table tbody tr").first.locator("th, td").all_text_contents()
    # of six pictures one failed; two steps, each twice for guidance; the mean of three values
    assert cells[:7] == ["sdedit", "5", "1", "0", "0", "0", "4"]
    assert cells[8:] == ["0.5", "–"]
    page.get_by_text("Settings", exact=True).click()
    expect(page.locator("pre")).to_contain_text("prompt: in 3d render style")
    page.get_by_text("Timings and machines").click()
    expect(page.locator("dt", has_text="Total")).to_be_visible()


def background(page: Page) -> str:
    return page.evaluate("getComputedStyle(document.documentElement).backgroundColor")


def test_it_is_dark_where_the_system_is_and_by_its_button(
    page: Page, folder: Folder, opened: Open
) -> None:
    light = background(page)
    dark = background(opened(folder.page, color_scheme="dark").page)
    assert light != dark
    button = page.get_by_role("button", name="Dark", exact=True)
    expect(button).to_have_attribute("aria-pressed", "false")
    button.click()
    assert background(page) == dark
    expect(button).to_have_attribute("aria-pressed", "true")
    page.reload()
    assert background(page) == dark
    button.click()
    assert background(page) == light


@pytest.mark.parametrize("width", [320, 390])
def test_it_fits_on_a_phone(page: Page, folder: Folder, opened: Open, width: int) -> None:
    phone = opened(folder.page, width=width, has_touch=True, is_mobile=True).page
    overflow = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert phone.evaluate(overflow) == 0
    assert phone.locator(".card").first.locator("img").first.bounding_box()["width"] > 80
    phone.locator(".card").first.tap()
    assert phone.locator("dialog").evaluate("dialog => dialog.scrollWidth - dialog.clientWidth") == 0
    assert phone.evaluate(overflow) == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(page: Page, folder: Folder, opened: Open, scheme: str) -> None:
    page = opened(folder.page, color_scheme=scheme, bypass_csp=True).page
    for closed in ("Settings", "Timings and machines"):
        page.get_by_text(closed).click()
    assert serious(page) == []
    page.get_by_role("searchbox").fill("no such")
    assert serious(page) == []
    page.get_by_role("searchbox").fill("")
    page.locator(".card").nth(1).click()
    assert serious(page) == []


def test_it_asks_for_its_folders_pictures_and_nothing_else(
    folder: Folder, report: Report, opened: Open, tmp_path: Path
) -> None:
    report()
    moved = folder.out.rename(tmp_path / "moved # 100%")
    result = opened(moved / "report.html")
    assert loaded(result.page.locator(".card img"))
    assert all(url.startswith(moved.as_uri()) for url in result.requests)
    assert len(result.requests) == 1 + 3 * 5


def test_embedded_it_is_one_file(folder: Folder, report: Report, opened: Open, tmp_path: Path) -> None:
    alone = tmp_path / "alone" / "mailed.html"
    report("--embed", "-o", alone)
    shutil.rmtree(folder.out)
    result = opened(alone)
    assert loaded(result.page.locator(".card img"))
    result.page.locator(".card").nth(1).click()
    assert loaded(result.page.locator("dialog img"))
    assert [url for url in result.requests if not url.startswith("data:")] == [alone.as_uri()]


@pytest.mark.slow
def test_thousands_of_pictures_scroll(folder: Folder, report: Report, opened: Open) -> None:
    report()
    multiply(folder, 2500)
    report()
    page = opened(folder.page).page
    expect(page.locator("#count")).to_have_text("2506 of 2506")
    assert page.locator(".card").count() < 200
    for _ in range(20):
        page.mouse.wheel(0, 5000)
    # not wait_for_function, whose polling the page's own policy forbids
    page.evaluate(
        "async () => { while (scrollY < 100_000) await new Promise(done => setTimeout(done, 50)) }"
    )
    middle = page.locator(".card").nth(page.locator(".card").count() // 2)
    expect(middle).to_be_in_viewport()
    page.evaluate("scrollTo(0, document.documentElement.scrollHeight)")
    last = page.get_by_role("button", name="Compare more/02499.png")
    last.scroll_into_view_if_needed()
    assert loaded(last.locator("img"))
    expect(page.locator("li").last).to_have_attribute("aria-posinset", "2506")
    page.keyboard.press("/")
    page.keyboard.type("more/01234")
    assert names(page) == ["more/01234.png"]
    page.get_by_role("searchbox").fill("")
    page.locator(".card").first.focus()
    page.keyboard.press("End")
    expect(last).to_be_focused()
    expect(last).to_be_in_viewport()
