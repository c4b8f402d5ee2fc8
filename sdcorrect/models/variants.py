"""The weight files in a folder in diffusers' format: their variants, and which are unreadable."""

import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from huggingface_hub import get_cached_repo_tree
from huggingface_hub.errors import CachedRepoTreeNotFoundError

from sdcorrect.errors import UsageError, printable
from sdcorrect.models.hashes import files_below
from sdcorrect.models.sources import Found
from sdcorrect.models.tensors import SUFFIXES, read_shapes
from sdcorrect.settings import HUB_ID

_WEIGHTS = re.compile(
    r"(diffusion_pytorch_model|pytorch_model|model)(\.(?P<variant>[\w-]+?))?(-\d+-of-\d+)?"
    r"(\.(?P<legacy>\w+))?\.(safetensors|bin)(\.index(\.(?P<of_index>[\w-]+))?\.json)?"
)


def variant_of(file: str) -> str | None:
    """The variant in the name of a weight file, "" without one; None for other files."""
    match = _WEIGHTS.fullmatch(file)
    return match and (match["variant"] or match["legacy"] or match["of_index"] or "")


def weights_in(names: Iterable[str]) -> dict[str, set[str]]:
    """The variants of weights in each folder; "" for weights without a variant."""
    found: dict[str, set[str]] = {}
    for name in names:
        folder, _, file = name.rpartition("/")
        variant = variant_of(file)
        if variant is not None:
            found.setdefault(folder, set()).add(variant)
    return found


def listing(name: str, found: Found) -> set[str]:
    """The files of a folder; for a hub id, also those of its repository that were not downloaded."""
    names = {file.relative_to(found.path).as_posix() for file in files_below(found.path)}
    if HUB_ID.fullmatch(name) and not Path(name).exists():
        with suppress(CachedRepoTreeNotFoundError):  # downloaded by an older version of the hub's client
            names |= {file.path for file in get_cached_repo_tree(name, revision=found.path.name)}
    return names


def check_variant(
    what: str, weights: Mapping[str, set[str]], parts: Iterable[str], variant: str | None
) -> None:
    """Refuse a folder that lacks the weights that the job needs, and say which it has.

    A variant may exist for some parts only.

    Args:
        what: begins the message.
        weights: the result of `weights_in`.
        parts: the folders that are needed; "" is the folder itself.

    Raises:
        UsageError: weights or the variant are missing.
    """
    parts = list(parts)
    for part in parts:
        whose = f"weights of its {part}" if part else "weights"
        if part not in weights:
            raise UsageError(f"{what}: has no {whose} (.safetensors, .bin) under diffusers' file names")
        if not weights[part] & {"", variant}:
            owner = f"its {part} has" if part else "has"
            raise UsageError(f"{what}: {owner} only {_named(weights[part])}")
    if variant and not any(variant in weights[part] for part in parts):
        others = set.union(*(weights[part] for part in parts)) - {""}
        remedy = f"it has {_named(others)}" if others else "it has none; remove variant"
        raise UsageError(f"{what}: has no variant {printable(variant)}; {remedy}")


def _named(variants: set[str]) -> str:
    names = sorted(variants)
    return f"the variant{'s' * (len(names) > 1)} {', '.join(names)}; set variant: {names[0]}"


def refuse_unreadable(what: str, path: Path, variant: str | None) -> None:
    """If weights could not be loaded, name the file that is cut short or contains code, if any.

    Libraries only say that they failed, and how to load unsafely.

    Args:
        what: the role of the weights in the job; begins the message.
        path: a file, or a folder in diffusers' format; it may be missing.
        variant: the variant of the folder's files that was loaded.

    Raises:
        UsageError: there is such a file.
    """
    files = sorted(files_below(path)) if path.is_dir() else [path] if path.is_file() else []
    for file in files:
        if file.suffix in SUFFIXES and (path.is_file() or variant_of(file.name) in ("", variant)):
            read_shapes(what, file)
