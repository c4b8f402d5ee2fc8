"""The icons that mini is trained on: which sets, which of their concepts, and what is held out."""

import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

ROOT = Path(__file__).parents[2]
ICONS = ROOT / "build" / "icons"
HELD_OUT = Path(__file__).with_name("holdout.txt")

#: npm package of each set below @iconify-json -> what its style is called in a caption
STYLES = {
    "fluent-emoji-flat": "flat design style",
    "fluent-emoji": "3d render style",
    "fluent-emoji-high-contrast": "black and white ink style",
    "twemoji": "flat cartoon style",
    "noto": "glossy illustration style",
}
#: Further sets that the U-Net learns from -> the name of their style. They draw concepts of the five and
#: others. `more.npz` names them by their package.
MORE_STYLES = {
    "fluent-emoji-3d": "soft clay style",
    "emojione": "sticker style",
    "emojione-monotone": "stencil style",
    "noto-v1": "round blob style",
    "fxemoji": "bright vector style",
    "streamline-emojis": "outlined comic style",
    "streamline-ultimate-color": "outlined pastel style",
    "streamline-freehand-color": "hand drawn blue pen style",
    "streamline-kameleon-color": "round badge style",
    "flat-color-icons": "paper cut style",
    "icon-park": "thick blue line style",
    "game-icons": "woodcut style",
    "healthicons": "simple sign style",
    "ph": "solid glyph style",
    "tabler": "thin line style",
}
#: A picture: its concept and its set.
Row = tuple[int, str]

#: Concepts whose drawings differ only in a detail; if one is held out, all of them are.
FAMILIES = (
    r"(?:one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve)-(?:oclock|thirty)",
    r"(?:open|closed)-mailbox-.*",
    r"keycap-.*",
    r"(?:see|hear|speak)-no-evil-monkey",
    r"japanese-.*-button",
    r"(?:a|b|ab|o|p)-button(?:-.*)?",
    r"(?:waxing|waning)-.*-moon|(?:first|last)-quarter-moon|(?:new|full)-moon",
    r"(?:new|full)-moon-face",
    r"(?:black|white)-(?:large|medium|small|medium-small)-square",
    r"(?:red|orange|yellow|green|blue|purple|brown|black|white)-circle",
    r"(?:red|orange|yellow|green|blue|purple|brown)-square",
    r"repeat(?:-single)?-button",
    r"mobile-phone(?:-off|-with-arrow)?|no-mobile-phones",
    r"(?:fe|)male-sign",
    r"(?:up|down|left|right)(?:-left|-right)?-arrow",
    r"foggy|bridge-at-night|night-with-stars",
    r"cityscape(?:-at-dusk)?",
    r"(?:crossed|chequered)-flags?",
    r"page-(?:with-curl|facing-up)",
    r"pencil|memo",
    r"(?:non-)?potable-water",
    r"pig(?:-nose|-face)?",
    r"snowman(?:-without-snow)?",
    r"(?:oncoming-)?bus",
    r"trolleybus|tram|light-rail|minibus",
    r"high-heeled-shoe|womans-sandal",
    r"no-(?:littering|smoking|bicycles|pedestrians|entry|one-under-eighteen)|prohibited",
    r"(?:frowning|slightly-frowning|anguished)-face(?:-with-open-mouth)?",
    r"face-with-(?:open-eyes-and-)?hand-over-mouth",
    r"pinch(?:ing-hand|ed-fingers)",
    r"baguette-bread|bread",
    r"scooter|bicycle",
    r"seedling|herb",
    r"(?:four-leaf-clover|shamrock)",
    r"tornado|cyclone",
    r"construction(?:-worker)?|.*-construction-worker",
    r"baby(?:-angel)?|breast-feeding",
)
_GENDER = re.compile(r"^(?:wo)?(?:man|men)-|^person-|^(?:mrs|mx)-")


