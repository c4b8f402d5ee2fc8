"""Render the fetched icon sets to one file: 64 px on white, with a margin."""

import io
import json
import sys
from functools import cache
from typing import Any

import numpy as np
import resvg_py
from data import ICONS, STYLES, say
from PIL import Image

#: Licences that allow passing on pictures made with the set.
PERMISSIVE = {"MIT", "Apache-2.0", "CC-BY-3.0", "CC-BY-4.0"}
CANVAS, MARGIN, SIZE = 128, 8, 64


def check(name: str, licence: str) -> None:
    if licence not in PERMISSIVE:
        sys.exit(f"{name}: is under {licence}, which mini may not be trained on")


@cache
def load(name: str) -> dict[str, Any]:
    folder = ICONS / "node_modules" / "@iconify-json" / name
    check(name, json.loads((folder / "info.json").read_text())["license"]["spdx"])
    icons: dict[str, Any] = json.loads((folder / "icons.json").read_text())
    return icons


def concepts(sets: dict[str, dict[str, Any]]) -> list[str]:
    """Names that all sets draw, except skin tones and flags."""
    common = set.intersection(*(set(icons["icons"]) for icons in sets.values()))
    return sorted(n for n in common if "skin-tone" not in n and not n.startswith("flag-"))


def render(icons: dict[str, Any], name: str) -> Image.Image:
    """The icon on white, `CANVAS` px."""
    icon = icons["icons"][name]
    width, height = (icon.get(side, icons.get(side, 16)) for side in ("width", "height"))
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="0 0 {width} {height}">{icon["body"].replace("currentColor", "#000")}</svg>'
    )
    inner = CANVAS - 2 * MARGIN
    png = resvg_py.svg_to_bytes(svg_string=svg, width=inner, height=inner, skip_system_fonts=True)
    return on_white(Image.open(io.BytesIO(png)).convert("RGBA"))


def on_white(drawn: Image.Image) -> Image.Image:
    """An RGBA picture on white, with the margin: `CANVAS` px."""
    inner = CANVAS - 2 * MARGIN
    canvas = Image.new("RGBA", (CANVAS, CANVAS), "white")
    canvas.alpha_composite(drawn.resize((inner, inner)), (MARGIN, MARGIN))
    return canvas.convert("RGB")


def main() -> None:
    sets = {name: load(name) for name in STYLES}
    names = concepts(sets)
    stored: dict[str, Any] = {"names": np.array(names)}
    for style, icons in sets.items():
        stored[style] = np.stack([np.asarray(render(icons, n).reduce(CANVAS // SIZE)) for n in names])
        say(f"{style}: {len(names)} drawn")
    np.savez_compressed(ICONS / "icons.npz", **stored)


if __name__ == "__main__":
    main()
