"""Any Stable Diffusion checkpoint: find it, know its family before it is loaded, load it."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import diffusers
import transformers
from diffusers import (
    AutoencoderKL,
    DiffusionPipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
)
from diffusers.loaders.single_file_utils import SingleFileComponentError
from safetensors import SafetensorError
from torch import dtype as DType
from torch import nn

from sdcorrect.errors import UsageError
from sdcorrect.models.accounts import (
    account_for,
    account_for_header,
    account_for_loading,
    notices,
)
from sdcorrect.models.original import taken
from sdcorrect.models.sources import Finder, Found, local
from sdcorrect.models.tensors import read_header, read_shapes
from sdcorrect.settings import ModelSettings

MINI = Path(__file__).parents[1] / "assets" / "mini"
Pipeline: TypeAlias = StableDiffusionPipeline | StableDiffusionXLPipeline

#: How a single file names its text encoder, and whose tokenizer and settings such a model takes.
SINGLE_FILE_FAMILIES = {
    "cond_stage_model.transformer.": "stable-diffusion-v1-5/stable-diffusion-v1-5",
    "cond_stage_model.model.": "stabilityai/stable-diffusion-2-1",
    "conditioner.embedders.1.": "stabilityai/stable-diffusion-xl-base-1.0",
}
#: What is not loaded with a pipeline, and so not downloaded either.
SAFETY_CHECKER = {"safety_checker": None, "feature_extractor": None}
LEFT_OUT = {**SAFETY_CHECKER, "image_encoder": None}
#: The parts that have weights, of which all must be used, and the libraries whose classes they are.
MODELS = ("unet", "vae", "text_encoder", "text_encoder_2")
LIBRARIES = {"diffusers": diffusers, "transformers": transformers}
#: How a single file names its VAE.
VAE_PREFIX = "first_stage_model."
CONFIG_FILES = ("*.json", "*.txt", "*.model")
SAFETY_CHECKER_FILES = ("safety_checker/*.safetensors",)
#: The folders of a pipeline's parts, by which it is known: not single files or mini's CLIP beside them.
PARTS = ("unet", "vae", "text_encoder*", "tokenizer*", "scheduler", *SAFETY_CHECKER)
PART_FILES = tuple(
    f"{part}/*.{kind}" for part in PARTS for kind in ("safetensors", "bin", "json", "txt")
)


@dataclass(frozen=True)
class Checkpoint:
    """A whole Stable Diffusion on this machine, recognised and not loaded yet."""

    name: str
    path: Path  #: a folder in diffusers' format, or a single file in the original one
    identity: str  #: SHA-256 of its content, or the revision of a hub id
    config: Path  #: the diffusers folder that its settings come from
    base_identity: str | None = None  #: of a single file: what identifies those settings
    has_vae: bool = True

    @property
    def pipeline_class(self) -> type[Pipeline]:
        index = read_index(self.name, self.config)
        return StableDiffusionXLPipeline if "text_encoder_2" in index else StableDiffusionPipeline


def find_checkpoint(settings: ModelSettings, finder: Finder) -> Checkpoint:
    """The checkpoint that a job names, downloaded where the hub has it.

    Raises:
        UsageError: it is not there, or is not a Stable Diffusion that translates pictures.
    """
    name = settings.model
    found = _find(settings, finder)
    if found.path.is_file():
        return _single_file(settings, finder, found)
    _check_folder(name, found.path)
    identity = f"{found.identity} {settings.variant}" if settings.variant else found.identity
    return Checkpoint(name, found.path, identity, found.path)


def load_pipeline(
    checkpoint: Checkpoint, dtype: DType, *, variant: str | None, vae: AutoencoderKL | None
) -> Pipeline:
    """Load `checkpoint` on the CPU in `dtype`, with `vae` instead of its own where one is given.

    Raises:
        UsageError: it is broken, or lacks a part.
    """
    name = checkpoint.name
    if vae is None and not checkpoint.has_vae:
        raise UsageError(f"model {name}: holds no VAE; name one with vae: stabilityai/sd-vae-ft-mse")
    given = LEFT_OUT if vae is None else LEFT_OUT | {"vae": vae}
    known = checkpoint.pipeline_class._get_signature_keys(checkpoint.pipeline_class)[0]
    options: dict[str, Any] = {key: value for key, value in given.items() if key in known}
    if checkpoint.pipeline_class is StableDiffusionXLPipeline:
        options["add_watermarker"] = False
    else:
        options["requires_safety_checker"] = False
    try:
        with notices("model", name):
            pipe = _load(checkpoint, dtype, variant, options)
    except NotImplementedError:  # what torch says of moving a tensor that has no content
        raise UsageError(f"model {name}: some tensors of its U-Net or VAE are absent") from None
    except (
        OSError,
        ValueError,
        TypeError,
        KeyError,
        RuntimeError,
        AttributeError,
        SafetensorError,
        SingleFileComponentError,
    ) as error:
        reason = " ".join(str(error).split()).partition(" Please load")[0]  # advice for programmers
        raise UsageError(f"model {name}: not a whole Stable Diffusion checkpoint: {reason}") from None
    _refuse_gaps(name, pipe)
    if checkpoint.path.is_file():
        _account_for_single_file(checkpoint, pipe)
    _read_at_the_end(pipe)
    return pipe


def _read_at_the_end(pipe: Pipeline) -> None:
    """Have the text encoders take the pooled text from the token that ends it.

    Published ones say `eos_token_id: 2`, with which transformers takes it from the highest token: the
    end too, unless there are learned words.
    """
    for part, tokenizer in (("text_encoder", "tokenizer"), ("text_encoder_2", "tokenizer_2")):
        if encoder := pipe.components.get(part):
            end = pipe.components[tokenizer].eos_token_id
            encoder.config.eos_token_id = end
            getattr(encoder, "text_model", encoder).eos_token_id = end


def _load(
    checkpoint: Checkpoint, dtype: DType, variant: str | None, options: dict[str, Any]
) -> Pipeline:
    if checkpoint.path.is_file():
        return checkpoint.pipeline_class.from_single_file(
            str(checkpoint.path),
            config=str(checkpoint.config),
            local_files_only=True,
            dtype=dtype,
            **options,
        )
    index = read_index(checkpoint.name, checkpoint.path)
    parts = {
        part: _load_part(checkpoint, part, index[part], dtype, variant)
        for part in MODELS
        if part not in options and any(index.get(part, ()))
    }
    return checkpoint.pipeline_class.from_pretrained(
        checkpoint.path, variant=variant, local_files_only=True, dtype=dtype, **options, **parts
    )


def _load_part(
    checkpoint: Checkpoint, part: str, kind: Sequence[str], dtype: DType, variant: str | None
) -> nn.Module:
    """One of the models in a diffusers folder, of the library and class `kind`: all of its file."""
    folder, (library, name) = checkpoint.path / part, kind
    has_variant = any(folder.glob(f"*.{variant}[.-]*"))  # a variant may be of some parts alone
    module, told = getattr(LIBRARIES[library], name).from_pretrained(
        folder,
        variant=variant if has_variant else None,
        local_files_only=True,
        dtype=dtype,
        output_loading_info=True,
    )
    account_for_loading("model", checkpoint.name, part, told)
    return module


def _account_for_single_file(checkpoint: Checkpoint, pipe: Pipeline) -> None:
    shapes = read_shapes("model", checkpoint.path)
    used = taken(shapes, pipe.components)
    replaced = {key for key in shapes if key.startswith(VAE_PREFIX)}  # by the job's own VAE
    account_for("model", checkpoint.name, shapes, used | replaced)
    account_for_header("model", checkpoint.name, read_header("model", checkpoint.path), ())


def read_index(name: str, folder: Path) -> dict[str, Any]:
    """The parts of a diffusers pipeline's folder and their classes.

    Raises:
        UsageError: it is not such a folder.
    """
    file = folder / "model_index.json"
    try:
        index = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UsageError(
            f"model {name}: that folder is no diffusers pipeline (no model_index.json)"
        ) from None
    except (OSError, ValueError) as error:
        raise UsageError(f"model {name}: {file.name} cannot be read: {error}") from None
    if not isinstance(index, dict):
        raise UsageError(f"model {name}: {file.name} is not that of a diffusers pipeline")
    return index


def _find(settings: ModelSettings, finder: Finder) -> Found:
    name = settings.model
    found = local("model", str(MINI) if name == "mini" else name, ("model_index.json", *PART_FILES))
    return found or finder.from_hub(
        "model",
        name,
        lambda: DiffusionPipeline.download(
            name,
            revision=settings.revision,
            variant=settings.variant,
            local_files_only=finder.cached_only,
            image_encoder=None,
            **({} if settings.safety_checker else SAFETY_CHECKER),
        ),
        settings.revision,
    )


def _single_file(settings: ModelSettings, finder: Finder, found: Found) -> Checkpoint:
    shapes = read_shapes("model", found.path)
    own_base = _base_of(settings.model, shapes)
    base = settings.base_config or own_base
    try:
        files = CONFIG_FILES + (SAFETY_CHECKER_FILES if settings.safety_checker else ())
        config = finder.find("base_config", base, files)
    except UsageError as error:
        raise UsageError(
            f"model {settings.model}: takes its tokenizer and settings from {base}; {error}"
        ) from None
    if not config.path.is_dir():
        raise UsageError(f"base_config {base}: expected a diffusers folder or a hub id")
    read_index(base, config.path)
    has_vae = any(key.startswith(VAE_PREFIX) for key in shapes)
    return Checkpoint(settings.model, found.path, found.identity, config.path, config.identity, has_vae)


def _base_of(name: str, shapes: Mapping[str, tuple[int, ...]]) -> str:
    """The hub id of the model whose family a single file's tensors tell."""
    first = shapes.get("model.diffusion_model.input_blocks.0.0.weight")
    if first is None:
        raise UsageError(
            f"model {name}: holds no Stable Diffusion U-Net; a LoRA belongs under `loras`, "
            "a VAE under `vae`, an embedding under `textual_inversions`"
        )
    _refuse_other_inputs(name, first[1])
    for prefix, base in SINGLE_FILE_FAMILIES.items():
        if any(key.startswith(prefix) for key in shapes):
            return base
    raise UsageError(f"model {name}: holds no text encoder of SD 1.x, SD 2.x or SDXL base")