def family(name: str) -> str:
    """A key that `name` shares with its near-twins, such as the man, woman and person of one drawing."""
    for pattern in FAMILIES:
        if re.fullmatch(pattern, name):
            return pattern
    return _GENDER.sub("", name)


class Icons:
    """The rendered icons: a picture of each concept in each set."""

    def __init__(self, folder: Path = ICONS) -> None:
        with np.load(folder / "icons.npz") as stored:
            self.names: list[str] = stored["names"].tolist()
            #: set -> (concepts, 64, 64, 3), uint8
            self.pictures = {name: stored[name] for name in STYLES}

    @cached_property
    def held_out(self) -> list[int]:
        """The concepts of holdout.txt, in its order."""
        place = {name: index for index, name in enumerate(self.names)}
        return [place[name] for name in HELD_OUT.read_text().split()]

    @cached_property
    def trained_on(self) -> list[int]:
        """All other concepts, except near-twins of the held-out ones."""
        kept_away = {family(self.names[index]) for index in self.held_out} | self._look_alikes
        return [i for i, name in enumerate(self.names) if family(name) not in kept_away]

    @cached_property
    def _look_alikes(self) -> set[str]:
        """Families with a member that looks almost like a held-out concept in some set."""
        alike = [self.drawn_like_held_out(pictures, [of]) for of, pictures in self.pictures.items()]
        return {family(self.names[i]) for i in np.flatnonzero(np.any(alike, axis=0))}

    def drawn_like_held_out(
        self, pictures: NDArray[np.uint8], sets: Iterable[str] = tuple(STYLES)
    ) -> NDArray[np.bool_]:
        """Which of `pictures` (n, 64, 64, 3) look almost like a held-out concept in one of `sets`."""
        alike = [drawn_like(pictures, self.pictures[name][self.held_out]) for name in sets]
        return np.any(alike, axis=0)

    def caption(self, concept: int) -> str:
        return spoken(self.names[concept])

    def rows(self, concepts: list[int]) -> list[Row]:
        """(concept, set) of each picture of these concepts."""
        return [(i, name) for i in concepts for name in STYLES]

    def tensor(self, rows: list[Row]) -> Tensor:
        """(rows, 3, 64, 64), uint8."""
        pictures = np.stack([self.pictures[name][i] for i, name in rows])
        return torch.from_numpy(pictures).permute(0, 3, 1, 2).contiguous()


def drawn_like(pictures: NDArray[np.uint8], others: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Which of `pictures` (n, 64, 64, 3) look almost like one of `others`, relative to its ink."""
    small, held = _small(pictures), _small(others)
    square = (small**2).sum(1)[:, None] - 2 * small @ held.T + (held**2).sum(1)
    ink = ((1 - held) ** 2).sum(1)
    alike: NDArray[np.bool_] = (square < 0.06 * ink).any(1)
    return alike


def _small(pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
    """(n, 64, 64, 3) -> (n, 3072): at half the size, from 0 to 1."""
    halves = pictures.reshape(-1, 32, 2, 32, 2, 3).mean((2, 4), dtype=np.float32)
    return halves.reshape(len(pictures), 32 * 32 * 3) / 255


@dataclass(frozen=True)
class MoreIcons:
    """Icons of other sets, which draw many more things than the five share."""

    names: list[str]
    #: which set each is of
    sets: list[str]
    #: (icons, 64, 64, 3), uint8
    pictures: NDArray[np.uint8]


def more_icons(folder: Path = ICONS) -> MoreIcons:
    with np.load(folder / "more.npz") as stored:
        return MoreIcons(stored["names"].tolist(), stored["sets"].tolist(), stored["pictures"])


def spoken(name: str) -> str:
    """An icon's name with spaces."""
    return name.replace("-", " ")


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def as_pixels(pictures: Tensor) -> Tensor:
    """uint8 as the VAE takes it: float32 from -1 to 1."""
    return pictures.float() / 127.5 - 1
