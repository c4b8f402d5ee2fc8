"""Take a picture of an HTML page with Debian's Chromium: screenshots.py PAGE.html PNG.

    python scripts/screenshots.py out/quickstart/report.html .github/report.png --dark --open
"""

import argparse
from pathlib import Path

from playwright.sync_api import sync_playwright

from tests.browser import ARGUMENTS, CHROMIUM
