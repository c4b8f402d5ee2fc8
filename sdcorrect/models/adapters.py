"""What is laid over a checkpoint: another VAE, LoRAs, and words learned by textual inversion."""

import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffusers import AutoencoderKL
from diffusers.loaders.single_file_utils import SingleFileComponentError
from peft.tuners.lora import LoraLayer
from safetensors import SafetensorError
from torch import Tensor
from torch import dtype as DType

from sdcorrect.errors import UsageError
from sdcorrect.models.checkpoints import Pipeline
from sdcorrect.models.sources import Finder, Found
from sdcorrect.models.tensors import read_shapes, read_tensors
from sdcorrect.settings import CANNY, ControlNet, Lora, ModelSettings, TextualInversion

#: The files that diffusers writes, and so those that a hub id or a folder without a file's name means.
LORA_FILE = "pytorch_lora_weights.safetensors"
INVERSION_FILES = ("learned_embeds.safetensors", "learned_embeds.bin")
CONTROLNET_FILES = ("config.json", "diffusion_pytorch_model.safetensors")
VAE_FILES = ("*.json", "*.safetensors", "vae/*")
#: How trainers name the first of a LoRA's two matrices, which reads what the layer reads.
_INWARD = re.compile(r"lora_A\.|lora_down\.|lora\.down\.|lora_linear_layer\.down\.")
_READS_TEXT = re.compile(r"attn2[._]to_k")
#: What libraries raise for tensors that do not fit a model.
MISFITS = (RuntimeError, ValueError, KeyError, TypeError, AttributeError, IndexError)


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
    """The adapters that a job names, downloaded where the hub has them.

    Raises:
        UsageError: one is not there.
    """
    return Adapters(
        vae=finder.find("vae", settings.vae, VAE_FILES) if settings.vae else None,
        loras=tuple(
            (lora, _one_file("lora", lora.path, finder, (LORA_FILE,))) for lora in settings.loras
        ),
        textual_inversions=tuple(
            (inversion, _one_file("textual inversion", inversion.path, finder, INVERSION_FILES))
            for inversion in settings.textual_inversions
        ),
        controlnets=tuple(
            (network, finder.find("controlnet", network.path, CONTROLNET_FILES))
            for network in settings.controlnets
        ),
    )


def _one_file(what: str, name: str, finder: Finder, usual: Sequence[str]) -> Found:
    found = finder.find(what, name, usual)
    if found.path.is_file():
        return found
    for file in usual:
        if (found.path / file).is_file():
            return Found(found.path / file, found.identity)
    raise UsageError(f"{what} {name}: holds no {' or '.join(usual)}; name the file: {name}/<file>")


def _hints(network: ControlNet) -> str:
    return CANNY if network.hint == CANNY else str(Path(network.hint).resolve())


def load_vae(found: Found, config: Path, dtype: DType) -> AutoencoderKL:
    """A VAE from a diffusers folder, a pipeline's folder or a single file, the latter as `config` says.

    Raises:
        UsageError: it is broken, or is no VAE of Stable Diffusion.
    """
    path = found.path
    try:
        if path.is_file():
            read_shapes("vae", path)
            vae = AutoencoderKL.from_single_file(
                str(path), config=str(config), subfolder="vae", local_files_only=True, dtype=dtype
            )
        else:
            folder = path / "vae" if (path / "vae").is_dir() else path
            vae = AutoencoderKL.from_pretrained(folder, local_files_only=True, dtype=dtype)
    except (*MISFITS, OSError, SafetensorError, SingleFileComponentError) as error:
        reason = " ".join(str(error).split())
        raise UsageError(f"vae {path}: not a VAE of Stable Diffusion: {reason}") from None
    if vae.config.latent_channels != 4:
        raise UsageError(
            f"vae {path}: its latents have {vae.config.latent_channels} channels, Stable Diffusion's 4"
        )
    return vae


