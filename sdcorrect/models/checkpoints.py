"""Find a Stable Diffusion checkpoint, recognise its family before loading, and load it."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import diffusers
import torch
import transformers
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DiffusionPipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from diffusers.loaders.single_file_utils import create_diffusers_clip_model_from_ldm
from torch import dtype as DType
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from sdcorrect.errors import UsageError
from sdcorrect.models.accounts import account_for, account_for_header, account_for_loading, notices
from sdcorrect.models.architecture import check_folder, read_config, refuse_other_inputs
from sdcorrect.models.original import taken, usual_name
from sdcorrect.models.reasons import MISFITS, reason_of
from sdcorrect.models.sources import Finder, Found, local
from sdcorrect.models.tensors import read_header, read_shapes, read_some
from sdcorrect.models.training import MARKS, Marks, read_marks
from sdcorrect.models.variants import check_variant, listing, refuse_unreadable, weights_in
from sdcorrect.settings import ModelSettings

MINI = Path(__file__).parents[1] / "assets" / "mini"
Pipeline: TypeAlias = StableDiffusionPipeline | StableDiffusionXLPipeline

#: The prefix of the text encoder in a single file -> its family, and where tokenizer and settings are.
SINGLE_FILE_FAMILIES = {
    "cond_stage_model.transformer.": ("SD 1.x", "stable-diffusion-v1-5/stable-diffusion-v1-5"),
    "cond_stage_model.model.": ("SD 2.x", "stabilityai/stable-diffusion-2-1"),
    "conditioner.embedders.1.": ("SDXL", "stabilityai/stable-diffusion-xl-base-1.0"),
}
#: Parts that are not loaded with a pipeline, nor downloaded.
SAFETY_CHECKER = {"safety_checker": None, "feature_extractor": None}
LEFT_OUT = {**SAFETY_CHECKER, "image_encoder": None}
#: The parts that have weights, all of which must be used, and the libraries of their classes.
MODELS = ("unet", "vae", "text_encoder", "text_encoder_2")
LIBRARIES = {"diffusers": diffusers, "transformers": transformers}
TEXT_ENCODERS = {"text_encoder": CLIPTextModel, "text_encoder_2": CLIPTextModelWithProjection}
#: The prefix of the VAE in a single file.
VAE_PREFIX = "first_stage_model."
CONFIG_FILES = ("*.json", "*.txt", "*.model")
SAFETY_CHECKER_FILES = tuple(
    f"safety_checker/{file}" for file in ("model.safetensors", "pytorch_model.bin", "*-of-*")
)
#: The folders that identify a pipeline; not single files or mini's CLIP beside them.
PARTS = ("unet", "vae", "text_encoder*", "tokenizer*", "scheduler", *SAFETY_CHECKER)
PART_FILES = tuple(f"{part}/*" for part in PARTS)


@dataclass(frozen=True)
class Checkpoint:
    """A whole Stable Diffusion on this machine, recognised but not loaded yet."""

    name: str
    path: Path  #: a folder in diffusers' format, or a single file in the original format
    identity: str  #: SHA-256 of its content, or the revision of a hub id
    config: Path  #: the diffusers folder that its configuration comes from
    base_identity: str | None = None  #: for a single file, the identity of that configuration
    has_vae: bool = True
    marks: Marks = Marks()  #: what a single file itself says about its training

    @property
    def pipeline_class(self) -> type[Pipeline]:
        index = read_index(f"model {self.name}", self.config)
        return StableDiffusionXLPipeline if "text_encoder_2" in index else StableDiffusionPipeline


def find_checkpoint(settings: ModelSettings, finder: Finder) -> Checkpoint:
    """Find the checkpoint that a job names, and download it if it is on the hub.

    Raises:
        UsageError: it is missing, or is not a Stable Diffusion that can translate pictures.
    """
    name = settings.model
    found = _find(settings, finder)
    if found.path.is_file():
        return _single_file(settings, finder, found)
    index = read_index(f"model {name}", found.path)
    check_folder(f"model {name}", found.path, index)
    weights = weights_in(listing(name, found))
    parts = [p for p in MODELS if any(index.get(p, ())) and not (p == "vae" and settings.vae)]
    check_variant(f"model {name}", weights, parts, settings.variant)
    identity = f"{found.identity} {settings.variant}" if settings.variant else found.identity
    return Checkpoint(name, found.path, identity, found.path)


def load_pipeline(
    checkpoint: Checkpoint,
    dtype: DType,
    *,
    scheduler: DDIMScheduler,
    variant: str | None,
    vae: AutoencoderKL | None,
) -> Pipeline:
    """Load `checkpoint` on the CPU in `dtype`, with `vae` instead of its own if given.

    Raises:
        UsageError: it is broken, or lacks a part.
    """
    name = checkpoint.name
    if vae is None and not checkpoint.has_vae:
        raise UsageError(f"model {name}: contains no VAE; set one, vae: stabilityai/sd-vae-ft-mse")
    given = LEFT_OUT | {"scheduler": scheduler} | ({} if vae is None else {"vae": vae})
    known = checkpoint.pipeline_class._get_signature_keys(checkpoint.pipeline_class)[0]
    options: dict[str, Any] = {key: value for key, value in given.items() if key in known}
    if checkpoint.pipeline_class is StableDiffusionXLPipeline:
        options["add_watermarker"] = False
    else:
        options["requires_safety_checker"] = False
    try:
        with notices("model", name):
            pipe = _load(checkpoint, dtype, variant, options)
    except NotImplementedError:  # torch's error for moving a tensor without content
        raise UsageError(f"model {name}: some tensors of its U-Net or VAE are missing") from None
    except MISFITS as error:
        for path in [checkpoint.path] if checkpoint.path.is_file() else _parts_of(checkpoint.path):
            refuse_unreadable("model", path, variant)
        reason = reason_of(error)
        raise UsageError(f"model {name}: not a whole Stable Diffusion checkpoint: {reason}") from None
    _refuse_gaps(name, pipe)
    if checkpoint.path.is_file():
        account_for_single_file(checkpoint, pipe.components, vae_replaced=vae is not None)
    _read_at_the_end(pipe)
    return pipe


def _read_at_the_end(pipe: Pipeline) -> None:
    """Make the text encoders take the pooled text from the end token.

    Published configurations say `eos_token_id: 2`, with which transformers takes it from the highest
    token: that is the end token too, unless there are learned words.
    """
    for part, tokenizer in (("text_encoder", "tokenizer"), ("text_encoder_2", "tokenizer_2")):
        if encoder := pipe.components.get(part):
            end = pipe.components[tokenizer].eos_token_id
            encoder.config.eos_token_id = end
            getattr(encoder, "text_model", encoder).eos_token_id = end


def _parts_of(folder: Path) -> list[Path]:
    """The folders of models in a pipeline's folder."""
    return [folder / part for part in MODELS if (folder / part).is_dir()]


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
            **_text_encoder_without_model(checkpoint, dtype),
        )
    index = read_index(f"model {checkpoint.name}", checkpoint.path)
    parts = {
        part: _load_part(checkpoint, part, index[part], dtype, variant)
        for part in MODELS
        if part not in options and any(index.get(part, ()))
    }
    return checkpoint.pipeline_class.from_pretrained(
        checkpoint.path, variant=variant, local_files_only=True, dtype=dtype, **options, **parts
    )


