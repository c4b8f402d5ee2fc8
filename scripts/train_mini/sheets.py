"""Make sheets of the held-out translations of measure.sh, to judge them by eye.

    sheets.py all OUT all.png                source, recipes and truth of each icon
    sheets.py hidden BEFORE AFTER FOLDER     both models' results, numbered in random order
    sheets.py count FOLDER 3 17 20           how many results of each model have these numbers

Look at FOLDER/*.png of `hidden`, each result beside its source, note the numbers of those that you would
call good, and let `count` say whose they are: FOLDER/key.json knows.
"""

import argparse
import json
import random
from pathlib import Path

from data import ROOT, say
from PIL import Image, ImageDraw

SOURCE, TRUTH = (ROOT / "sdcorrect" / "assets" / "icons" / style for style in ("flat", "3d"))
#: px of an icon, between icons, and of a number.
SIDE, GAP, NUMBER = 64, 4, 12
#: Icons per row in a sheet of all; pairs per row in a hidden one, and pairs in total.
ICONS, COLUMNS, PAIRS = 20, 8, 80


def opened(file: Path) -> Image.Image:
    with Image.open(file) as picture:
        return picture.convert("RGB").resize((SIDE, SIDE))


def names() -> list[str]:
    return sorted(file.name for file in SOURCE.iterdir())


def grid(tiles: list[Image.Image], columns: int) -> Image.Image:
    width, height = tiles[0].width + GAP, tiles[0].height + GAP
    sheet = Image.new("RGB", (columns * width, -(-len(tiles) // columns) * height), "white")
    for place, tile in enumerate(tiles):
        sheet.paste(tile, (place % columns * width, place // columns * height))
    return sheet


def sheet_of_all(out: Path, file: Path) -> None:
    recipes = sorted(found.parent for found in (out / "3d").glob(f"*/{names()[0]}"))
    folders = [SOURCE, *recipes, TRUTH]
    grid([grid([opened(folder / name) for folder in folders], 1) for name in names()], ICONS).save(file)
    say(f"{file}: from above the source, {', '.join(folder.name for folder in recipes)}, the truth")


def numbered(number: int, source: Path, result: Path) -> Image.Image:
    pair = grid([opened(source), opened(result)], 2)
    tile = Image.new("RGB", (pair.width, pair.height + NUMBER), "white")
    ImageDraw.Draw(tile).text((0, 0), str(number), fill="black")
    tile.paste(pair, (0, NUMBER))
    return tile


def hidden_sheets(before: Path, after: Path, folder: Path, recipe: str) -> None:
    results = [(out, name) for out in (before, after) for name in names()]
    random.SystemRandom().shuffle(results)
    folder.mkdir(parents=True)
    for start in range(0, len(results), PAIRS):
        tiles = [
            numbered(number, SOURCE / name, out / "3d" / recipe / name)
            for number, (out, name) in enumerate(results[start : start + PAIRS], start)
        ]
        grid(tiles, COLUMNS).save(folder / f"{start}.png")
    (folder / "key.json").write_text(json.dumps([[out.name, name] for out, name in results]))
    say(f"{len(results)} results: {folder}")


def count(folder: Path, numbers: list[int]) -> None:
    key = json.loads((folder / "key.json").read_text())
    for model in sorted({model for model, _ in key}):
        good = sum(key[number][0] == model for number in set(numbers))
        say(f"{model}: {good} of {sum(of == model for of, _ in key)}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    ways = parser.add_subparsers(dest="way", required=True)
    whole = ways.add_parser("all")
    whole.add_argument("out", type=Path)
    whole.add_argument("png", type=Path)
    hidden = ways.add_parser("hidden")
    for name in ("before", "after", "folder"):
        hidden.add_argument(name, type=Path)
    hidden.add_argument("--recipe", default="correct-wide")
    counted = ways.add_parser("count")
    counted.add_argument("folder", type=Path)
    counted.add_argument("numbers", type=int, nargs="*")
    flags = parser.parse_args()
    if flags.way == "all":
        sheet_of_all(flags.out, flags.png)
    elif flags.way == "hidden":
        hidden_sheets(flags.before, flags.after, flags.folder, flags.recipe)
    else:
        count(flags.folder, flags.numbers)


if __name__ == "__main__":
    main()
