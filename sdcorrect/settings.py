"""What a job says of its model: which checkpoint, what is laid over it, and how it is computed.

Imports no torch.
"""

import os
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

#: The hints that are made from the pictures themselves.
CANNY = "canny"
DType = Literal["auto", "float32", "float16", "bfloat16"]


class Settings(BaseModel):
    """Settings that refuse keys they do not know, and never change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def _path_alone(value: Any) -> Any:
    return {"path": value} if isinstance(value, str) else value


class Lora(Settings):
    """A LoRA and how strongly it is laid over the model."""

    path: str = Field(min_length=1)
    weight: float = 1.0


class TextualInversion(Settings):
    """An embedding learned for a new word, and the word: the file's own, else the file's name."""

    path: str = Field(min_length=1)
    token: str | None = Field(None, min_length=1)


class ControlNet(Settings):
    """A ControlNet, the hints that it is shown and how strongly it acts."""

    path: str = Field(min_length=1)
    variant: str | None = None  #: of a hub id or a folder: which files, such as fp16
    #: canny, or a folder of ready-made hints: for each picture one at the same relative path
    hint: str = Field(CANNY, min_length=1)
    thresholds: tuple[int, int] = (50, 100)  #: of canny
    scale: Annotated[float, Field(ge=0)] = 1.0


#: A file, a folder, a hub id (owner/name) or a file in a hub repository (owner/name/file).
Source = Annotated[str, Field(min_length=1)]


class ModelSettings(Settings):
    """The model-side settings of a job."""

    model: Source = "mini"
    revision: str | None = None  #: of a hub id: a branch, a tag or a commit
    variant: str | None = None  #: of a hub id or a folder: which files, such as fp16
    base_config: Source | None = None  #: of a single file: where its tokenizer and settings come from
    prediction_type: Literal["epsilon", "v_prediction", "sample"] | None = None
    #: whether the betas end without any signal; by default what the model says of itself
    zero_snr: bool | None = None
    timestep_spacing: Literal["leading", "trailing"] | None = None  #: by default the model's own
    vae: Source | None = None
    loras: tuple[Annotated[Lora, BeforeValidator(_path_alone)], ...] = ()
    textual_inversions: tuple[Annotated[TextualInversion, BeforeValidator(_path_alone)], ...] = ()
    controlnets: tuple[Annotated[ControlNet, BeforeValidator(_path_alone)], ...] = ()
    prompt_syntax: Literal["plain", "weighted"] = "plain"
    safety_checker: bool = False  #: the checkpoint's own; what it flags fails, and is not saved
    device: str = "auto"
    dtype: DType = "auto"
    vae_dtype: DType = "auto"
    vae_slicing: bool = False
    vae_tiling: bool = False
    cpu_offload: bool = False
    channels_last: bool = False
    compile: bool = False
    offline: bool = False


def anchor_sources(raw: dict[str, Any], folder: Path) -> None:
    """Make the model-side files that stand in `folder` relative to the working directory, in place."""
    for key in ("model", "base_config", "vae"):
        if key in raw:
            raw[key] = _anchored(raw[key], folder)
    for key in ("loras", "textual_inversions", "controlnets"):
        entries = raw.get(key)
        if isinstance(entries, list):
            raw[key] = [_anchored_entry(entry, folder) for entry in entries]


def _anchored_entry(entry: Any, folder: Path) -> Any:
    if not isinstance(entry, dict):
        return _anchored(entry, folder)
    sources = {key: value for key, value in entry.items() if key in ("path", "hint") and value != CANNY}
    return entry | {key: _anchored(value, folder) for key, value in sources.items()}


def _anchored(value: Any, folder: Path) -> Any:
    if isinstance(value, str) and (folder / Path(value).expanduser()).exists():
        return os.path.normpath(folder / Path(value).expanduser())
    return value
