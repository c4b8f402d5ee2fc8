"""Render icons of many other sets, from which the image tower learns names and the U-Net styles."""

import json
import re
from collections.abc import Iterable
from itertools import chain
from pathlib import Path

import numpy as np
from data import ICONS, STYLES, Icons, drawn_like, family, say, spoken
from numpy.typing import NDArray
from PIL import Image
from render import CANVAS, SIZE, check, load, on_white, render
from words import emoji, emoji_codes, meanings

#: npm package below @iconify-json -> pattern of the icons to use; its group is the name of the thing.
SETS = {
    "emojione": r"(.*)",
    "emojione-monotone": r"(.*)",
    "noto-v1": r"(.*)",
    "streamline-emojis": r"(.*?)(?:-\d+)?",
    "streamline-ultimate-color": r"(.*?)(?:-\d+)?",
    "streamline-freehand-color": r"(.*?)(?:-\d+)?",
    "streamline-plump": r"(.*?)(?:-\d+)?(?:-solid)?",
    "flat-color-icons": r"(.*)",
    "icon-park": r"(.*?)(?:-(?:one|two|three|four|five))?",
    "healthicons": r"((?!.*(?:outline|negative|24px)).*)",
    "medical-icon": r"i-(.*)",
    "mdi": (
        r"((?!.*-(?:outline|variant|off|box|circle|plus|minus|remove|check|edit|lock|alert|cancel|cog)\b)"
        r".*)"
    ),
    "tabler": (
        r"((?!.*-(?:off|filled|plus|minus|x|check|up|down|cancel|cog|bolt|code|dollar|exclamation|heart|pause"
        r"|pin|question|search|share|star)$).*)"
    ),
    "material-symbols": r"((?!.*-(?:outline|rounded|sharp)(?:-|$)).*)",
    "ph": r"(.*)-fill",
    "fluent": r"(.*)-24-filled",
    "fa6-solid": r"(.*)",
    "solar": r"(.*)-bold",
    "mingcute": r"(.*?)(?:-\d)?-fill",
    "game-icons": r"(.*?)(?:-\d+)?",
    "streamline-kameleon-color": r"((?!.*-duo$).*?)(?:-\d+)?",
}
#: Pictures named by code points, not drawings, from a package of another owner.
CLAY, CLAY_FOLDER = "fluent-emoji-3d", ICONS / "node_modules" / "@lobehub" / "fluent-emoji-3d"
#: A set of emoji whose names are written without spaces.
RUN_TOGETHER = "fxemoji"
SKIN_TONE = re.compile(r"skin-tone|-(?:light|dark|medium|medium-light|medium-dark)$")
#: A name is left out if its similarity in meaning to a held-out one is above this.
NEAR = 0.6
#: Words of held-out names that many things share; names with any other word of theirs are left out.
COMMON = """
a b o ab in of with and man woman person face button hand red orange yellow green blue purple brown black
white large small medium square circle sign symbol open closed low lowered left right up down arrow flag
page book full moon box passing grade index finger thumb over mouth blood type running facing getting
tipping raising rolling eyes card oncoming single japanese clock thirty
"""


def chosen(icons: Icons) -> list[tuple[str, str, str]]:
    """(set, icon, name) of each icon that is neither held out nor a common concept of the five sets."""
    found = list(candidates(icons))
    names = sorted({name for _, _, name in found})
    away = set(names) - set(allowed(icons, names))
    say(f"{len(away)} of {len(names)} names are close to a held-out one")
    return [(of, icon, spoken(name)) for of, icon, name in found if name not in away]


def candidates(icons: Icons) -> Iterable[tuple[str, str, str]]:
    """(set, icon, name) of each icon of any set, except the common concepts of the five."""
    own = set(icons.names)
    found = []
    for style in STYLES:
        found += [(style, icon, icon) for icon in load(style)["icons"] if icon not in own]
    for name, pattern in SETS.items():
        matched = ((icon, re.fullmatch(pattern, icon)) for icon in load(name)["icons"])
        found += [(name, icon, match[1]) for icon, match in matched if match]
    known = {name.replace("-", ""): name for name in {*own, *map(_dashed, emoji())}}
    found += [(RUN_TOGETHER, icon, known[icon]) for icon in load(RUN_TOGETHER)["icons"] if icon in known]
    check(CLAY, json.loads((CLAY_FOLDER / "package.json").read_text())["license"])
    found += [
        (CLAY, code, _dashed(name)) for code, name in emoji_codes().items() if _file(code).exists()
    ]
    return (row for row in found if not SKIN_TONE.search(row[2]) and not row[2].startswith("flag-"))


def _dashed(name: str) -> str:
    return name.replace(" ", "-")


def _file(code: str) -> Path:
    return CLAY_FOLDER / "assets" / f"{code}.webp"


def allowed(icons: Icons, names: list[str]) -> list[str]:
    """Those of `names` that share no distinctive word and no meaning with a held-out concept.

    Names from the families of concepts that are not trained on are left out too.
    """
    concepts = [icons.names[index] for index in icons.held_out]
    families = {family(name) for name in set(icons.names) - {icons.names[i] for i in icons.trained_on}}
    telling = set(chain(*(concept.split("-") for concept in concepts))) - set(COMMON.split())
    meaning, held = (meanings([spoken(name) for name in of]) for of in (names, concepts))
    return [
        name
        for name, nearest in zip(names, (meaning @ held.T).amax(1).tolist(), strict=True)
        if nearest <= NEAR
        and family(name) not in families
        and not telling & {*name.split("-"), *(word.rstrip("s") for word in name.split("-"))}
    ]


def drawn(of: str, icon: str) -> NDArray[np.uint8]:
    """(64, 64, 3), on white."""
    clay = of == CLAY
    picture = on_white(Image.open(_file(icon)).convert("RGBA")) if clay else render(load(of), icon)
    return np.asarray(picture.reduce(CANVAS // SIZE))


def of_held_out(icons: Icons) -> dict[str, list[str]]:
    """Further set -> its icons of held-out concepts."""
    names = {icons.names[index] for index in icons.held_out}
    found: dict[str, list[str]] = {}
    for of, icon, name in candidates(icons):
        if name in names:
            found.setdefault(of, []).append(icon)
    return found


def distinct(icons: Icons, sets: list[str], pictures: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Which pictures do not look like a held-out concept, in the five sets or in their own."""
    alike = icons.drawn_like_held_out(pictures)
    for of, held in of_held_out(icons).items():
        mine = np.flatnonzero([name == of for name in sets])
        alike[mine] |= drawn_like(pictures[mine], np.stack([drawn(of, icon) for icon in held]))
    return ~alike


def main() -> None:
    icons = Icons()
    rows = chosen(icons)
    pictures = np.stack([drawn(of, icon) for of, icon, _ in rows])
    sets = [of for of, _, _ in rows]
    # some icons are empty
    seen = (pictures < 250).any(-1).mean((1, 2)) >= 0.01
    kept = np.flatnonzero(distinct(icons, sets, pictures) & seen)
    names = np.array([rows[i][2] for i in kept])
    np.savez_compressed(
        ICONS / "more.npz", names=names, sets=np.array(sets)[kept], pictures=pictures[kept]
    )
    say(f"{len(names)} more icons drawn, of {len(np.unique(names))} names")


if __name__ == "__main__":
    main()
