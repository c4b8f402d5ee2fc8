"""What a job says of its model: which checkpoint, what is laid over it, and how it is computed.

Imports no torch.
"""

import os
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    StrictFloat,
    StrictInt,
    ValidationInfo,
)

from sdcorrect.paths import expand

#: The hints that are made from the pictures themselves.
CANNY = "canny"
#: The masks that are made from the pictures themselves.
ALPHA, WORDS = "alpha", "words"
DType = Literal["auto", "float32", "float16", "bfloat16"]


class Settings(BaseModel):
    """Settings that refuse keys they do not know, and never change.

    The line under a key says what it is: here, and in `sdcorrect init`, the schema and the manual.
    """

    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


#: Context of a validation in which paths are as people wrote them: not those of a job that was resolved.
WRITTEN = {"written": True}


def _filled_in(path: Any, info: ValidationInfo) -> Any:
    if not isinstance(path, str):
        return path
    if not path.strip():
        raise ValueError("is empty; is a variable of the shell not set?")
    return expand(path) if info.context == WRITTEN else path


#: Of a path, `~` and `$VAR` are filled in where a job is read.
FilledIn = BeforeValidator(_filled_in)
#: A file, a folder, a hub id (owner/name) or a file in a hub repository (owner/name/file).
Source = Annotated[str, FilledIn]


def _path_alone(value: Any) -> Any:
    return {"path": value} if isinstance(value, str) else value


class Lora(Settings):
    """A LoRA and how strongly it is laid over the model."""

    path: Source
    """a file, a folder of peft, or a hub id"""
    weight: StrictFloat = 1.0
    """how strongly: 0 is not at all, 1 as it was trained"""


class TextualInversion(Settings):
    """An embedding learned for a new word, and the word: the file's own, else the file's name."""

    path: Source
    """a file or a hub id"""
    token: str | None = Field(None, min_length=1)
    """the word that stands for it in prompts; by default the file's own, else the file's name"""


class ControlNet(Settings):
    """A ControlNet, the hints that it is shown and how strongly it acts."""

    path: Source
    """a file, a diffusers folder or a hub id"""
    variant: str | None = None
    """of a hub id or a folder: which files, such as fp16"""
    hint: Source = CANNY
    """canny, or a folder of ready-made hints: for each picture one at the same relative path"""
    thresholds: tuple[StrictInt, StrictInt] = (50, 100)
    """the two thresholds of canny"""
    scale: Annotated[StrictFloat, Field(ge=0)] = 1.0
    """how strongly it acts"""


class ModelSettings(Settings):
    """The model-side settings of a job."""

    model: Source = "mini"
    """mini (the embedded model), a diffusers folder, a .safetensors or .ckpt file, or a hub id"""
    revision: str | None = None
    """of a hub id: a branch, a tag or a commit"""
    variant: str | None = None
    """of a hub id or a folder: which files, such as fp16"""
    base_config: Source | None = None
    """of a single file: where its tokenizer and settings come from"""
    prediction_type: Literal["epsilon", "v_prediction", "sample"] | None = None
    """what the U-Net predicts; by default what the model says of itself"""
    zero_snr: StrictBool | None = None
    """whether the betas end without any signal; by default what the model says of itself"""
    timestep_spacing: Literal["leading", "trailing"] | None = None
    """how timesteps are spaced; by default as the model says of itself"""
    vae: Source | None = None
    """another VAE: a file, a diffusers folder or a hub id; by default the model's own"""
    loras: tuple[Annotated[Lora, BeforeValidator(_path_alone)], ...] = ()
    """LoRAs, each a path or {path, weight}"""
    textual_inversions: tuple[Annotated[TextualInversion, BeforeValidator(_path_alone)], ...] = ()
    """learned words, each a path or {path, token}"""
    controlnets: tuple[Annotated[ControlNet, BeforeValidator(_path_alone)], ...] = ()
    """ControlNets, each a path or {path, hint, thresholds, scale, variant}"""
    prompt_syntax: Literal["plain", "weighted"] = "plain"
    """weighted reads (word:1.3), (word), [word] and BREAK as web UIs do, at any length"""
    safety_checker: StrictBool = False
    """run the checkpoint's own; a picture that it flags fails, and is not saved"""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1 or mps; auto is CUDA where there is one"""
    dtype: DType = "auto"
    """precision; auto is float16 on CUDA, else float32"""
    vae_dtype: DType = "auto"
    """precision of the VAE; auto is dtype, but float32 where the VAE asks for it"""
    tf32: StrictBool = False
    """on CUDA compute float32 in TF32: faster, and of 10 bits"""
    vae_slicing: StrictBool = False
    """encode and decode one picture at a time, which saves memory"""
    vae_tiling: StrictBool = False
    """encode and decode in tiles, which saves memory on large pictures"""
    cpu_offload: StrictBool = False
    """keep on the device only the part that is computing"""
    #: the memory layout of convolutions; auto: where they are faster in it, on CUDA
    channels_last: Literal["auto"] | StrictBool = "auto"
    """another order in memory, faster on some cards"""
    compile: StrictBool = False
    """compile the U-Net: slow at first, faster on long runs"""
    offline: StrictBool = False
    """use what was downloaded before, and ask no hub"""


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
    if not isinstance(value, str):
        return value
    try:
        filled = expand(value, folder)
    except ValueError:
        return value  # validation tells of it, with its line
    return os.path.normpath(folder / filled) if filled and (folder / filled).exists() else value
