"""Draw a small set in PIE-Bench's layout from the packaged icons: make_pie_set.py DIR [NUMBER]

It has NUMBER pictures (default 5) of each of four editing types. Each shows two icons side by side on
white, or one icon in the middle. The mask covers the edit, so any change outside it is an error of the
method. Use the set if you do not have PIE-Bench. Its prompts contain only words that the embedded model
knows: names of things, and styles.
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sdcorrect.inputs.pie_bench import PICTURES, SIDE

ICONS = Path(__file__).parents[1] / "sdcorrect" / "assets" / "icons" / "flat"
STYLE = "in flat design style"
#: Icons with names of one word, so that the words of the prompts align.
NAMES = (
    *("church", "ghost", "bicycle", "carrot", "violin", "pineapple", "snowman", "tent", "flamingo"),
    *("gear", "pencil", "backpack", "basketball", "compass", "eggplant", "giraffe", "television"),
)
#: Corner and side in px of the icon on the left, on the right and in the middle.
LEFT, RIGHT, MIDDLE = (16, 136, 240), (256, 136, 240), (0, 0, SIDE)
#: Folders as PIE-Bench names them.
FOLDERS = {"1": "1_change_object", "2": "2_add_object", "3": "3_delete_object", "9": "9_change_style"}

Place = tuple[int, int, int]


@dataclass(frozen=True)
class Edit:
    """A picture, its source and target prompts, and the edited region."""

    kind: str
    shown: dict[Place, str]
    original: str
    editing: str
    where: Place
    words: str = ""


def edits(names: Sequence[str], number: int) -> list[Edit]:
    """`number` edits of each kind."""
    made = []
    for i in range(number):
        one, other, third = (names[(3 * i + n) % len(names)] for n in range(3))
        both, alone = {LEFT: one, RIGHT: other}, {LEFT: one}
        pair = f"a {one} and a {other} {STYLE}"
        made += [
            Edit("1", both, pair, f"a {one} and a [{third}] {STYLE}", RIGHT, f"{other} {third}"),
            Edit("2", alone, f"a {one} {STYLE}", f"a {one} [and a {other}] {STYLE}", RIGHT),
            Edit("3", both, pair, f"a {one} {STYLE}", RIGHT),
            Edit("9", {MIDDLE: one}, f"a {one} {STYLE}", f"a {one} in [3d render] style", MIDDLE),
        ]
    return made


def draw(shown: dict[Place, str]) -> Image.Image:
    page = Image.new("RGB", (SIDE, SIDE), "white")
    for (x, y, side), name in shown.items():
        with Image.open(ICONS / f"{name}.png") as icon:
            large = icon.convert("RGB").resize((side, side), Image.Resampling.LANCZOS)
        page.paste(large, (x, y))
    return page


def inside(place: Place) -> NDArray[np.bool_]:
    x, y, side = place
    mask = np.zeros((SIDE, SIDE), dtype=bool)
    mask[y : y + side, x : x + side] = True
    return mask


def encode_mask(mask: NDArray[np.bool_]) -> list[int]:
    """The mask as starts and lengths of runs, row by row."""
    steps = np.diff(mask.ravel().astype(np.int8), prepend=0, append=0)
    starts, ends = np.flatnonzero(steps == 1), np.flatnonzero(steps == -1)
    runs: list[int] = np.column_stack([starts, ends - starts]).ravel().tolist()
    return runs


def write(folder: Path, number: int) -> None:
    mapping = {}
    for i, edit in enumerate(edits(NAMES, number)):
        key = f"{edit.kind}{i:011}"
        path = f"{FOLDERS[edit.kind]}_{number}/{key}.jpg"
        file = folder / PICTURES / path
        file.parent.mkdir(parents=True, exist_ok=True)
        draw(edit.shown).save(file, quality=95)
        mapping[key] = {
            "image_path": path,
            "original_prompt": edit.original,
            "editing_prompt": edit.editing,
            "editing_instruction": "",
            "editing_type_id": edit.kind,
            "blended_word": edit.words,
            "mask": encode_mask(inside(edit.where)),
        }
    (folder / "mapping_file.json").write_text(json.dumps(mapping))


def main() -> None:
    if len(sys.argv) not in {2, 3}:
        sys.exit("usage: make_pie_set.py DIR [NUMBER]")
    write(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) == 3 else 5)


if __name__ == "__main__":
    main()