def _text_encoder_without_model(checkpoint: Checkpoint, dtype: DType) -> dict[str, nn.Module]:
    """The first text encoder of a single file with older tensor names, which diffusers does not know."""
    keys = read_shapes("model", checkpoint.path)
    older = {key: usual_name(key) for key in keys if usual_name(key) != key}
    if not older:
        return {}
    tensors = read_some("model", checkpoint.path, older)
    text_encoder: nn.Module = create_diffusers_clip_model_from_ldm(
        CLIPTextModel,
        {older[key]: value for key, value in tensors.items()},
        subfolder="text_encoder",
        config=str(checkpoint.config),
        torch_dtype=dtype,
        local_files_only=True,
    )
    return {"text_encoder": text_encoder.eval()}


def _load_part(
    checkpoint: Checkpoint, part: str, kind: Sequence[str], dtype: DType, variant: str | None
) -> nn.Module:
    """Load a model of a diffusers folder, of the library and class `kind`, and account for its file."""
    folder, (library, name) = checkpoint.path / part, kind
    has_variant = any(folder.glob(f"*.{variant}[.-]*"))  # a variant may exist for some parts only
    module, told = getattr(LIBRARIES[library], name).from_pretrained(
        folder,
        variant=variant if has_variant else None,
        local_files_only=True,
        dtype=dtype,
        output_loading_info=True,
    )
    account_for_loading("model", checkpoint.name, part, told)
    return module


def account_for_single_file(
    checkpoint: Checkpoint, parts: Mapping[str, Any], *, vae_replaced: bool
) -> None:
    """Refuse a single file unless `parts`, the models loaded from it, use all of it.

    Raises:
        UsageError: a tensor in it is neither used nor ignorable.
    """
    shapes = read_shapes("model", checkpoint.path)
    used = taken({usual_name(key): shape for key, shape in shapes.items()}, parts)
    others = {key for key in shapes if usual_name(key) in used} | checkpoint.marks.tensors
    if vae_replaced:
        others |= {key for key in shapes if key.startswith(VAE_PREFIX)}
    account_for("model", checkpoint.name, shapes, used | others)
    account_for_header("model", checkpoint.name, read_header("model", checkpoint.path), MARKS)


