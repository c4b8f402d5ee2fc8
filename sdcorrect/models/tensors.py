"""Read the tensors of a checkpoint file in any format, and never run code that it may contain."""

import pickle
import re
import warnings
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from zipfile import is_zipfile

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from sdcorrect.errors import UsageError
from sdcorrect.models.mistaken import mistaken_for_weights

PICKLES = {".ckpt", ".pt", ".pth", ".bin"}
SUFFIXES = {".safetensors", *PICKLES}


def read_shapes(what: str, file: Path) -> dict[str, tuple[int, ...]]:
    """The names and shapes of a file's tensors; of a .safetensors file, only the header is read.

    Raises:
        UsageError: it is not such a file, is cut short, or contains code.
    """
    if file.suffix != ".safetensors":
        tensors = read_tensors(what, file)
        return {key: tuple(value.shape) for key, value in tensors.items() if isinstance(value, Tensor)}
    with _opened(what, file) as content:
        return {key: tuple(content.get_slice(key).get_shape()) for key in content.keys()}  # noqa: SIM118


def read_header(what: str, file: Path) -> dict[str, str]:
    """The metadata in the header of a .safetensors file; other files have none.

    Raises:
        UsageError: it is cut short.
    """
    if file.suffix != ".safetensors":
        return {}
    with _opened(what, file) as content:
        return content.metadata() or {}


def read_some(what: str, file: Path, names: Collection[str]) -> dict[str, Tensor]:
    """The tensors of a file with these `names`, read without the others.

    Raises:
        UsageError: it is not such a file, is cut short, or contains code.
    """
    if file.suffix != ".safetensors":
        return {key: value for key, value in read_tensors(what, file).items() if key in names}
    with _opened(what, file) as content:
        return {key: content.get_tensor(key) for key in names}


def read_tensors(what: str, file: Path) -> dict[str, Any]:
    """The state dict of a file, unwrapped from the `state_dict` that trainers put around it.

    Raises:
        UsageError: it is not such a file, is cut short, or contains code.
    """
    if file.suffix not in SUFFIXES:
        raise UsageError(f"{what} {file}: not a checkpoint; expected {', '.join(sorted(SUFFIXES))}")
    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        content = _unpickle_weights(file)
    except pickle.UnpicklingError as error:
        refused = re.search(r"GLOBAL (\S+)", str(error))
        if refused:
            raise UsageError(
                f"{what} {file}: contains code beside its weights ({refused[1]}), which was not run; "
                "use the checkpoint's .safetensors version"
            ) from None
        if "persistent_load of storage" in str(error):
            raise UsageError(
                f"{what} {file}: contains whole modules, as torch before 1.6 wrote them; "
                "use a .safetensors version"
            ) from None
        raise _broken(what, file, error) from None
    except (SafetensorError, RuntimeError, EOFError, OSError) as error:
        raise _broken(what, file, error) from None
    while isinstance(content, dict) and "state_dict" in content:
        content = content["state_dict"]
    if not isinstance(content, dict):
        raise UsageError(f"{what} {file}: contains no named tensors")
    return content


@contextmanager
def _opened(what: str, file: Path) -> Iterator[Any]:
    """A .safetensors file, open for reading. Raises UsageError if it is cut short."""
    try:
        with safe_open(file, "pt") as content:
            yield content
    except (SafetensorError, OSError) as error:
        raise _broken(what, file, error) from None


def _unpickle_weights(file: Path) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # about pickle protocols that still load
        with torch.serialization.safe_globals([nn.ParameterDict]):  # textual inversions; runs no code
            return torch.load(file, map_location="cpu", weights_only=True, mmap=is_zipfile(file))


def _broken(what: str, file: Path, error: Exception) -> UsageError:
    if mistaken := mistaken_for_weights(file):
        return UsageError(f"{what} {file}: {mistaken}")
    reason = f": {error}" if isinstance(error, SafetensorError) else ""
    return UsageError(
        f"{what} {file}: cannot be read as weights{reason}; it may be cut short; download it again"
    )
