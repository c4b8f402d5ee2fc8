"""An mkdocs hook that inserts the tables of settings into the manual, from the models of the job.

A page marks the place for the table of a section of the job with `<!-- settings: SECTION -->`.
"""

import json
import re
from typing import Any

from sdcorrect.reference import SECTIONS, Setting, settings_of

MARK = re.compile(r"<!-- settings: (\w+) -->")
#: The name of the section that is the job itself.
WHOLE = "job"


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Replace the marks of a page by their tables; mkdocs calls this for each page."""
    return MARK.sub(lambda match: table(match[1]), markdown)


def table(section: str) -> str:
    """The keys of a section as a Markdown table."""
    rows = [_row(setting) for setting in settings_of(SECTIONS["" if section == WHOLE else section])]
    return "\n".join(["| key | values | default | meaning |", "|---|---|---|---|", *rows])


def _row(setting: Setting) -> str:
    shown = json.dumps(setting.default, ensure_ascii=False)
    default = "must be given" if setting.required else f"`{shown}`"
    cells = (f"`{setting.key}`", setting.values, default, setting.meaning)
    return f"| {' | '.join(cell.replace('|', '&#124;') for cell in cells)} |"
