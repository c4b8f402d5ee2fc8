"""No concept that is held out, nor one drawn like it, is trained on."""

import zlib
from pathlib import Path

import data
import more
import numpy as np
import pytest
import torch
from torch import Tensor

from sdcorrect.config import load_job

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("six-oclock", "eleven-thirty"),
        ("man-mage", "woman-mage"),
        ("mage", "man-mage"),
        ("person-in-tuxedo", "man-in-tuxedo"),
        ("keycap-5", "keycap-asterisk"),
        ("closed-mailbox-with-lowered-flag", "open-mailbox-with-raised-flag"),
        ("o-button-blood-type", "p-button"),
        ("speak-no-evil-monkey", "see-no-evil-monkey"),
        ("waxing-gibbous-moon", "first-quarter-moon"),
    ],
)
def test_near_twins_are_one_family(one: str, other: str) -> None:
    assert data.family(one) == data.family(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [("six-oclock", "alarm-clock"), ("man-mage", "man-singer"), ("church", "school"), ("gear", "bear")],
)
def test_others_are_not(one: str, other: str) -> None:
    assert data.family(one) != data.family(other)


@pytest.fixture
def icons(tmp_path: Path) -> data.Icons:
    """The held-out concepts and a few others, each set drawing every concept in noise of its own."""
    held_out = data.HELD_OUT.read_text().split()
    names = [*held_out, "woman-mage", "seven-thirty", "llama", "ladder", "chapel"]
    random = np.random.default_rng(0)
    sets = {name: random.integers(0, 256, (len(names), 64, 64, 3), np.uint8) for name in data.STYLES}
    sets["noto"][-1] = sets["noto"][names.index("church")] // 2 * 2
    np.savez(tmp_path / "icons.npz", names=np.array(names), **sets)
    return data.Icons(tmp_path)


def test_trains_on_neither_the_held_out_nor_their_twins_by_name_or_looks(icons: data.Icons) -> None:
    assert [icons.names[i] for i in icons.trained_on] == ["llama", "ladder"]


def test_other_sets_keep_away_what_is_near_by_family_word_or_meaning(
    icons: data.Icons, monkeypatch: pytest.MonkeyPatch
) -> None:
    def meanings(texts: list[str]) -> Tensor:
        """Each text an axis of its own, but for an aubergine, which is an eggplant."""
        axes = torch.eye(1000)
        return axes[
            [zlib.crc32(text.replace("aubergine", "eggplant").encode()) % 1000 for text in texts]
        ]

    monkeypatch.setattr(more, "meanings", meanings)
    by_word = ["tractors", "church-tower", "elf-mage"]
    names = ["aubergine", *by_word, "woman-mage", "chapel", "llama", "black-button"]
    assert more.allowed(icons, names) == ["llama", "black-button"]


def test_other_sets_keep_away_what_is_drawn_like_a_held_out_concept(icons: data.Icons) -> None:
    church = icons.names.index("church")
    pictures = np.stack(
        [icons.pictures["twemoji"][church] // 2 * 2, 255 - icons.pictures["noto"][church]]
    )
    assert icons.drawn_like_held_out(pictures).tolist() == [True, False]


def test_holds_out_all_that_the_benchmark_translates(icons: data.Icons) -> None:
    job = load_job(ROOT / "configs" / "benchmark-icons.yaml", {})
    names = {file.stem for file in job.input.path.iterdir()}
    assert names == {icons.names[i] for i in icons.held_out}
    for style in ("3d", "ink"):
        assert {file.stem for file in (job.input.path.parent / style).iterdir()} == names


def test_examples_are_held_out() -> None:
    examples = {file.stem for file in (ROOT / "sdcorrect" / "assets" / "pictures").iterdir()}
    assert examples <= set(data.HELD_OUT.read_text().split())


def test_other_sets_keep_away_what_is_drawn_like_their_own_held_out_icons(
    icons: data.Icons, monkeypatch: pytest.MonkeyPatch
) -> None:
    church, llama = np.random.default_rng(1).integers(0, 256, (2, 64, 64, 3), np.uint8)
    drawn = {"church": church, "chapel": church // 2 * 2, "llama": llama}
    found = [("emojione", name, name) for name in drawn]
    monkeypatch.setattr(more, "candidates", lambda _: iter(found))
    monkeypatch.setattr(more, "drawn", lambda _, icon: drawn[icon])
    pictures = np.stack([drawn["chapel"], drawn["llama"]])
    assert more.distinct(icons, ["emojione"] * 2, pictures).tolist() == [False, True]
    # in another set the same picture is another's
    assert more.distinct(icons, ["noto-v1"] * 2, pictures).tolist() == [True, True]
