"""Draw the same pictures of several folders, a row for each folder: sheet.py FOLDER ... -o PNG

A hash of their names selects the pictures, so that nobody has chosen them.
"""

import argparse
import hashlib
from pathlib import Path

from PIL import Image

SIDE, GAP = 64, 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("rows", type=Path, nargs="+", metavar="FOLDER")
    parser.add_argument("--pictures", type=int, default=10, help="how many")
    parser.add_argument("-o", "--output", type=Path, required=True)
    given = parser.parse_args()
    in_all = set.intersection(*({file.name for file in row.glob("*.png")} for row in given.rows))
    names = sorted(in_all, key=lambda name: hashlib.sha256(name.encode()).hexdigest())[: given.pictures]
    size = (len(names) * (SIDE + GAP) + GAP, len(given.rows) * (SIDE + GAP) + GAP)
    sheet = Image.new("RGB", size, "white")
    for y, row in enumerate(given.rows):
        for x, name in enumerate(names):
            with Image.open(row / name) as picture:
                place = (GAP + x * (SIDE + GAP), GAP + y * (SIDE + GAP))
                sheet.paste(picture.convert("RGB").resize((SIDE, SIDE)), place)
    sheet.quantize(128).save(given.output, optimize=True)


if __name__ == "__main__":
    main()
