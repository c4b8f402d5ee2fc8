"""Write the held-out icons of the sets that share outlines: the benchmark's pictures and their truth."""

from data import ROOT, Icons, say
from PIL import Image

FOLDER = ROOT / "sdcorrect" / "assets" / "icons"
STYLES = {"fluent-emoji-flat": "flat", "fluent-emoji": "3d", "fluent-emoji-high-contrast": "ink"}


def main() -> None:
    icons = Icons()
    for name, style in STYLES.items():
        (FOLDER / style).mkdir(parents=True, exist_ok=True)
        for concept in icons.held_out:
            file = FOLDER / style / f"{icons.names[concept]}.png"
            Image.fromarray(icons.pictures[name][concept]).save(file, optimize=True)
    say(f"{len(icons.held_out)} icons in {len(STYLES)} styles: {FOLDER.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
