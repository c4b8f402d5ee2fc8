"""A job's settings for its model: the checkpoint, what is added to it, and how it is run.

Imports no torch.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    StrictFloat,
    StrictInt,
    ValidationInfo,
)

from sdcorrect.errors import near_path, printable
from sdcorrect.paths import expand

#: The name of the model that comes with the program.
EMBEDDED = "mini"
#: The roles in which it serves.
OF_EMBEDDED = ("model", "clip", "structure")
#: The hints that are computed from the pictures themselves.
CANNY = "canny"
#: The masks that are computed from the pictures themselves.
ALPHA, WORDS = "alpha", "words"
#: The names of a repository on the hub, and of a file in one.
HUB_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*")
HUB_FILE = re.compile(rf"(?P<repository>{HUB_ID.pattern})/(?P<file>.+)")
#: Endings of files of weights, which no repository's name has.
WEIGHTS = (".safetensors", ".ckpt", ".pt", ".pth", ".bin")
DType = Literal["auto", "float32", "float16", "bfloat16"]
#: The devices that diffusers supports; `auto` is the best of them here.
DEVICE = re.compile(r"auto|cpu|(cuda|mps|xpu)(:\d+)?")


class Settings(BaseModel):
    """Immutable settings that reject unknown keys.

    The line under a key describes it, and appears in `sdcorrect init`, the schema and the manual.
    """

    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


def known_device(name: str) -> str:
    """`name`, if it is the name of a device, whether this machine has it or not.

    Raises:
        ValueError: it is not.
    """
    if not DEVICE.fullmatch(name):
        raise ValueError(f"there is no device {name!r}; give auto, cpu, cuda, cuda:1, mps or xpu")
    return name


#: Validation context for paths as people wrote them, in contrast to those of a resolved job.
WRITTEN = {"written": True}


def _filled_in(path: Any, info: ValidationInfo) -> Any:
    if not isinstance(path, str):
        return path
    if not path.strip():
        raise ValueError("is empty; is a shell variable unset?")
    return expand(path) if info.context == WRITTEN else path


#: Expands `~` and `$VAR` in a path when a job is read.
FilledIn = BeforeValidator(_filled_in)
#: A file, a folder, a hub id (owner/name) or a file in a hub repository (owner/name/file).
Source = Annotated[str, FilledIn]


def _path_alone(value: Any) -> Any:
    return {"path": value} if isinstance(value, str) else value


class Lora(Settings):
    """A LoRA and its weight."""

    path: Source
    """a file, a peft folder or a hub id"""
    weight: StrictFloat = 1.0
    """weight: 0 has no effect, 1 applies the LoRA as trained"""


class TextualInversion(Settings):
    """A learned embedding, and the word that stands for it in prompts."""

    path: Source
    """a file or a hub id"""
    token: str | None = Field(None, min_length=1)
    """the word that stands for it in prompts; by default the one in the file, or the file's name"""


class ControlNet(Settings):
    """A ControlNet, its hints and its scale."""

    path: Source
    """a file, a diffusers folder or a hub id"""
    variant: str | None = None
    """which files of a hub id or a folder to load, such as fp16"""
    hint: Source = CANNY
    """canny, or a folder of hints, with one at the same relative path for each picture"""
    thresholds: tuple[StrictInt, StrictInt] = (50, 100)
    """low and high threshold of the Canny edge detector"""
    scale: Annotated[StrictFloat, Field(ge=0)] = 1.0
    """conditioning scale: 0 has no effect, 1 applies the ControlNet in full"""


