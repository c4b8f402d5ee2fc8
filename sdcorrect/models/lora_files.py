"""Read LoRA files of any dialect: the tensors of each layer, and the alphas in the header.

The names of the tensors distinguish LoRA (Hu et al., 2021), also with the core of a Tucker decomposition
for convolutions, LoHa (Hyeon-Woo et al., 2022) and LoKr (Yeh et al., 2024), each with or without the
magnitudes of DoRA (Liu et al., 2024).
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sdcorrect.errors import UsageError, printable
from sdcorrect.models.accounts import account_for, account_for_header, stranger
from sdcorrect.models.tensors import read_header, read_tensors

#: The key in the header of a .safetensors file under which diffusers stores peft's settings.
DIFFUSERS_HEADER = "lora_adapter_metadata"
#: The file in which peft itself stores them.
PEFT_CONFIG = "adapter_config.json"
_HADA = {"hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"}
_PAIR = {"lokr_w2_a", "lokr_w2_b"}
#: The sets of matrices that form a layer, by kind.
KINDS = {
    "LoRA": [{"down", "up"}, {"down", "up", "mid"}],
    "LoHa": [_HADA, _HADA | {"hada_t1", "hada_t2"}],
    "LoKr": [
        first | second
        for first in ({"lokr_w1"}, {"lokr_w1_a", "lokr_w1_b"})
        for second in ({"lokr_w2"}, _PAIR, _PAIR | {"lokr_t2"})
    ],
}
#: The endings of the names of a layer's tensors in all dialects, by role.
_ROLES = {
    "down": r"\.lora_(down|A)(\.(?!weight)\w+)?\.weight|[._]lora(_linear_layer)?\.down\.weight",
    "up": r"\.lora_(up|B)(\.(?!weight)\w+)?\.weight|[._]lora(_linear_layer)?\.up\.weight",
    "mid": r"\.lora_mid\.weight",
    "alpha": r"([._]lora(_linear_layer)?)?\.alpha",
    "scalar": r"\.scalar",
    "dora_scale": r"\.dora_scale",
    "magnitude": r"\.lora_magnitude_vector(\.\w+)*",
    **{role: rf"\.{role}" for kind in ("LoHa", "LoKr") for roles in KINDS[kind] for role in roles},
}
#: Roles that have a meaning only beside a layer's matrices.
ADDITIONS = {"alpha", "scalar", "dora_scale", "magnitude"}
_PATTERNS = {role: re.compile(rf"(?P<layer>.+?)({ending})") for role, ending in _ROLES.items()}
#: The beginnings of the names of a part's layers in all dialects.
_PARTS = {
    "unet": r"lora_unet_|unet\.|(model\.)?diffusion_model\.",
    "text_encoder": r"lora_te1?_|text_encoder\.",
    "text_encoder_2": r"lora_te2_|text_encoder_2\.",
}
_PEFT_PREFIX = "base_model.model."
#: Settings of peft that matter only in training, or can be seen in the tensors; others must be at their
#: defaults.
_OF_TRAINING = {
    "auto_mapping",
    "base_model_name_or_path",
    "decompose_both",
    "decompose_factor",
    "exclude_modules",
    "inference_mode",
    "init_weights",
    "layers_pattern",
    "layers_to_transform",
    "lora_dropout",
    "module_dropout",
    "peft_type",
    "peft_version",
    "rank_dropout",
    "rank_dropout_scale",
    "revision",
    "target_modules",
    "task_type",
    "use_effective_conv2d",
}
_READ = {"r", "lora_alpha", "alpha", "rank_pattern", "alpha_pattern", "use_rslora", "use_dora"}


@dataclass
class Layer:
    """The tensors of a file for one layer of a model."""

    name: str  #: as in the file
    part: str | None  #: unet, text_encoder or text_encoder_2, if the name says so
    flat: str  #: the rest of the name, with "_" instead of "."
    tensors: dict[str, Tensor] = field(default_factory=dict)  #: by role

    @property
    def kind(self) -> str | None:
        """LoRA, LoHa or LoKr, and whether with DoRA; None if the tensors do not form a whole layer."""
        matrices = self.tensors.keys() - ADDITIONS
        kind = next((kind for kind, known in KINDS.items() if matrices in known), None)
        magnitudes = self.tensors.keys() & {"dora_scale", "magnitude"}
        if kind is None or len(magnitudes) > 1:
            return None
        return f"{kind} with DoRA" if magnitudes else kind


@dataclass(frozen=True)
class LoraFile:
    """A LoRA's layers, and peft's settings for each part, if a header has them."""

    layers: Sequence[Layer]
    settings: Mapping[str | None, Mapping[str, Any]]  #: by part; the key is None in files for one part


def read_lora(name: str, path: Path) -> LoraFile:
    """Read the LoRA in a file, and account for every tensor.

    Raises:
        UsageError: it is broken or not a LoRA, or has something that cannot be applied to a model.
    """
    content = read_tensors("lora", path)
    # pickled files may hold an alpha as a plain number
    tensors = {
        key: torch.tensor(value) if isinstance(value, int | float) else value
        for key, value in content.items()
    }
    roles = {
        key: known
        for key, value in tensors.items()
        if isinstance(value, Tensor) and (known := _role(key))
    }
    layers: dict[str, Layer] = {}
    for key, (role, layer) in roles.items():
        if role not in ADDITIONS:
            layers.setdefault(layer, _layer(layer)).tensors[role] = tensors[key]
    if not layers:
        kind, remedy = stranger("lora", tensors)
        raise UsageError(f"lora {name}: contains no LoRA layers but {kind}; {remedy}")
    used = {key for key, (_, layer) in roles.items() if layer in layers}
    for key in used:
        role, layer = roles[key]
        layers[layer].tensors[role] = tensors[key]
    account_for("lora", name, tensors, used)
    for broken in (layer for layer in layers.values() if layer.kind is None):
        raise UsageError(
            f"lora {name}: the tensors of {printable(broken.name)} do not form a whole layer: "
            + ", ".join(sorted(broken.tensors))
        )
    header = read_header("lora", path)
    account_for_header("lora", name, header, {DIFFUSERS_HEADER})
    settings = _settings(name, path, header, tensors)
    for part, of_part in settings.items():
        _refuse_settings(name, part, of_part, layers.values())
    return LoraFile(list(layers.values()), settings)


def _role(key: str) -> tuple[str, str] | None:
    """The role of a tensor, and the name of its layer."""
    for role, pattern in _PATTERNS.items():
        if match := pattern.fullmatch(key):
            return role, match["layer"]
    return None


def _layer(name: str) -> Layer:
    rest = name.removeprefix(_PEFT_PREFIX).removeprefix("lycoris_")
    part = None
    for known, beginning in _PARTS.items():
        if match := re.match(beginning, rest):
            part, rest = known, rest[match.end() :]
            break
    rest = rest.removeprefix(_PEFT_PREFIX)
    return Layer(name, part, rest.replace(".", "_").replace("_processor", ""))


def _settings(
    name: str, path: Path, header: Mapping[str, str], keys: Iterable[str]
) -> dict[str | None, dict[str, Any]]:
    """The peft settings that this file was made with, by part."""
    beside = path.with_name(PEFT_CONFIG)
    try:
        if DIFFUSERS_HEADER in header:
            flat = json.loads(header[DIFFUSERS_HEADER])
            return {
                part: {
                    key.removeprefix(f"{part}."): value
                    for key, value in flat.items()
                    if key.startswith(f"{part}.")
                }
                for part in _PARTS
            }
        if beside.is_file():
            return {None: json.loads(beside.read_text(encoding="utf-8"))}
    except (OSError, ValueError, AttributeError) as error:
        raise UsageError(f"lora {name}: its settings cannot be read: {error}") from None
    if any(_PEFT_PREFIX in key for key in keys) and not any(k.endswith(".alpha") for k in keys):
        raise UsageError(
            f"lora {name}: made by peft ({_PEFT_PREFIX}...), which stores alpha in {PEFT_CONFIG}; "
            "put that file beside this one"
        )
    return {}


def _refuse_settings(
    name: str, part: str | None, settings: Mapping[str, Any], layers: Iterable[Layer]
) -> None:
    """Refuse settings of peft that `fuse_loras` does not support."""
    from peft import LoraConfig  # slow to import, and few files have settings

    usual = LoraConfig().to_dict()
    for key, value in settings.items():
        adapts_base = re.match("pissa|olora|loftq|corda", str(value))
        if key == "init_lora_weights" and not adapts_base:
            continue
        if key not in _READ | _OF_TRAINING and value and value not in ("none", usual.get(key)):
            raise UsageError(
                f"lora {name}: its header says {printable(key)}: {printable(value)[:60]}, which changes "
                "the result and is not supported; merge the LoRA into its model, and give the result"
            )
    of_part = [layer for layer in layers if part in (None, layer.part)]
    if settings.get("use_dora") and not any("magnitude" in layer.tensors for layer in of_part):
        raise UsageError(
            f"lora {name}: its header says DoRA, but it has no magnitudes; download it again"
        )
