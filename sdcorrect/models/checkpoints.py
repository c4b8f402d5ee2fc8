"""Find a Stable Diffusion checkpoint, and recognise its family before it is loaded."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

from diffusers import DiffusionPipeline, StableDiffusionPipeline, StableDiffusionXLPipeline

from sdcorrect.errors import UsageError
from sdcorrect.models.architecture import check_folder, refuse_other_inputs
from sdcorrect.models.sources import Finder, Found, local
from sdcorrect.models.tensors import read_header, read_shapes, read_some
from sdcorrect.models.training import Marks, read_marks
from sdcorrect.models.variants import check_variant, listing, weights_in
from sdcorrect.settings import EMBEDDED, ModelSettings

MINI = Path(__file__).parents[1] / "assets" / "mini"
Pipeline: TypeAlias = StableDiffusionPipeline | StableDiffusionXLPipeline

#: The prefix of the text encoder in a single file -> its family, and where tokenizer and settings are.
SINGLE_FILE_FAMILIES = {
    "cond_stage_model.transformer.": ("SD 1.x", "stable-diffusion-v1-5/stable-diffusion-v1-5"),
    "cond_stage_model.model.": ("SD 2.x", "stabilityai/stable-diffusion-2-1"),
    "conditioner.embedders.1.": ("SDXL", "stabilityai/stable-diffusion-xl-base-1.0"),
}
#: Parts that are downloaded only if the job asks for the checker.
SAFETY_CHECKER = {"safety_checker": None, "feature_extractor": None}
#: The parts that have weights, all of which must be used.
MODELS = ("unet", "vae", "text_encoder", "text_encoder_2")
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

    @cached_property
    def index(self) -> dict[str, Any]:
        """The parts of its pipeline and their classes."""
        return read_index(f"model {self.name}", self.config)

    @property
    def pipeline_class(self) -> type[Pipeline]:
        xl = "text_encoder_2" in self.index
        return StableDiffusionXLPipeline if xl else StableDiffusionPipeline


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
    found = local("model", str(MINI) if name == EMBEDDED else name, ("model_index.json", *PART_FILES))
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
    base = settings.base_config or marks.base or own_base
    try:
        config = find_base(base, settings, finder)
    except UsageError as error:
        if settings.base_config:
            raise
        reason = str(error).removeprefix(f"base_config {base}: ")
        raise UsageError(
            f"model {name}: is an {family} and needs the tokenizer and settings of {base}, which is "
            f"{reason}, or give a diffusers folder of an {family} that is here: "
            "--set base_config=FOLDER"
        ) from None
    check_base(base, config)
    has_vae = any(key.startswith(VAE_PREFIX) for key in shapes)
    return Checkpoint(name, found.path, found.identity, config.path, config.identity, has_vae, marks)


def find_base(base: str, settings: ModelSettings, finder: Finder) -> Found:
    """Find what a single file takes its tokenizer and configuration from, and download it if needed.

    Raises:
        UsageError: it is missing.
    """
    files = CONFIG_FILES + (SAFETY_CHECKER_FILES if settings.safety_checker else ())
    return finder.find("base_config", base, files)


def check_base(base: str, found: Found) -> None:
    """Raise UsageError if what a single file takes its configuration from is no Stable Diffusion."""
    what = f"base_config {base}"
    if not found.path.is_dir():
        raise UsageError(f"{what}: expected a diffusers folder or a hub id")
    check_folder(what, found.path, read_index(what, found.path))


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
