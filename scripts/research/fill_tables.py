"""Write what figures.sh measured into the tables of the docs: fill_tables.py PAGE ...

A row's direction, strength and recipe say which measurement it shows; flat to 3D and 0.8 where it has no
such column. Cells under heads that are not listed here stay as they are.
"""

import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from sdcorrect.evaluate.table import p_value

ICONS, FIGURES = Path("out/benchmark"), Path("out/figures")
#: Head -> metric of evaluation.json, and its decimals.
HEADS = {
    "SSIM": ("ssim_truth", 3),
    "SSIM to the truth": ("ssim_truth", 3),
    "SSIM to the source": ("ssim", 3),
    "PSNR, dB": ("psnr_truth", 2),
    "structure distance": ("structure_distance_truth", 4),
    "structure distance to the source": ("structure_distance", 4),
    "CLIP image similarity": ("clip_image_truth", 3),
    "text similarity": ("clip_text", 3),
    "style accuracy": ("style_accuracy", 3),
}
TESTS = "p against `sdedit`: "  #: and the heads that are tested
#: Head of an area below a curve -> metrics kept and of style, as frontier.json calls them.
AREAS = {
    f"{kept}, {style}": (metric, HEADS[style][0])
    for kept, metric in {"SSIM": "ssim_truth", "structure": "structure_distance_truth"}.items()
    for style in ("text similarity", "style accuracy")
}

Row = dict[str, str]  #: cell by head


def folder_of(row: Row) -> Path:
    """The output folder that a row shows."""
    if "to" in row:
        return FIGURES / "shapes" / row["to"].lower()
    direction = row.get("direction", "flat to 3D").lower().replace(" ", "-")
    strength = row.get("strength", "0.8")
    return ICONS / direction / ("inverted" if strength == "-" else strength)


def measured(row: Row) -> Any:
    name = row["recipe"].strip("`")
    return json.loads((folder_of(row) / "evaluation.json").read_text())["variants"][name]


def area(row: Row, head: str) -> str:
    planes = json.loads((folder_of(row).parent / "frontier.json").read_text())["planes"]
    plane = next(p for p in planes if (p["kept"], p["style"]) == AREAS[head])
    return f"{plane['areas'][row['recipe'].strip('`')]['area']:.2f}"


def tests(row: Row, head: str) -> str:
    against = measured(row)["against_base"]
    if not against or row.get("strength") == "-":
        return ""
    heads = head.removeprefix(TESTS).split(", ")
    return ", ".join(p_value(against[HEADS[of][0]]["p"]) for of in heads)


def mean(row: Row, head: str) -> str:
    metric, decimals = HEADS[head]
    return f"{measured(row)['metrics'][metric]['mean']:.{decimals}f}"


def cell(row: Row, head: str) -> str:
    """What the results say under this head."""
    shown: Callable[[Row, str], str] | None = (
        mean if head in HEADS else area if head in AREAS else tests if head.startswith(TESTS) else None
    )
    return shown(row, head) if shown else row[head]


def filled(table: list[str]) -> Iterator[str]:
    heads, line, *rows = table
    equal = (FIGURES / "equal-style.md").read_text().splitlines()
    if heads == equal[0]:
        yield from equal
        return
    yield from (heads, line)
    names = cells(heads)
    for text in rows:
        row = dict(zip(names, cells(text), strict=True))
        if "recipe" in row:
            text = "| " + " | ".join(cell(row, head) for head in names) + " |"
        yield text


def cells(line: str) -> list[str]:
    return [text.strip() for text in line.strip().removeprefix("|").removesuffix("|").split("|")]


def main() -> None:
    for page in map(Path, sys.argv[1:]):
        tables = re.compile(r"(?:^\|.*\n)+", re.MULTILINE)
        page.write_text(
            tables.sub(lambda found: "\n".join(filled(found[0].splitlines())) + "\n", page.read_text())
        )


if __name__ == "__main__":
    main()
