"""The networks behind the metrics: find their weights, or say which command downloads them."""

from pathlib import Path
from shlex import quote
from typing import Any, TypeVar

import torch
from huggingface_hub import constants
from transformers import AutoConfig, PretrainedConfig

from sdcorrect.errors import UsageError, one_line
from sdcorrect.models.checkpoints import MINI
from sdcorrect.models.sources import Finder, Found
from sdcorrect.settings import EMBEDDED, HUB_ID

MINI_CLIP = MINI / "clip"
FILES = ("*.json", "*.txt", "model.safetensors")

T = TypeVar("T")


def find_weights(what: str, name: str, finder: Finder) -> Found:
    """The folder or hub repository `name`; for `mini`, the CLIP that comes with the embedded model.

    Raises:
        UsageError: it is missing; the message has the command that downloads it.
    """
    path = str(MINI_CLIP) if name == EMBEDDED else name
    try:
        return finder.find(what, path, FILES)
    except UsageError as error:
        if not HUB_ID.fullmatch(path):
            raise
        reason = str(error).partition("; run `")[0]
        files = " ".join(f"--include '{pattern}'" for pattern in FILES)
        if constants.default_cache_path != constants.HF_HUB_CACHE:
            files += f" --cache-dir {quote(constants.HF_HUB_CACHE)}"
        raise UsageError(f"{reason}; download it with `hf download {name} {files}`") from None


def read_config(what: str, name: str, folder: Path, kinds: tuple[str, ...]) -> PretrainedConfig:
    """The configuration of a network, whose type must be one of `kinds` (transformers' names).

    Raises:
        UsageError: it cannot be read, or is of another type.
    """
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError) as error:
        raise UsageError(f"{what} {name}: not a model that can be loaded: {one_line(error)}") from None
    if config.model_type not in kinds:
        raise UsageError(f"{what} {name}: is a {config.model_type}; expected a {' or a '.join(kinds)}")
    return config


def load_network(what: str, name: str, kind: type[T], folder: Path, **options: Any) -> T:
    """Load a whole transformers model, in float32 so that measurements are the same everywhere.

    Raises:
        UsageError: it is broken, or weights are missing from it.
    """
    try:
        network, about = kind.from_pretrained(  # type: ignore[attr-defined]
            folder, dtype=torch.float32, local_files_only=True, output_loading_info=True, **options
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise UsageError(f"{what} {name}: cannot be loaded: {one_line(error)}") from None
    if about["missing_keys"]:
        raise UsageError(f"{what} {name}: weights are missing: {sorted(about['missing_keys'])[0]}, ...")
    return network.eval()


def load_reader(what: str, name: str, kind: type[T], folder: Path, **options: Any) -> T:
    """Load the tokenizer or image processor beside a network's weights.

    Raises:
        UsageError: it is missing.
    """
    try:
        return kind.from_pretrained(folder, local_files_only=True, **options)  # type: ignore[attr-defined]
    except (OSError, ValueError) as error:
        raise UsageError(
            f"{what} {name}: its tokenizer or preprocessor is missing: {one_line(error)}"
        ) from None
