"""Draw a sheet of icons by each recipe, as in docs/beyond-the-paper.md.

    sheet_wide.py out/benchmark/flat-to-ink/0.8 --icons 10 -o docs/images/flat-to-ink.png

From top to bottom: the source, each recipe of the output folder, the truth. A hash of the names selects
the icons, so that nobody has chosen them.
"""

import argparse
import hashlib
import sys
from pathlib import Path

from PIL import Image

SIDE, GAP = 64, 4


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, help="as benchmark_icons.sh leaves it")
    parser.add_argument(
        "--recipes", nargs="+", default=["sdedit", "correct", "correct-adain", "correct-wide"]
    )
    parser.add_argument("--icons", type=int, default=10)
    parser.add_argument("-o", "--output", type=Path, required=True)
    arguments = parser.parse_args()
    source, target = arguments.out.parent.name.split("-to-")
    icons = arguments.out.parents[1] / "icons"
    rows = [icons / source, *(arguments.out / recipe for recipe in arguments.recipes), icons / target]
    names = sorted(
        (file.name for file in rows[1].iterdir()), key=lambda n: hashlib.sha256(n.encode()).hexdigest()
    )[: arguments.icons]
    size = (len(names) * (SIDE + GAP) + GAP, len(rows) * (SIDE + GAP) + GAP)
    sheet = Image.new("RGB", size, "white")
    for y, folder in enumerate(rows):
        for x, name in enumerate(names):
            with Image.open(folder / name) as picture:
                place = (GAP + x * (SIDE + GAP), GAP + y * (SIDE + GAP))
                sheet.paste(picture.convert("RGB").resize((SIDE, SIDE)), place)
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    sheet.quantize(128).save(arguments.output, optimize=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
