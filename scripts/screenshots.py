"""Take a screenshot of an HTML page in Chromium, which scripts/setup-tools.sh installs.

.venv/bin/python scripts/screenshots.py out/quickstart/report.html docs/images/report.png
"""

import argparse
from pathlib import Path

from playwright.sync_api import sync_playwright


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("page", type=Path)
    parser.add_argument("png", type=Path)
    parser.add_argument("--dark", action="store_true")
    parser.add_argument("--size", type=int, nargs=2, default=(1280, 860), metavar=("WIDTH", "HEIGHT"))
    parser.add_argument("--full", action="store_true", help="capture the page at its full height")
    parser.add_argument("--click", metavar="SELECTOR", help="click this first, such as '.card >> nth=3'")
    given = parser.parse_args()
    width, height = given.size
    with sync_playwright() as playwright:
        arguments = ["--disable-gpu", "--disable-quic"]
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=arguments)
        page = browser.new_page(
            viewport={"width": width, "height": height}, color_scheme="dark" if given.dark else "light"
        )
        page.goto(given.page.resolve().as_uri(), wait_until="networkidle")
        if given.click:
            page.locator(given.click).click()
        page.screenshot(path=given.png, full_page=given.full)
        browser.close()


if __name__ == "__main__":
    main()
