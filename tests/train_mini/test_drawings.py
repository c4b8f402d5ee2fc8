"""What the U-Net learns from: captions that keep their style, changes that keep a picture what it is."""

from collections.abc import Callable
from pathlib import Path

import data
import numpy as np
import pictures
import pytest
import tokenizer
import torch
import words
from pictures import Drawing

EMOJI = {
    "llama": ("animal, alpaca, wool", "animal mammal"),
    "right arrow": ("arrow, direction, east", "arrow"),
    "wrapped gift": ("box, celebration, present", "event"),
}


@pytest.fixture(autouse=True)
def _emoji(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "emoji", lambda: EMOJI)


def _always(caption: str) -> bool:
    return True


def test_a_caption_says_name_style_keywords_and_kind() -> None:
    assert Drawing("llama", "emojione").captions(_always) == (
        "a llama in sticker style",
        "in sticker style",
        "a animal, alpaca, wool in sticker style",
        "a animal mammal in sticker style",
        "a llama",
        "",
    )
    # of what is no emoji only the name is known
    assert Drawing("forklift", "tabler").captions(_always)[2:4] == ("a forklift in thin line style",) * 2


def _shorter_than(limit: int) -> Callable[[str], bool]:
    return lambda caption: len(caption.split()) <= limit


def test_a_long_name_is_cut_and_its_style_never() -> None:
    name = "person in suit levitating above the ground"
    named, _, _, _, alone, _ = Drawing(name, "noto-v1").captions(_shorter_than(7))
    assert named.endswith("in round blob style")
    assert len(named.split()) == 7
    assert alone == "a person in suit levitating above the"


@pytest.mark.parametrize(
    ("name", "mirror", "hue"),
    [
        ("llama", True, True),
        ("right arrow", False, True),
        ("wrapped gift", True, True),
        ("red apple", True, False),
        ("keycap 3", False, True),
        ("woman dancing", True, False),
        ("grinning face", True, False),
        ("watch", False, True),
    ],
)
def test_what_may_be_mirrored_and_painted_otherwise(name: str, mirror: bool, hue: bool) -> None:
    drawing = Drawing(name, "noto")
    assert (drawing.may_mirror, drawing.may_turn_hue) == (mirror, hue)


def test_a_set_with_a_palette_keeps_it() -> None:
    assert not Drawing("llama", "icon-park").may_turn_hue


def test_hues_turn_where_they_may_and_greys_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "HUE", 1.0)
    generator = torch.Generator().manual_seed(0)
    colours = torch.tensor([[0.5, -0.2, -0.3], [0.2, 0.2, 0.2], [1, 1, 1]]).T[None, :, :, None]
    pixels = colours.expand(3, -1, -1, 4)
    turned = pictures.turn_hue(pixels, torch.tensor([True, True, False]), generator)
    assert torch.allclose(turned[2], pixels[2])
    assert torch.allclose(turned[:, :, 1:], pixels[:, :, 1:], atol=1e-6)
    assert (turned[:2, :, 0] - pixels[:2, :, 0]).abs().amax((1, 2)).min() > 0.05
    # as bright as before, and as colourful
    assert torch.allclose(turned.mean(1), pixels.mean(1), atol=1e-6)
    assert torch.allclose(turned.norm(dim=1), pixels.norm(dim=1), atol=1e-5)


@pytest.fixture
def learned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> pictures.Pictures:
    """Of two concepts in the five sets and three icons of others, each picture in a grey of its own."""
    random = np.random.default_rng(0)
    held_out = data.HELD_OUT.read_text().split()
    names = [*held_out, "llama", "wrapped-gift"]
    sets = {name: random.integers(0, 256, (len(names), 64, 64, 3), np.uint8) for name in data.STYLES}
    for place, name in enumerate(data.STYLES):
        sets[name][-2:] = np.array([100, 110])[:, None, None, None] + place
    np.savez(tmp_path / "icons.npz", names=np.array(names), **sets)
    further = ["emojione", "tabler", "mdi"]
    greys = np.broadcast_to(np.array([200, 210, 220], np.uint8)[:, None, None, None], (3, 64, 64, 3))
    np.savez(
        tmp_path / "more.npz",
        names=np.array(["wrapped gift"] * 3),
        sets=np.array(further),
        pictures=greys,
    )
    monkeypatch.setattr(pictures, "more_icons", lambda: data.more_icons(tmp_path))
    reader = tokenizer.learned(["a llama in thin line style"] * 9, 530)
    return pictures.Pictures(data.Icons(tmp_path), reader, torch.device("cpu"))


def test_learns_from_no_held_out_concept_nor_a_set_without_a_style(learned: pictures.Pictures) -> None:
    greys = sorted(int(picture.unique()) for picture in learned.pictures)
    assert greys == [*range(100, 105), *range(110, 115), 200, 210]
    assert learned.weights.tolist() == pytest.approx([1.0] * 10 + [0.5, 0.1])


def test_draws_pictures_with_their_own_captions(learned: pictures.Pictures) -> None:
    pixels, ids = learned.drawn(64, torch.Generator().manual_seed(0))
    assert pixels.shape == (64, 3, 64, 64)
    # a grey is the same however it is turned
    grey = ((pixels.mean((1, 2, 3)) + 1) * 127.5).round().int()
    for told, value in zip(ids, grey, strict=True):
        mine = learned.places[learned.pictures[:, 0, 0, 0] == value].flatten()
        assert (learned.ids[mine].long() == told).all(1).any()


def test_emoji_have_names_by_their_code_points(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "node_modules" / "emojibase-data"
    (folder / "en").mkdir(parents=True)
    (folder / "en" / "data.json").write_text('[{"label": "Twelve O’Clock", "hexcode": "1F55B-FE0F"}]')
    monkeypatch.setattr(words, "ICONS", tmp_path)
    words.emoji_codes.cache_clear()
    assert words.emoji_codes() == {"1f55b-fe0f": "twelve oclock"}
    words.emoji_codes.cache_clear()