class ModelSettings(Settings):
    """The settings of a job that concern the model."""

    model: Source = EMBEDDED
    """mini (the embedded model), a diffusers folder, a .safetensors or .ckpt file, or a hub id"""
    revision: str | None = None
    """branch, tag or commit of a hub id"""
    variant: str | None = None
    """which files of a hub id or a folder to load, such as fp16"""
    base_config: Source | None = None
    """for a single file: the model to take its tokenizer and configuration from"""
    prediction_type: Literal["epsilon", "v_prediction", "sample"] | None = None
    """what the U-Net predicts; by default as the model's configuration says"""
    zero_snr: StrictBool | None = None
    """rescale the betas to zero terminal SNR; by default as the model's configuration says"""
    timestep_spacing: Literal["leading", "trailing"] | None = None
    """how timesteps are spaced; by default as the model's configuration says"""
    vae: Source | None = None
    """replacement VAE: a file, a diffusers folder or a hub id; by default the model's own"""
    loras: tuple[Annotated[Lora, BeforeValidator(_path_alone)], ...] = ()
    """LoRAs, each a path or {path, weight}"""
    textual_inversions: tuple[Annotated[TextualInversion, BeforeValidator(_path_alone)], ...] = ()
    """textual inversions, each a path or {path, token}"""
    controlnets: tuple[Annotated[ControlNet, BeforeValidator(_path_alone)], ...] = ()
    """ControlNets, each a path or {path, hint, thresholds, scale, variant}"""
    prompt_syntax: Literal["plain", "weighted"] = "plain"
    """weighted understands (word:1.3), (word), [word] and BREAK as web UIs do, at any length"""
    safety_checker: StrictBool = False
    """run the checkpoint's safety checker; pictures that it flags fail and are not saved"""
    device: Annotated[str, AfterValidator(known_device)] = "auto"
    """auto, cpu, cuda, cuda:1 or mps; auto takes a CUDA device if there is one"""
    dtype: DType = "auto"
    """precision; auto is float16 on CUDA and float32 elsewhere"""
    vae_dtype: DType = "auto"
    """precision of the VAE; auto is dtype, or float32 if the VAE's configuration requires it"""
    tf32: StrictBool = False
    """compute float32 in TF32 on CUDA: faster, with a 10-bit mantissa"""
    vae_slicing: StrictBool = False
    """encode and decode one picture at a time, to save memory"""
    vae_tiling: StrictBool = False
    """encode and decode in tiles, to save memory on large pictures"""
    cpu_offload: StrictBool = False
    """keep only the part that is computing on the device"""
    channels_last: Literal["auto"] | StrictBool = "auto"
    """channels-last memory layout for convolutions, faster on some cards; auto uses it on CUDA"""
    skips_once: Literal["auto"] | StrictBool = "auto"
    """convolve only once the skips that stay the same; auto does on the CPU if the U-Net is large"""
    compile: StrictBool = False
    """compile parts of the U-Net: seconds to start; meant for GPUs"""
    offline: StrictBool = False
    """use only files that are already downloaded"""


def sources(settings: ModelSettings) -> Iterator[tuple[str, str]]:
    """What a job names for its model, each with its role as messages call it."""
    if settings.model != EMBEDDED:
        yield "model", settings.model
    for what, name in (("base_config", settings.base_config), ("vae", settings.vae)):
        if name is not None:
            yield what, name
    for lora in settings.loras:
        yield "lora", lora.path
    for inversion in settings.textual_inversions:
        yield "textual inversion", inversion.path
    for network in settings.controlnets:
        yield "controlnet", network.path


def can_be_on_hub(name: str) -> bool:
    is_id = HUB_ID.fullmatch(name) is not None and not name.endswith(WEIGHTS)
    return is_id or HUB_FILE.fullmatch(name) is not None


def no_such(what: str, name: str) -> str:
    """The message that the source `name` does not exist; `what` is its role.

    It suggests the nearest name in the same folder, or that of the embedded model.
    """
    also = [EMBEDDED] if what in OF_EMBEDDED and os.sep not in name else []
    hint = near_path(Path(name).expanduser(), "give one, or a hub id (owner/name)", also)
    return f"{what} {printable(name)}: there is no such file or folder; {hint}"


def anchor_sources(raw: dict[str, Any], folder: Path) -> None:
    """Make paths of the model's files in `folder` relative to the working directory, in place."""
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
        return value  # validation reports it, with its line
    return os.path.normpath(folder / filled) if filled and (folder / filled).exists() else value
