"""Draw pictures of overlapping shapes in flat colours, which no icon set contains.

    python scripts/research/draw_shapes.py FOLDER [COUNT]

They are a second check of recipes that were chosen on icons: there is no true translation, but structure
and style can be measured. The same number draws the same picture.
"""

import math
import random
import sys
from pathlib import Path

from PIL import Image, ImageDraw

SIDE, SCALE = 64, 8
COLOURS = [
    "#e6194b",
    "#3cb44b",
    "#ffb000",
    "#4363d8",
    "#f58231",
    "#911eb4",
    "#46c8f0",
    "#7a4a1e",
    "#555555",
]


def drawn(number: int) -> Image.Image:
    """Two to four shapes on white, (64, 64)."""
    chance = random.Random(number)
    picture = Image.new("RGB", (SIDE * SCALE, SIDE * SCALE), "white")
    pen = ImageDraw.Draw(picture)
    for colour in chance.sample(COLOURS, chance.randint(2, 4)):
        x, y, radius = (chance.randint(*limits) * SCALE for limits in ((18, 46), (18, 46), (9, 18)))
        corners, turn = chance.choice([0, 0, 3, 4, 5, 6]), chance.random() * math.tau
        if corners:
            angles = (turn + math.tau * k / corners for k in range(corners))
            pen.polygon([(x + radius * math.cos(a), y + radius * math.sin(a)) for a in angles], colour)
        else:
            width = chance.choice([0, 4 * SCALE])
            box = (x - radius, y - radius, x + radius, y + radius)
            pen.ellipse(box, None if width else colour, colour, width)
    return picture.resize((SIDE, SIDE), Image.Resampling.LANCZOS)


def main() -> None:
    folder, count = Path(sys.argv[1]), int((*sys.argv[2:], "24")[0])
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        drawn(number).save(folder / f"{number:02}.png")


if __name__ == "__main__":
    main()
