"""Fuse LoRAs into a model's weights, so that sampling costs no more and recipes find plain layers.

Weights W become W + weight * (W' - W), summed over all LoRAs. W' is V = W + alpha / rank * up @ down
(Hu et al., 2021), or with DoRA, magnitude * V / |V| (Liu et al., 2024); all computed in float32.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Any

import torch
from peft.tuners.loha.layer import make_weight, make_weight_cp
from peft.tuners.lokr.layer import make_kron
from peft.tuners.lokr.layer import make_weight_cp as make_core
from peft.utils.other import get_pattern_key
from torch import Tensor

from sdcorrect.errors import UsageError, printable
from sdcorrect.models.accounts import stranger
from sdcorrect.models.checkpoints import Pipeline
from sdcorrect.models.lora_files import Layer, LoraFile, read_lora
from sdcorrect.models.lora_names import layers_by_name
from sdcorrect.models.sources import Found
from sdcorrect.settings import Lora

#: The parts of a pipeline that LoRAs are made for.
ADAPTED = ("unet", "text_encoder", "text_encoder_2")
#: The layers that read texts; their width identifies the family.
READS_TEXT = "attn2_to_k"


@dataclass(frozen=True)
class Placed:
    """A layer of a LoRA, and the layer of the model that it changes."""

    layer: Layer
    part: str
    module: Any  #: a linear or convolution layer
    rank: int
    alpha: float
    scale: float  #: the factor of the product of its matrices


@torch.no_grad()
def fuse_loras(pipe: Pipeline, loras: Sequence[tuple[Lora, Found]]) -> None:
    """Add LoRAs to the weights of `pipe`.

    Raises:
        UsageError: one is broken, made for another family, or has unknown tensors.
    """
    parts = {part: pipe.components[part] for part in ADAPTED if part in pipe.components}
    changes: dict[Any, list[tuple[Placed, float]]] = {}
    for lora, found in loras:
        for placed in place(lora.path, read_lora(lora.path, found.path), parts):
            changes.setdefault(placed.module, []).append((placed, lora.weight))
    for module, of_module in changes.items():
        before = module.weight.float()
        after = before + sum(weight * change(before, placed) for placed, weight in of_module)
        module.weight.data.copy_(after)


def place(name: str, file: LoraFile, parts: Mapping[str, Any]) -> list[Placed]:
    """Find the layer of the model that each layer of a LoRA changes; the weights are not read.

    Args:
        name: the LoRA's name in the job.
        parts: the models of a pipeline, by their names in it.

    Raises:
        UsageError: a layer is not in the model, or does not fit there.
    """
    names = {part: layers_by_name(module) for part, module in parts.items()}
    _refuse_other_families(name, file, parts["unet"])
    of_nameless = _part_of([layer for layer in file.layers if layer.part is None], names, parts)
    placed: dict[tuple[str, str], Placed] = {}
    unplaced = []
    for layer in file.layers:
        part = layer.part or of_nameless
        found = names.get(part, {}).get(layer.flat)
        if found is None:
            unplaced.append(layer.name)
            continue
        if (part, found) in placed:
            raise UsageError(
                f"lora {name}: {printable(layer.name)} and {placed[part, found].layer.name} are both "
                f"for {found} of the {part}"
            )
        module = parts[part].get_submodule(found)
        placed[part, found] = _placed(name, layer, part, found, module, file.settings)
    if unplaced:
        kind, remedy = stranger("lora", unplaced)
        raise UsageError(
            f"lora {name}: {len(unplaced)} of its {len(file.layers)} layers have no place "
            f"in this model, such as {printable(unplaced[0])}: {kind}; {remedy}"
        )
    return list(placed.values())


#: The families by the width of the texts that their U-Nets read.
FAMILIES = {768: "SD 1.x", 1024: "SD 2.x", 2048: "SDXL"}


def _width(texts: int) -> str:
    family = FAMILIES.get(texts)
    return f"{texts} wide ({family})" if family else f"{texts} wide"


def _refuse_other_families(name: str, file: LoraFile, unet: Any) -> None:
    expected = unet.config.cross_attention_dim
    for layer in file.layers:
        if layer.flat.endswith(READS_TEXT):
            width = _shape(name, layer)[1]
            if width != expected:
                raise UsageError(
                    f"lora {name}: made for another family: "
                    f"it reads texts {_width(width)}, but this model's are {_width(expected)}; "
                    "use a LoRA of this model's family, or the LoRA's own model"
                )


def _part_of(
    layers: Sequence[Layer], names: Mapping[str, Mapping[str, str]], parts: Mapping[str, Any]
) -> str:
    """The part to which layers belong whose names do not say it: the first that all of them fit."""
    for part, known in names.items():
        if all(
            layer.flat in known
            and _fits(_shape(layer.name, layer), parts[part].get_submodule(known[layer.flat]))
            for layer in layers
        ):
            return part
    return "unet"


def _placed(
    name: str,
    layer: Layer,
    part: str,
    found: str,
    module: Any,
    settings: Mapping[str | None, Mapping[str, Any]],
) -> Placed:
    shape = _shape(name, layer)
    if not _fits(shape, module):
        raise UsageError(
            f"lora {name}: made for another model: {printable(layer.name)} changes weights of "
            f"{tuple(shape)}, but this model's are {tuple(module.weight.shape)}"
        )
    said = settings.get(part, settings.get(None, {}))
    placed = Placed(layer, part, module, *_scale(layer, found, said))
    try:
        change(module.weight.to("meta"), placed)
    except RuntimeError:
        raise UsageError(
            f"lora {name}: the magnitudes (DoRA) of {printable(layer.name)} do not fit its layer"
        ) from None
    return placed


def _fits(change: torch.Size, module: Any) -> bool:
    """Whether a change of this shape fits a layer; for convolutions it may be flattened."""
    return change[0] == len(module.weight) and change.numel() == module.weight.numel()


def _scale(layer: Layer, found: str, said: Mapping[str, Any]) -> tuple[int, float, float]:
    """Rank, alpha, and the factor of the product: alpha / rank, or alpha / sqrt(rank) for rsLoRA.

    Alpha comes from a tensor of the layer, else from peft's settings, else it equals the rank.
    """
    tensors = layer.tensors
    rank = _rank(tensors)
    scalar = tensors["scalar"].item() if "scalar" in tensors else 1.0
    if "alpha" in tensors:
        alpha = tensors["alpha"].item()
        return rank or 0, alpha, scalar * (alpha / rank if rank else 1.0)
    alpha = _said(said, "alpha_pattern", found, said.get("lora_alpha", said.get("alpha")))
    rank = rank or _said(said, "rank_pattern", found, said.get("r", 1))
    if alpha is None:
        return rank, rank, scalar
    # rsLoRA: Kalajdzievski, 2023
    return rank, alpha, scalar * alpha / (sqrt(rank) if said.get("use_rslora") else rank)


def _said(said: Mapping[str, Any], pattern: str, found: str, usual: Any) -> Any:
    """The value for one layer in peft's settings, which may use names of other transformers versions."""
    patterns = said.get(pattern) or {}
    for name in (found, f"text_model.{found}"):
        key = get_pattern_key(patterns.keys(), name)
        if key in patterns:
            return patterns[key]
    return usual


