"""Find the files that a job adds to its checkpoint: VAE, LoRAs, textual inversions and ControlNets."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sdcorrect.errors import UsageError
from sdcorrect.models.controlnets import find_controlnet
from sdcorrect.models.hashes import hash_file
from sdcorrect.models.lora_files import PEFT_CONFIG
from sdcorrect.models.sources import Finder, Found
from sdcorrect.models.vaes import find_vae
from sdcorrect.settings import CANNY, ControlNet, Lora, ModelSettings, TextualInversion

#: The files that diffusers writes, which a hub id or a folder stands for.
LORA_FILES = ("pytorch_lora_weights.safetensors", "adapter_model.safetensors", PEFT_CONFIG)
INVERSION_FILES = ("learned_embeds.safetensors", "learned_embeds.bin")


@dataclass(frozen=True)
class Adapters:
    """The files that a job adds to its checkpoint, on this machine and not loaded yet."""

    vae: Found | None
    loras: tuple[tuple[Lora, Found], ...]
    textual_inversions: tuple[tuple[TextualInversion, Found], ...]
    controlnets: tuple[tuple[ControlNet, Found], ...]

    @property
    def paths(self) -> tuple[Path, ...]:
        """The paths of all files."""
        laid_over = (*self.loras, *self.textual_inversions, *self.controlnets)
        return (*([self.vae.path] if self.vae else []), *(found.path for _, found in laid_over))

    @property
    def identity(self) -> dict[str, Any]:
        """Everything here that decides the pictures, by kind; None for kinds that the job lacks."""
        return {
            "vae": self.vae and self.vae.identity,
            "loras": [[found.identity, lora.weight] for lora, found in self.loras] or None,
            "textual_inversions": [
                # without a token, the file's name may be the word
                [found.identity, inversion.token or Path(inversion.path).stem]
                for inversion, found in self.textual_inversions
            ]
            or None,
            "controlnets": [
                [found.identity, network.thresholds, network.scale, _hints(network)]
                for network, found in self.controlnets
            ]
            or None,
        }


def find_adapters(settings: ModelSettings, finder: Finder) -> Adapters:
    """Find the adapters that a job names, and download those on the hub.

    Raises:
        UsageError: one is missing.
    """
    return Adapters(
        vae=find_vae(settings.vae, finder) if settings.vae else None,
        loras=tuple((lora, find_lora(lora, finder)) for lora in settings.loras),
        textual_inversions=tuple(
            (inversion, find_inversion(inversion, finder)) for inversion in settings.textual_inversions
        ),
        controlnets=tuple(
            (network, find_controlnet(network, finder)) for network in settings.controlnets
        ),
    )


def find_lora(lora: Lora, finder: Finder) -> Found:
    """Find a LoRA's file, and download it if it is on the hub; raises UsageError if it is missing."""
    return _one_file("lora", lora.path, finder, LORA_FILES)


def find_inversion(inversion: TextualInversion, finder: Finder) -> Found:
    """Find the file of a textual inversion, as `find_lora`."""
    return _one_file("textual inversion", inversion.path, finder, INVERSION_FILES)


def _one_file(what: str, name: str, finder: Finder, usual: Sequence[str]) -> Found:
    found = finder.find(what, name, usual)
    if found.path.is_file():
        beside = found.path.with_name(PEFT_CONFIG)
        if what == "lora" and beside.is_file():  # its alpha scales the LoRA
            return Found(found.path, f"{found.identity} {hash_file(beside)}")
        return found
    weights = [file for file in usual if file != PEFT_CONFIG]
    for file in weights:
        if (found.path / file).is_file():
            return Found(found.path / file, found.identity)
    raise UsageError(f"{what} {name}: has no {' or '.join(weights)}; name the file, as {name}/<file>")


def _hints(network: ControlNet) -> str:
    return CANNY if network.hint == CANNY else str(Path(network.hint).resolve())
