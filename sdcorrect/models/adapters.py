"""What is laid over a checkpoint: find it all, and load another VAE."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffusers import AutoencoderKL
from diffusers.loaders.single_file_utils import SingleFileComponentError
from safetensors import SafetensorError
from torch import dtype as DType

from sdcorrect.errors import UsageError
from sdcorrect.models.accounts import account_for, account_for_loading, notices
from sdcorrect.models.controlnets import MISFITS, find_controlnet
from sdcorrect.models.hashes import hash_file
from sdcorrect.models.lora_files import PEFT_CONFIG
from sdcorrect.models.original import taken
from sdcorrect.models.sources import Finder, Found
from sdcorrect.models.tensors import read_shapes
from sdcorrect.settings import CANNY, ControlNet, Lora, ModelSettings, TextualInversion

#: The files that diffusers writes, and so those that a hub id or a folder without a file's name means.
LORA_FILES = ("pytorch_lora_weights.safetensors", "adapter_model.safetensors", PEFT_CONFIG)
INVERSION_FILES = ("learned_embeds.safetensors", "learned_embeds.bin")
VAE_FILES = ("*.json", "*.safetensors", "vae/*")


@dataclass(frozen=True)
class Adapters:
    """All that a job lays over its checkpoint, on this machine and not loaded yet."""

    vae: Found | None
    loras: tuple[tuple[Lora, Found], ...]
    textual_inversions: tuple[tuple[TextualInversion, Found], ...]
    controlnets: tuple[tuple[ControlNet, Found], ...]

    @property
    def paths(self) -> tuple[Path, ...]:
        """Where they are."""
        laid_over = (*self.loras, *self.textual_inversions, *self.controlnets)
        return (*([self.vae.path] if self.vae else []), *(found.path for _, found in laid_over))

    @property
    def identity(self) -> dict[str, Any]:
        """What decides the pictures; None where nothing is laid over the checkpoint."""
        return {
            "vae": self.vae and self.vae.identity,
            "loras": [[found.identity, lora.weight] for lora, found in self.loras] or None,
            "textual_inversions": [
                [found.identity, inversion.token] for inversion, found in self.textual_inversions
            ]
            or None,
            "controlnets": [
                [found.identity, network.thresholds, network.scale, _hints(network)]
                for network, found in self.controlnets
            ]
            or None,
        }


def find_adapters(settings: ModelSettings, finder: Finder) -> Adapters:
    """The adapters that a job names, downloaded where the hub has them.

    Raises:
        UsageError: one is not there.
    """
    return Adapters(
        vae=finder.find("vae", settings.vae, VAE_FILES) if settings.vae else None,
        loras=tuple((lora, _one_file("lora", lora.path, finder, LORA_FILES)) for lora in settings.loras),
        textual_inversions=tuple(
            (inversion, _one_file("textual inversion", inversion.path, finder, INVERSION_FILES))
            for inversion in settings.textual_inversions
        ),
        controlnets=tuple(
            (network, find_controlnet(network, finder)) for network in settings.controlnets
        ),
    )


def _one_file(what: str, name: str, finder: Finder, usual: Sequence[str]) -> Found:
    found = finder.find(what, name, usual)
    if found.path.is_file():
        beside = found.path.with_name(PEFT_CONFIG)
        if what == "lora" and beside.is_file():  # it says how strongly the LoRA is laid on
            return Found(found.path, f"{found.identity} {hash_file(beside)}")
        return found
    weights = [file for file in usual if file != PEFT_CONFIG]
    for file in weights:
        if (found.path / file).is_file():
            return Found(found.path / file, found.identity)
    raise UsageError(f"{what} {name}: holds no {' or '.join(weights)}; name the file: {name}/<file>")


def _hints(network: ControlNet) -> str:
    return CANNY if network.hint == CANNY else str(Path(network.hint).resolve())


def load_vae(found: Found, config: Path, dtype: DType) -> AutoencoderKL:
    """A VAE from a diffusers folder, a pipeline's folder or a single file, the latter as `config` says.

    Raises:
        UsageError: it is broken, or is no VAE of Stable Diffusion.
    """
    path = found.path
    try:
        with notices("vae", str(path)):
            if path.is_file():
                vae = AutoencoderKL.from_single_file(
                    str(path), config=str(config), subfolder="vae", local_files_only=True, dtype=dtype
                )
            else:
                vae, told = AutoencoderKL.from_pretrained(
                    path / "vae" if (path / "vae").is_dir() else path,
                    local_files_only=True,
                    dtype=dtype,
                    output_loading_info=True,
                )
                account_for_loading("vae", str(path), "VAE", told)
    except NotImplementedError:  # what torch says of moving a tensor that has no content
        raise UsageError(f"vae {path}: some of its tensors are absent") from None
    except (*MISFITS, OSError, SafetensorError, SingleFileComponentError) as error:
        reason = " ".join(str(error).split())
        raise UsageError(f"vae {path}: not a VAE of Stable Diffusion: {reason}") from None
    if path.is_file():
        shapes = read_shapes("vae", path)
        account_for("vae", str(path), shapes, taken(shapes, {"vae": vae}))
    if vae.config.latent_channels != 4:
        raise UsageError(
            f"vae {path}: its latents have {vae.config.latent_channels} channels, Stable Diffusion's 4"
        )
    return vae
