"""Read a LoRA of any dialect: the tensors of each layer, and what its header says of alphas.

Told apart by their tensors' names are LoRA (Hu et al., 2021), with the core of a Tucker decomposition
for convolutions, LoHa (Hyeon-Woo et al., 2022) and LoKr (Yeh et al., 2024), each with the magnitudes of
DoRA (Liu et al., 2024) or without.
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

#: The key of a .safetensors file's header under which diffusers writes the settings of peft.
DIFFUSERS_HEADER = "lora_adapter_metadata"
#: Where peft itself writes them.
PEFT_CONFIG = "adapter_config.json"
_HADA = {"hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"}
_PAIR = {"lokr_w2_a", "lokr_w2_b"}
#: The sets of matrices that make a layer, by the name of the kind.
KINDS = {
    "LoRA": [{"down", "up"}, {"down", "up", "mid"}],
    "LoHa": [_HADA, _HADA | {"hada_t1", "hada_t2"}],
    "LoKr": [
        first | second
        for first in ({"lokr_w1"}, {"lokr_w1_a", "lokr_w1_b"})
        for second in ({"lokr_w2"}, _PAIR, _PAIR | {"lokr_t2"})
    ],
}
#: How dialects end the names of a layer's tensors, by what they are.
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
#: What is something only beside a layer's matrices.
ADDITIONS = {"alpha", "scalar", "dora_scale", "magnitude"}
_PATTERNS = {role: re.compile(rf"(?P<layer>.+?)({ending})") for role, ending in _ROLES.items()}
#: How dialects begin the names of a part's layers.
_PARTS = {
    "unet": r"lora_unet_|unet\.|(model\.)?diffusion_model\.",
    "text_encoder": r"lora_te1?_|text_encoder\.",
    "text_encoder_2": r"lora_te2_|text_encoder_2\.",
}
_PEFT_PREFIX = "base_model.model."
#: Settings of peft that matter to training alone, or are seen in the tensors; the others must be what
#: they are by default.
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
    """What a file holds for one layer of a model."""

    name: str  #: as in the file
    part: str | None  #: unet, text_encoder or text_encoder_2, where the name says so
    flat: str  #: the rest of the name, with "_" in place of "."
    tensors: dict[str, Tensor] = field(default_factory=dict)  #: by what they are

    @property
    def kind(self) -> str | None:
        """LoRA, LoHa or LoKr, and whether with DoRA; None where its tensors make no whole layer."""
        matrices = self.tensors.keys() - ADDITIONS
        kind = next((kind for kind, known in KINDS.items() if matrices in known), None)
        magnitudes = self.tensors.keys() & {"dora_scale", "magnitude"}
        if kind is None or len(magnitudes) > 1:
            return None
        return f"{kind} with DoRA" if magnitudes else kind


@dataclass(frozen=True)
class LoraFile:
    """A LoRA's layers, and the settings of peft for each of the parts, where a header says them."""

    layers: Sequence[Layer]
    settings: Mapping[str | None, Mapping[str, Any]]  #: by part; None is of files for one part


def read_lora(name: str, path: Path) -> LoraFile:
    """The LoRA in a file, of which every tensor is known.

    Raises:
        UsageError: it is broken or no LoRA, or holds what cannot be laid over a model.
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
        raise UsageError(f"lora {name}: holds no LoRA layers but {kind}; {remedy}")
    used = {key for key, (_, layer) in roles.items() if layer in layers}
    for key in used:
        role, layer = roles[key]
        layers[layer].tensors[role] = tensors[key]
    account_for("lora", name, tensors, used)
    for broken in (layer for layer in layers.values() if layer.kind is None):
        raise UsageError(
            f"lora {name}: the tensors of {printable(broken.name)} make no whole layer: "
            + ", ".join(sorted(broken.tensors))
        )
    header = read_header("lora", path)
    account_for_header("lora", name, header, {DIFFUSERS_HEADER})
    settings = _settings(name, path, header, tensors)
    for part, of_part in settings.items():
        _refuse_settings(name, part, of_part, layers.values())
    return LoraFile(list(layers.values()), settings)


def _role(key: str) -> tuple[str, str] | None:
    """What a tensor is, and the name of its layer."""
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
    """What peft was told when it made this file, by part."""
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
            f"lora {name}: made by peft ({_PEFT_PREFIX}...), which writes alpha into {PEFT_CONFIG}; "
            "put that file beside it"
        )
    return {}


def _refuse_settings(
    name: str, part: str | None, settings: Mapping[str, Any], layers: Iterable[Layer]
) -> None:
    """Refuse what peft can do and `fuse_loras` cannot."""
    from peft import LoraConfig  # of which a second passes, and few files have settings

    usual = LoraConfig().to_dict()
    for key, value in settings.items():
        adapts_base = re.match("pissa|olora|loftq|corda", str(value))
        if key == "init_lora_weights" and not adapts_base:
            continue
        if key not in _READ | _OF_TRAINING and value and value not in ("none", usual.get(key)):
            raise UsageError(
                f"lora {name}: its header says {printable(key)}: {printable(value)[:60]}, which changes "
                "the result and is not supported; merge it into its model and give that"
            )
    of_part = [layer for layer in layers if part in (None, layer.part)]
    if settings.get("use_dora") and not any("magnitude" in layer.tensors for layer in of_part):
        raise UsageError(
            f"lora {name}: its header says DoRA, but it holds no magnitudes; fetch it again"
        )