def outline(checkpoint: Checkpoint) -> dict[str, Any]:
    """The models of a checkpoint, built from its configurations on the meta device, without weights.

    Raises:
        UsageError: a configuration is missing or invalid.
    """
    folder, what = checkpoint.config, f"model {checkpoint.name}"
    with torch.device("meta"):
        parts: dict[str, Any] = {
            "unet": UNet2DConditionModel.from_config(read_config(what, folder, "unet")),
            "vae": AutoencoderKL.from_config(read_config(what, folder, "vae")),
        }
        for part, kind in TEXT_ENCODERS.items():
            if any(read_index(what, folder).get(part, ())):
                parts[part] = kind(CLIPTextConfig(**read_config(what, folder, part)))
    return parts


def read_index(what: str, folder: Path) -> dict[str, Any]:
    """The content of model_index.json: the parts of a diffusers pipeline and their classes.

    Args:
        what: the role and name of the folder in the job; begins every message.

    Raises:
        UsageError: the folder is not a diffusers pipeline.
    """
    file = folder / "model_index.json"
    try:
        index = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UsageError(
            f"{what}: this folder is not a diffusers pipeline (no model_index.json)"
        ) from None
    except (OSError, ValueError) as error:
        raise UsageError(f"{what}: {file.name} cannot be read: {error}") from None
    if not isinstance(index, dict):
        raise UsageError(f"{what}: {file.name} does not describe a diffusers pipeline")
    return index


def _find(settings: ModelSettings, finder: Finder) -> Found:
    name = settings.model
    found = local("model", str(MINI) if name == "mini" else name, ("model_index.json", *PART_FILES))
    return found or finder.from_hub(
        "model", name, lambda: _download(settings, finder), settings.revision
    )


def _download(settings: ModelSettings, finder: Finder) -> str | Path:
    try:
        folder: str | Path = DiffusionPipeline.download(
            settings.model,
            revision=settings.revision,
            variant=settings.variant,
            local_files_only=finder.cached_only,
            image_encoder=None,
            **({} if settings.safety_checker else SAFETY_CHECKER),
        )
    except ValueError as error:
        if "variant=" not in str(error):
            raise
        raise UsageError(
            f"model {settings.model}: has no variant {settings.variant}; remove variant, or name another"
        ) from None
    return folder


def _single_file(settings: ModelSettings, finder: Finder, found: Found) -> Checkpoint:
    name, shapes = settings.model, read_shapes("model", found.path)
    header = read_header("model", found.path)
    table = {"alphas_cumprod"} & shapes.keys()
    alphas = read_some("model", found.path, table).get("alphas_cumprod") if table else None
    marks = read_marks(name, shapes, header, settings.prediction_type, alphas)
    family, own_base = _family_of(name, shapes)
    files = CONFIG_FILES + (SAFETY_CHECKER_FILES if settings.safety_checker else ())
    base = settings.base_config or marks.base or own_base
    try:
        config = finder.find("base_config", base, files)
    except UsageError as error:
        if settings.base_config:
            raise
        reason = str(error).removeprefix(f"base_config {base}: ")
        raise UsageError(
            f"model {name}: is an {family} and needs the tokenizer and settings of {base}, which is "
            f"{reason}, or set base_config to a diffusers folder of an {family}"
        ) from None
    if not config.path.is_dir():
        raise UsageError(f"base_config {base}: expected a diffusers folder or a hub id")
    what = f"base_config {base}"
    check_folder(what, config.path, read_index(what, config.path))
    has_vae = any(key.startswith(VAE_PREFIX) for key in shapes)
    return Checkpoint(name, found.path, found.identity, config.path, config.identity, has_vae, marks)


def _family_of(name: str, shapes: Mapping[str, tuple[int, ...]]) -> tuple[str, str]:
    """The family of a single file by its tensors, and the hub id of that family's model."""
    first = shapes.get("model.diffusion_model.input_blocks.0.0.weight")
    if first is None:
        raise UsageError(
            f"model {name}: contains no Stable Diffusion U-Net; a LoRA belongs under `loras`, "
            "a VAE under `vae`, an embedding under `textual_inversions`"
        )
    refuse_other_inputs(f"model {name}", first[1])
    for prefix, family in SINGLE_FILE_FAMILIES.items():
        if any(key.startswith(prefix) for key in shapes):
            return family
    raise UsageError(f"model {name}: contains no text encoder of SD 1.x, SD 2.x or SDXL base")


def _refuse_gaps(name: str, pipe: Pipeline) -> None:
    """Refuse a pipeline with tensors that its file lacks: diffusers leaves them without content."""
    for part, module in pipe.components.items():
        if isinstance(module, nn.Module):
            absent = [key for key, value in module.named_parameters() if value.is_meta]
            if absent:
                raise UsageError(
                    f"model {name}: {len(absent)} tensors of its {part} are missing, such as {absent[0]}"
                )