def _check_folder(name: str, folder: Path) -> None:
    index = read_index(name, folder)
    parts = {part: value[1] for part, value in index.items() if isinstance(value, list) and value[1:]}
    if parts.get("unet") != "UNet2DConditionModel" or "Kandinsky" in str(index.get("_class_name")):
        kind = index.get("_class_name", "of unknown class")
        raise UsageError(
            f"model {name}: not a Stable Diffusion pipeline but {kind}; give SD 1.x, SD 2.x or SDXL base"
        )
    if parts.get("text_encoder") is None:
        raise UsageError(
            f"model {name}: has no first text encoder, as the SDXL refiner; give the SDXL base"
        )
    try:
        config = json.loads((folder / "unet" / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"model {name}: unet/config.json cannot be read: {error}") from None
    _refuse_other_inputs(name, config.get("in_channels", 4))


def _refuse_other_inputs(name: str, channels: int) -> None:
    if channels != 4:
        kind = {9: "an inpainting model", 8: "an InstructPix2Pix model"}.get(channels, "another model")
        raise UsageError(
            f"model {name}: its U-Net takes {channels} channels, which is {kind}; "
            "give one that takes the 4 of a latent"
        )


def _refuse_gaps(name: str, pipe: Pipeline) -> None:
    """diffusers leaves tensors that a file lacks without any content."""
    for part, module in pipe.components.items():
        if isinstance(module, nn.Module):
            absent = [key for key, value in module.named_parameters() if value.is_meta]
            if absent:
                raise UsageError(
                    f"model {name}: {len(absent)} tensors of its {part} are absent, such as {absent[0]}"
                )
