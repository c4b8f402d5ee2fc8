"""Render icons of many other sets, for the image tower: their names, but no style, are learned."""

import re
from itertools import chain
from typing import Any

import numpy as np
from data import ICONS, STYLES, Icons, family, say, spoken
from numpy.typing import NDArray
from render import CANVAS, SIZE, load, render
from words import meanings

#: npm package below @iconify-json -> which of its icons, and what of their names is the thing's name.
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
}
SKIN_TONE = re.compile(r"skin-tone|-(?:light|dark|medium|medium-light|medium-dark)$")
#: A name this near in meaning to a held-out one is held out with it.
NEAR = 0.6
#: Words of held-out names that many things share: the other words keep a name away.
COMMON = """
a b o ab in of with and man woman person face button hand red orange yellow green blue purple brown black
white large small medium square circle sign symbol open closed low lowered left right up down arrow flag
page book full moon box passing grade index finger thumb over mouth blood type running facing getting
tipping raising rolling eyes card oncoming single japanese clock thirty
"""


def chosen(icons: Icons) -> list[tuple[str, str, str]]:
    """(set, icon, name) of each icon that is not of the five sets' common concepts, nor held out."""
    own = set(icons.names)
    found = []
    for style in STYLES:
        found += [(style, icon, icon) for icon in load(style)["icons"] if icon not in own]
    for name, pattern in SETS.items():
        matched = ((icon, re.fullmatch(pattern, icon)) for icon in load(name)["icons"])
        found += [(name, icon, match[1]) for icon, match in matched if match]
    found = [row for row in found if not SKIN_TONE.search(row[1])]
    names = sorted({name for _, _, name in found})
    away = set(names) - set(allowed(icons, names))
    say(f"{len(away)} of {len(names)} names are near to a held-out one")
    return [(of, icon, spoken(name)) for of, icon, name in found if name not in away]


def allowed(icons: Icons, names: list[str]) -> list[str]:
    """Those of `names` that share no family, no telling word and no meaning with a held-out concept."""
    concepts = [icons.names[index] for index in icons.held_out]
    families = {family(concept) for concept in concepts}
    telling = set(chain(*(concept.split("-") for concept in concepts))) - set(COMMON.split())
    meaning, held = (meanings([spoken(name) for name in of]) for of in (names, concepts))
    return [
        name
        for name, nearest in zip(names, (meaning @ held.T).amax(1).tolist(), strict=True)
        if nearest <= NEAR
        and family(name) not in families
        and not telling & {*name.split("-"), *(word.rstrip("s") for word in name.split("-"))}
    ]


def draw(rows: list[tuple[str, str, str]]) -> tuple[list[str], NDArray[np.uint8]]:
    """The names and the pictures (icons, 64, 64, 3) of `rows`, but for those that draw nothing."""
    sets: dict[str, Any] = {name: load(name) for name in {of for of, _, _ in rows}}
    names, pictures = [], []
    for of, icon, name in rows:
        picture = np.asarray(render(sets[of], icon).reduce(CANVAS // SIZE))
        if (picture < 250).any(-1).mean() < 0.01:
            continue
        names.append(name)
        pictures.append(picture)
    return names, np.stack(pictures)


def main() -> None:
    icons = Icons()
    names, pictures = draw(chosen(icons))
    distinct = ~icons.drawn_like_held_out(pictures)
    names = [name for name, keep in zip(names, distinct, strict=True) if keep]
    np.savez_compressed(ICONS / "more.npz", names=np.array(names), pictures=pictures[distinct])
    say(f"{len(names)} more icons drawn, of {len(set(names))} names")


if __name__ == "__main__":
    main()
