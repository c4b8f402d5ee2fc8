"""The U-Net's training data: captioned pictures of many sets, augmented where the caption allows it."""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from itertools import chain

import torch
from data import MORE_STYLES, STYLES, Icons, as_pixels, more_icons
from torch import Generator, Tensor
from towers import augment, tokens_of
from transformers import CLIPTokenizer
from words import emoji

#: Probabilities of captions with name and style, style, keywords and style, kind and style, name, or
#: nothing.
TOLD = (0.27, 0.42, 0.06, 0.04, 0.06, 0.15)
#: Weights of pictures of further sets relative to the five: for emoji, and for signs and other icons.
EMOJI_WEIGHT, SIGN_WEIGHT = 0.5, 0.1
EMOJI_SETS = {
    "fluent-emoji-3d",
    "emojione",
    "emojione-monotone",
    "noto-v1",
    "fxemoji",
    "streamline-emojis",
}
#: Probability of turning the hue, if a picture allows it.
HUE = 0.1
#: These change their meaning if mirrored, or lose it: letters, digits, directions, clocks.
SIDED = re.compile(
    r"\b(?:left|right|clockwise|anticlockwise|keycap|button|letters?|numbers?|latin|oclock|thirty|clock"
    r"|watch|flags?|sign|symbol|text|abc|hundred|points|calendar|music\w*|currency|dollar|euro|pound|yen"
    r"|question|zzz|free|ok|top|back|soon|end|on|arrow|[a-z]|\d+)\b"
)
#: These change their meaning in another hue: things with a colour in their name, people, faces, hearts.
COLOURED = re.compile(
    r"\b(?:red|orange|yellow|green|blue|purple|brown|black|white|pink|grey|golden|rainbow|fire|blood|heart"
    r"|face|person|man|woman|boy|girl|people|hand|finger|body|family|role|fantasy|emotion|flag|sign)\b"
)
#: Sets in all colours; every other set has its own palette.
HUED = {*STYLES, *EMOJI_SETS}


@dataclass(frozen=True)
class Drawing:
    """The words for a picture: its name and its set, and for an emoji its keywords and its kind."""

    name: str
    set: str

    @property
    def style(self) -> str:
        return STYLES.get(self.set) or MORE_STYLES[self.set]

    @property
    def keywords(self) -> list[str]:
        words = emoji().get(self.name, ("", ""))[0]
        return [word for word in words.split(", ") if word and word not in self.name]

    @property
    def kind(self) -> str:
        return emoji().get(self.name, ("", ""))[1]

    @property
    def may_mirror(self) -> bool:
        return not SIDED.search(f"{self.name} {self.kind}")

    @property
    def may_turn_hue(self) -> bool:
        return self.set in HUED and not COLOURED.search(f"{self.name} {self.kind}")

    def captions(self, fits: Callable[[str], bool]) -> tuple[str, ...]:
        """In the order of `TOLD`, with the name in place of unknown keywords or kinds."""
        keywords = ", ".join(self.keywords[:3]) or self.name
        named, by_keywords, by_kind = (
            shortened(words, f"in {self.style}", fits)
            for words in (self.name, keywords, self.kind or self.name)
        )
        return named, f"in {self.style}", by_keywords, by_kind, shortened(self.name, "", fits), ""


def shortened(thing: str, style: str, fits: Callable[[str], bool]) -> str:
    """A caption, without the last words of the thing if they exceed the text encoder's limit."""
    words = thing.split()
    while not fits(caption := " ".join(["a", *words, *style.split()])):
        words.pop()
    return caption


class Pictures:
    """The U-Net's training data, on its device."""

    def __init__(self, icons: Icons, tokenizer: CLIPTokenizer, device: torch.device) -> None:
        rows, more = icons.rows(icons.trained_on), more_icons()
        drawings = [Drawing(icons.caption(concept), of) for concept, of in rows]
        further = [i for i, of in enumerate(more.sets) if of in STYLES or of in MORE_STYLES]
        drawings += [Drawing(more.names[i], more.sets[i]) for i in further]
        others = torch.from_numpy(more.pictures[further]).permute(0, 3, 1, 2)
        self.pictures = torch.cat([icons.tensor(rows), others]).to(device)
        self.weights = torch.tensor([_weight(d) for d in drawings], device=device)
        self.may_mirror = torch.tensor([d.may_mirror for d in drawings], device=device)
        self.may_turn_hue = torch.tensor([d.may_turn_hue for d in drawings], device=device)
        limit = tokenizer.model_max_length - 2

        @cache
        def fits(caption: str) -> bool:
            return len(tokenizer.tokenize(caption)) <= limit

        captions = [d.captions(fits) for d in drawings]
        unique = list(dict.fromkeys(chain(*captions)))
        places = {text: place for place, text in enumerate(unique)}
        self.ids = tokens_of(tokenizer, unique).short().to(device)
        # (pictures, kinds of caption)
        self.places = torch.tensor(
            [[places[text] for text in texts] for texts in captions], device=device
        )
        self.ways = torch.tensor(TOLD, device=device)

    def drawn(self, count: int, generator: Generator) -> tuple[Tensor, Tensor]:
        """A random batch: pixels (count, 3, 64, 64) as the VAE takes them, and tokens (count, 24)."""
        chosen = torch.multinomial(self.weights, count, True, generator=generator)
        ways = torch.multinomial(self.ways, count, True, generator=generator)
        pixels = turn_hue(as_pixels(self.pictures[chosen]), self.may_turn_hue[chosen], generator)
        pixels = augment(pixels, generator, self.may_mirror[chosen], nearest=0.9)
        return pixels, self.ids[self.places[chosen, ways]].long()


def _weight(drawing: Drawing) -> float:
    if drawing.set in STYLES:
        return 1.0
    return EMOJI_WEIGHT if drawing.set in EMOJI_SETS else SIGN_WEIGHT


def turn_hue(pixels: Tensor, may: Tensor, generator: Generator) -> Tensor:
    """Turn the colours of a share `HUE` of those that `may` by a random angle around the grey axis."""
    count = len(pixels)
    random = torch.rand(2, count, generator=generator, device=pixels.device)
    angle = torch.where(may & (random[0] < HUE), 2 * math.pi * random[1], 0)[:, None, None]
    axis = torch.full((3, 3), 1 / 3, device=pixels.device)
    cross = torch.tensor([[0, -1, 1], [1, 0, -1], [-1, 1, 0]], device=pixels.device) / math.sqrt(3)
    # Rodrigues' formula
    turn = axis + angle.cos() * (torch.eye(3, device=pixels.device) - axis) + angle.sin() * cross
    return torch.einsum("bij,bjhw->bihw", turn, pixels).clamp(-1, 1)