def lay_loras(pipe: Pipeline, loras: Sequence[tuple[Lora, Found]]) -> None:
    """Add LoRAs (Hu et al., 2021) to the weights of `pipe`: W + weight * B A, summed over all.

    Merged, they cost nothing while sampling, and recipes meet the layers that they know.

    Raises:
        UsageError: one is broken, or made for another family.
    """
    names = []
    for number, (lora, found) in enumerate(loras):
        names.append(f"lora{number}")
        tensors = read_tensors("lora", found.path)
        inward = {key: value for key, value in tensors.items() if _INWARD.search(key)}
        if not inward:
            raise UsageError(f"lora {lora.path}: holds no LoRA layers")
        width = next((v.shape[1] for key, v in inward.items() if _READS_TEXT.search(key)), None)
        expected = pipe.unet.config.cross_attention_dim
        if width not in (None, expected):
            raise UsageError(
                f"lora {lora.path}: made for another family: "
                f"it reads texts {width} wide, this model's are {expected} wide"
            )
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # that there are several, as was asked
                pipe.load_lora_weights(tensors, adapter_name=names[-1])
        except MISFITS as error:
            reason = " ".join(str(error).split())[:200]
            raise UsageError(f"lora {lora.path}: does not fit this model: {reason}") from None
        unplaced = len(inward) - _layers_of(pipe, names[-1])
        if unplaced:
            raise UsageError(
                f"lora {lora.path}: {unplaced} of its {len(inward)} layers have no place in this model"
            )
    if names:
        pipe.set_adapters(names, [lora.weight for lora, _ in loras])
        pipe.fuse_lora(adapter_names=names)
        pipe.unload_lora_weights()


def _layers_of(pipe: Pipeline, adapter: str) -> int:
    parts = (pipe.components.get(part) for part in ("unet", "text_encoder", "text_encoder_2"))
    return sum(
        isinstance(module, LoraLayer) and adapter in module.lora_A
        for part in parts
        if part is not None
        for module in part.modules()
    )


def add_words(pipe: Pipeline, inversions: Sequence[tuple[TextualInversion, Found]]) -> None:
    """Teach the text encoders words learned by textual inversion (Gal et al., 2023).

    Raises:
        UsageError: one is broken, made for another family, or a word that is known already.
    """
    for inversion, found in inversions:
        token, embeddings = _read_inversion(inversion, read_tensors("textual inversion", found.path))
        encoders = [(pipe.tokenizer, pipe.text_encoder)]
        if "text_encoder_2" in pipe.components:
            encoders.append((pipe.tokenizer_2, pipe.text_encoder_2))
        if len(embeddings) != len(encoders):
            raise UsageError(
                f"textual inversion {inversion.path}: made for {len(embeddings)} text encoders, "
                f"this model has {len(encoders)}; is it of another family?"
            )
        for embedding, (tokenizer, text_encoder) in zip(embeddings, encoders, strict=True):
            width = text_encoder.get_input_embeddings().embedding_dim
            if embedding.shape[-1] != width:
                raise UsageError(
                    f"textual inversion {inversion.path}: {embedding.shape[-1]} wide, where this "
                    f"model's words are {width}; is it of another family?"
                )
            try:
                pipe.load_textual_inversion(
                    embedding, token=token, tokenizer=tokenizer, text_encoder=text_encoder
                )
            except ValueError as error:
                raise UsageError(f"textual inversion {inversion.path}: {error}") from None


def _read_inversion(inversion: TextualInversion, content: Mapping[str, Any]) -> tuple[str, list[Tensor]]:
    """The word, and its embedding for each text encoder, of any of the formats in use."""
    token, stem = inversion.token, Path(inversion.path).stem
    match content:
        case {"string_to_param": {"*": Tensor() as embedding}}:
            return token or str(content.get("name") or stem), [embedding]
        case {"clip_l": Tensor() as first, "clip_g": Tensor() as second}:
            return token or stem, [first, second]
        case {"emb_params": Tensor() as embedding}:
            return token or stem, [embedding]
    words = [(word, value) for word, value in content.items() if isinstance(value, Tensor)]
    if len(words) != 1:
        raise UsageError(
            f"textual inversion {inversion.path}: holds {len(words)} tensors, expected one word's"
        )
    return token or words[0][0], [words[0][1]]