def _rank(tensors: Mapping[str, Tensor]) -> int | None:
    """The rank of the matrices; None for LoKr with whole matrices, which are not scaled."""
    for role in ("down", "hada_w1_b", "lokr_w1_b", "lokr_w2_b"):
        if role in tensors:
            return len(tensors[role])
    return None


def change(weight: Tensor, placed: Placed) -> Tensor:
    """W' - W of one LoRA at full strength, for W (out, in) or (out, in, height, width), in float32."""
    tensors = {role: value.float().to(weight.device) for role, value in placed.layer.tensors.items()}
    difference = placed.scale * product(tensors).reshape(weight.shape)
    magnitude = tensors.get("magnitude", tensors.get("dora_scale"))
    if magnitude is None:
        return difference
    return _dora(weight + difference, magnitude, by_lycoris="dora_scale" in tensors) - weight


def _dora(value: Tensor, magnitude: Tensor, *, by_lycoris: bool) -> Tensor:
    """`value` (out, in) or (out, in, height, width), rescaled to the learned magnitudes."""
    ones = [1] * (value.ndim - 1)
    if by_lycoris and magnitude.shape[:2] == (1, value.shape[1]):
        # LyCORIS and OneTrainer before wd_on_output: one norm per input
        norm = value.transpose(0, 1).flatten(1).norm(dim=1).reshape(1, -1, *ones[1:])
        return value / norm * magnitude.reshape(norm.shape)
    norm = value.flatten(1).norm(dim=1).reshape(-1, *ones)
    return value / norm * magnitude.reshape(norm.shape)


def product(tensors: Mapping[str, Tensor]) -> Tensor:
    """The unscaled change that a layer's matrices make: (out, in) or (out, in, height, width).

    Raises:
        RuntimeError: they do not fit each other.
    """
    if "hada_w1_a" in tensors:
        return _loha(tensors)
    if any(role.startswith("lokr") for role in tensors):
        return make_kron(_factor(tensors, "lokr_w1"), _factor(tensors, "lokr_w2"))
    down, up = tensors["down"], tensors["up"]
    if "mid" in tensors:  # out, in, and a core with the kernel
        return make_core(tensors["mid"], up.flatten(1).T, down.flatten(1))
    return (up.flatten(1) @ down.flatten(1)).reshape(len(up), *down.shape[1:])


def _loha(tensors: Mapping[str, Tensor]) -> Tensor:
    a1, b1, a2, b2 = (tensors[f"hada_w{i}_{side}"] for i in "12" for side in "ab")
    if "hada_t1" in tensors:
        return make_weight_cp(tensors["hada_t1"], a1, b1, tensors["hada_t2"], a2, b2, torch.tensor(1))
    return make_weight(a1, b1.flatten(1), a2, b2.flatten(1), torch.tensor(1)).reshape(
        len(a1), *b1.shape[1:]
    )


def _factor(tensors: Mapping[str, Tensor], role: str) -> Tensor:
    """A factor of LoKr's Kronecker product: a whole matrix, or two with or without a core."""
    if role in tensors:
        return tensors[role]
    a, b = tensors[f"{role}_a"], tensors[f"{role}_b"]
    if role == "lokr_w2" and "lokr_t2" in tensors:
        return make_core(tensors["lokr_t2"], a, b)
    return (a @ b.flatten(1)).reshape(len(a), *b.shape[1:])


def _shape(name: str, layer: Layer) -> torch.Size:
    """The shape of a layer's change, computed on the meta device."""
    try:
        return product({role: value.to("meta") for role, value in layer.tensors.items()}).shape
    except (RuntimeError, ValueError, IndexError):
        raise UsageError(
            f"lora {name}: the tensors of {printable(layer.name)} do not fit each other"
        ) from None
