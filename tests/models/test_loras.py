"""Every dialect of LoRA changes the weights by what its arithmetic says, or is refused by its name."""

import functools
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from checkpoints import Family, Pipeline, Tensors, _unet, lora, original_names, tiny
from diffusers import StableDiffusionPipeline
from diffusers.training_utils import _collate_lora_metadata
from diffusers.utils import convert_state_dict_to_diffusers
from peft.utils import get_peft_model_state_dict
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from sdcorrect.errors import UsageError
from sdcorrect.models.adapters import find_adapters
from sdcorrect.models.loras import fuse_loras
from sdcorrect.models.sources import Finder
from sdcorrect.settings import Lora, ModelSettings

PREFIXES = {"unet": "lora_unet_", "text_encoder": "lora_te1_", "text_encoder_2": "lora_te2_"}
PARTS = tuple(PREFIXES)
#: Attention, feed-forward, convolutions of every size, and what else in a U-Net has weights.
LAYERS = re.compile(
    r".*(attn\d\.to_[qkv]|attn\d\.to_out\.0|self_attn\.\w+_proj|fc[12]|proj_in|proj_out|conv\d?|ff\.net\.2"
    r"|conv_shortcut|time_emb_proj|conv_in|conv_out|linear_[12])"
)


plain = functools.cache(tiny)


def laid(family: Family, file: Path, weight: float = 1) -> Pipeline:
    """The tiny checkpoint of a family with a LoRA laid over it."""
    pipe, finder = tiny(family), Finder(offline=True)
    lora = Lora(path=str(file), weight=weight)
    adapters = find_adapters(ModelSettings(loras=(lora,)), finder)
    fuse_loras(pipe, adapters.loras)
    return pipe


def complaint(file: Path, family: Family = "sd1") -> str:
    with pytest.raises(UsageError) as error:
        laid(family, file)
    assert "\n" not in str(error.value)
    return str(error.value)


def layers_of(pipe: Pipeline, pattern: re.Pattern[str] = LAYERS) -> Iterator[tuple[str, str, nn.Module]]:
    """The part, name and module of every layer that may be adapted."""
    for part in PARTS:
        if part in pipe.components:
            for name, module in pipe.components[part].named_modules():
                if isinstance(module, nn.Linear | nn.Conv2d) and pattern.fullmatch(name):
                    yield part, name, module


def matrices(module: nn.Module, rank: int, seed: int) -> tuple[Tensor, Tensor]:
    """Down and up, as trainers shape them: a convolution's kernel is in down."""
    generator = torch.Generator().manual_seed(seed)
    out, inner, *kernel = module.weight.shape
    down = torch.randn(rank, inner, *kernel, generator=generator) / 10
    return down, torch.randn(out, rank, *[1] * len(kernel), generator=generator)


def times(up: Tensor, down: Tensor) -> Tensor:
    """up @ down, of matrices and of convolutions that follow each other."""
    return torch.einsum("or,ri...->oi...", up.flatten(1), down)


def assert_weights(pipe: Pipeline, expected: dict[tuple[str, str], Tensor]) -> None:
    """These weights, and no others, are not the tiny checkpoint's own."""
    own = plain("sdxl" if "text_encoder_2" in pipe.components else "sd1").components
    for part, module in pipe.components.items():
        if part in PARTS:
            found = module.state_dict()
            for name, value in own[part].state_dict().items():
                wanted = expected.pop((part, name.removesuffix(".weight")), value)
                if wanted is value:
                    assert torch.equal(found[name], value), f"{part}.{name}"
                else:
                    torch.testing.assert_close(
                        found[name], wanted, rtol=1e-5, atol=1e-5, msg=f"{part}.{name}"
                    )
    assert not expected


@pytest.mark.parametrize(
    ("family", "layout"), [("sd1", "diffusers"), ("sdxl", "diffusers"), ("sdxl", "original")]
)
def test_each_layer_has_its_own_rank_and_alpha(tmp_path: Path, family: Family, layout: str) -> None:
    pipe = plain(family)
    tensors, expected = {}, {}
    dtypes = (torch.float32, torch.float16, torch.bfloat16)
    names = {}
    if layout == "original":
        names = dict(zip(pipe.unet.state_dict(), _unet(pipe.unet), strict=True))
    for number, (part, name, module) in enumerate(layers_of(pipe)):
        rank, alpha, dtype = 1 + number % 4, 0.5 + number % 7, dtypes[number % 3]
        down, up = (matrix.to(dtype) for matrix in matrices(module, rank, number))
        full = f"text_model.{name.removeprefix('text_model.')}" if part != "unet" else name
        full = names.get(f"{full}.weight", full).removesuffix(".weight")
        prefix = "lora_te_" if family == "sd1" and part != "unet" else PREFIXES[part]
        key = prefix + full.replace(".", "_")
        tensors |= {f"{key}.lora_down.weight": down, f"{key}.lora_up.weight": up}
        tensors[f"{key}.alpha"] = torch.tensor(alpha).to(dtype)
        expected[part, name] = module.weight + 0.5 * alpha / rank * times(up.float(), down.float())
    assert len(expected) > 150
    header = {"ss_network_alpha": "1", "ss_network_dim": "8", "modelspec.title": "ink"}
    save_file(tensors, tmp_path / "ink.safetensors", header)
    assert_weights(laid(family, tmp_path / "ink.safetensors", 0.5), expected)


def saved_by_diffusers(folder: Path, config: peft.LoraConfig, text: peft.LoraConfig | None) -> Path:
    """What diffusers' training scripts write, its settings in the header."""
    pipe = tiny("sd1")
    torch.manual_seed(3)
    parts = {"unet": config} | ({"text_encoder": text} if text else {})
    layers = {}
    for part, of_part in parts.items():
        peft.inject_adapter_in_model(of_part, pipe.components[part])
        layers[f"{part}_lora_layers"] = convert_state_dict_to_diffusers(
            get_peft_model_state_dict(pipe.components[part])
        )
    metadata = _collate_lora_metadata({part: pipe.components[part] for part in parts})
    StableDiffusionPipeline.save_lora_weights(folder, **layers, **metadata)
    return folder / "pytorch_lora_weights.safetensors"


ATTENTION = ["to_q", "to_k", "to_v", "to_out.0"]


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"use_rslora": True},
        {"use_dora": True},
        {"rank_pattern": {"attn1.to_k": 3}, "alpha_pattern": {"attn1.to_k": 5, "attn2.to_v": 2}},
    ],
)
def test_the_settings_in_diffusers_header_are_read(tmp_path: Path, more: dict[str, Any]) -> None:
    config = peft.LoraConfig(
        r=4, lora_alpha=16, target_modules=ATTENTION, init_lora_weights=False, **more
    )
    text = peft.LoraConfig(r=2, lora_alpha=3, target_modules=["q_proj"], init_lora_weights=False)
    file = saved_by_diffusers(tmp_path, config, text)
    scales = {}
    for name, _ in plain("sd1").unet.named_modules():
        if re.fullmatch(r".*attn\d\.(to_[qkv]|to_out\.0)", name):
            kind = ".".join(name.split(".")[-2:])
            rank = more.get("rank_pattern", {}).get(kind, 4)
            alpha = more.get("alpha_pattern", {}).get(kind, 16)
            scales[name] = alpha / (rank**0.5 if "use_rslora" in more else rank)
    tensors, expected = load_file(file), {}
    for part, name, module in layers_of(plain("sd1"), re.compile(r".*(attn\d\.to_.*|q_proj)")):
        key, scale = f"{part}.{name}", scales.get(name, 1.5)
        if part == "text_encoder":
            key = next(k for k in tensors if name in k).rpartition(f"{name}")[0] + name
        up, down = (
            next(v for k, v in tensors.items() if k.startswith(f"{key}.") and re.search(side, k))
            for side in (r"lora_B|lora\.up|layer\.up", r"lora_A|lora\.down|layer\.down")
        )
        value = module.weight + scale * up @ down
        if magnitude := [v for k, v in tensors.items() if k.startswith(f"{key}.") and "magnitude" in k]:
            value = magnitude[0][:, None] * value / value.norm(dim=1, keepdim=True)
        expected[part, name] = value
    assert_weights(laid("sd1", file), expected)


@pytest.mark.parametrize("axis", ["outputs", "inputs", "peft"])
def test_dora_keeps_the_magnitudes_of_either_dialect(tmp_path: Path, axis: str) -> None:
    tensors, expected = {}, {}
    for number, (part, name, module) in enumerate(layers_of(plain("sd1"))):
        if part != "unet":
            continue
        down, up = matrices(module, 2, number)
        value = module.weight + 3 / 2 * times(up, down)
        kept = (1,) if axis == "inputs" else (0,)
        others = [dim for dim in range(value.ndim) if dim not in kept]
        norm = value.square().sum(dim=others, keepdim=True).sqrt()
        magnitude = norm * torch.linspace(0.5, 2, norm.numel()).reshape(norm.shape)
        changed = magnitude * value / norm
        key = f"lora_unet_{name.replace('.', '_')}"
        if axis == "peft":
            magnitude = magnitude.flatten() if value.ndim == 2 else magnitude.transpose(0, 1)
            tensors[f"{key}.lora_magnitude_vector"] = magnitude.contiguous()
        else:
            tensors[f"{key}.dora_scale"] = magnitude
        tensors |= {f"{key}.lora_down.weight": down, f"{key}.lora_up.weight": up}
        tensors[f"{key}.alpha"] = torch.tensor(3.0)
        expected[part, name] = module.weight + 0.6 * (changed - module.weight)
    save_file(tensors, tmp_path / "dora.safetensors")
    assert_weights(laid("sd1", tmp_path / "dora.safetensors", 0.6), expected)


def test_the_core_of_a_tucker_decomposition_stands_between_two_convolutions(tmp_path: Path) -> None:
    name = "down_blocks.1.resnets.0.conv1"
    module = plain("sd1").unet.get_submodule(name)
    out, inner, *kernel = module.weight.shape
    torch.manual_seed(0)
    down, mid, up = torch.randn(2, inner, 1, 1), torch.randn(3, 2, *kernel), torch.randn(out, 3, 1, 1)
    key = f"lora_unet_{name.replace('.', '_')}"
    file = tmp_path / "cp.safetensors"
    save_file(
        {
            f"{key}.lora_down.weight": down,
            f"{key}.lora_mid.weight": mid,
            f"{key}.lora_up.weight": up,
            f"{key}.alpha": torch.tensor(4.0),
        },
        file,
    )
    pictures = torch.randn(1, inner, 5, 5)
    chained = F.conv2d(F.conv2d(F.conv2d(pictures, down), mid, padding=1), up)
    changed = laid("sd1", file).unet.get_submodule(name)
    difference = F.conv2d(pictures, changed.weight - module.weight, padding=1)
    torch.testing.assert_close(difference, 4 / 2 * chained, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("kind", ["loha", "loha core", "lokr", "lokr core", "lokr whole", "lokr both"])
@pytest.mark.parametrize("dora", [False, True])
def test_loha_and_lokr_multiply_their_factors(tmp_path: Path, kind: str, dora: bool) -> None:
    generator = torch.Generator().manual_seed(4)

    def rand(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator) / 3

    def hada(i: int, o: int, k: list[int]) -> tuple[Tensors, Tensor]:
        if kind.endswith("core") and k:
            a, b, t = rand(3, o), rand(3, i), rand(3, 3, *k)
            return {"a": a, "b": b, "t": t}, torch.einsum("xykl,xo,yi->oikl", t, a, b)
        a, b = rand(o, 3), rand(3, i * (k[0] ** 2 if k else 1))
        return {"a": a, "b": b}, (a @ b).reshape(o, i, *k)

    tensors, expected = {}, {}
    for part, name, module in layers_of(plain("sd1"), re.compile(r".*(to_q|to_v|conv1|proj_in|fc1)")):
        out, inner, *k = module.weight.shape
        prefix = "lora_unet_" if part == "unet" else "lora_te_text_model_"
        key, scale = prefix + name.replace(".", "_"), 2 / 3
        if kind.startswith("loha"):
            (first, one), (second, two) = hada(inner, out, k), hada(inner, out, k)
            change = one * two
            for i, factor in ((1, first), (2, second)):
                for side, value in factor.items():
                    role = f"hada_t{i}" if side == "t" else f"hada_w{i}_{side}"
                    tensors[f"{key}.{role}"] = value
        else:
            one = rand(4, 2)
            tensors[f"{key}.lokr_w1"] = one
            if kind == "lokr both":
                a, b = rand(4, 3), rand(3, 2)
                one = a @ b
                del tensors[f"{key}.lokr_w1"]
                tensors |= {f"{key}.lokr_w1_a": a, f"{key}.lokr_w1_b": b}
            factor, two = hada(inner // 2, out // 4, k)
            if kind == "lokr whole":
                tensors[f"{key}.lokr_w2"], scale = two, 1.0
            else:
                for side, value in factor.items():
                    tensors[f"{key}.lokr_{'t2' if side == 't' else f'w2_{side}'}"] = value
            change = torch.einsum("ab,cd...->acbd...", one, two).reshape(out, inner, *k)
        tensors[f"{key}.alpha"] = torch.tensor(2.0)
        value = module.weight + scale * change
        if dora:
            norm = value.flatten(1).norm(dim=1).reshape(-1, *[1] * (value.ndim - 1))
            tensors[f"{key}.dora_scale"] = 1.5 * norm
            value = 1.5 * value
        expected[part, name] = value
    assert len(expected) > 20
    save_file(tensors, tmp_path / "ink.safetensors")
    assert_weights(laid("sd1", tmp_path / "ink.safetensors"), expected)


@pytest.mark.parametrize(
    "config",
    [
        peft.LoHaConfig(r=3, alpha=5, alpha_pattern={"to_k": 2}, target_modules=["to_k", "conv1"]),
        pytest.param(
            peft.LoHaConfig(r=3, alpha=5, use_effective_conv2d=True, target_modules=["to_k", "conv1"]),
            marks=pytest.mark.slow,
        ),
        pytest.param(
            peft.LoKrConfig(r=3, alpha=5, target_modules=["to_k", "conv1"]), marks=pytest.mark.slow
        ),
        pytest.param(
            peft.LoKrConfig(r=64, alpha=5, target_modules=["to_k", "conv1"]), marks=pytest.mark.slow
        ),
        peft.LoKrConfig(
            r=2, alpha=5, decompose_both=True, decompose_factor=8, target_modules=["to_k", "proj_in"]
        ),
        peft.LoraConfig(r=3, lora_alpha=5, use_dora=True, target_modules=["to_k", "conv1"]),
        peft.LoraConfig(r=3, lora_alpha=5, use_rslora=True, target_modules=["to_k", "conv1"]),
    ],
    ids=lambda config: f"{config.peft_type.value}-{config.r}",
)
def test_what_peft_saves_is_what_peft_makes_of_it(tmp_path: Path, config: peft.PeftConfig) -> None:
    torch.manual_seed(1)
    adapted = peft.get_peft_model(tiny("sd1").unet, config)
    for name, value in adapted.named_parameters():
        if value.requires_grad:
            value.data = torch.rand_like(value) / 2 + ("magnitude" in name)
    adapted.save_pretrained(tmp_path)
    merged = adapted.merge_and_unload()
    expected = {
        ("unet", name): merged.get_submodule(name).weight
        for part, name, module in layers_of(plain("sd1"))
        if part == "unet"
    }
    assert_weights(laid("sd1", tmp_path), dict(expected))
    assert_weights(laid("sd1", tmp_path / "adapter_model.safetensors"), expected)
    (tmp_path / "adapter_config.json").unlink()
    assert "made by peft (base_model.model....), which stores alpha in" in complaint(tmp_path)


@pytest.mark.parametrize("part", ["text_encoder", "text_encoder_2"])
def test_a_peft_folder_does_not_say_its_part_but_its_layers_do(tmp_path: Path, part: str) -> None:
    config = peft.LoraConfig(r=2, lora_alpha=8, target_modules=["q_proj"], init_lora_weights=False)
    adapted = peft.get_peft_model(tiny("sdxl").components[part], config)
    adapted.save_pretrained(tmp_path)
    merged = adapted.merge_and_unload()
    names = [n for n, _ in merged.named_modules() if n.endswith("q_proj")]
    expected = {(part, name): merged.get_submodule(name).weight for name in names}
    assert_weights(laid("sdxl", tmp_path), expected)


@pytest.mark.parametrize("prefix", ["unet.", ""])
def test_old_attention_processors_are_read(tmp_path: Path, prefix: str) -> None:
    tensors, expected = {}, {}
    pattern = re.compile(r".*attn\d\.(to_[qkv]|to_out\.0)")
    for number, (part, name, module) in enumerate(layers_of(plain("sd1"), pattern)):
        down, up = matrices(module, 2, number)
        block, _, layer = name.removesuffix(".0").rpartition(".")
        key = f"{prefix}{block}.processor.{layer}_lora"
        tensors |= {f"{key}.down.weight": down, f"{key}.up.weight": up}
        expected[part, name] = module.weight + up @ down
    save_file(tensors, tmp_path / "old.safetensors")
    assert_weights(laid("sd1", tmp_path / "old.safetensors"), expected)


LAYER = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"


@pytest.mark.parametrize(
    ("tensors", "expected"),
    [
        ({f"{LAYER}.oft_blocks": (2, 8, 8)}, "contains no LoRA layers but OFT; merge it"),
        ({f"{LAYER}.on_input": (1,), f"{LAYER}.weight": (16,)}, "IA3; merge it"),
        ({f"{LAYER}.a1.weight": (2, 16), f"{LAYER}.b1.weight": (16, 2)}, "GLoRA; merge it"),
        ({f"{LAYER}.diff": (16, 16)}, "whole differences of weights; merge it"),
        ({"base_model.model.down.vera_lambda_d": (2,)}, "VeRA; merge it"),
        ({"lora_unet_double_blocks_0_img_attn_proj.lora_down.weight": (2, 8)}, "another architecture"),
        ({"bundle_emb.ink.clip_l": (2, 32)}, "learned words; give them in a file of their own"),
        ({"emb_params": (2, 32)}, "learned words"),
    ],
    ids=lambda value: None if isinstance(value, str) else next(iter(value)).rpartition(".")[2],
)
@pytest.mark.parametrize("beside", [False, True])
def test_other_kinds_are_refused_by_name(
    tmp_path: Path, tensors: dict[str, Any], expected: str, beside: bool
) -> None:
    content = {key: torch.ones(shape) for key, shape in tensors.items()}
    if "double_blocks" in str(tensors):
        content[next(iter(content)).replace("down", "up")] = torch.ones(8, 2)
    if beside:
        content |= lora(plain("sd1"))
        expected = expected.removeprefix("contains no LoRA layers but ")
    save_file(content, tmp_path / "strange.safetensors")
    assert expected in complaint(tmp_path / "strange.safetensors")


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"lora_bias": True}, "its header says lora_bias: True, which changes the result"),
        ({"init_lora_weights": "pissa_niter_4"}, "init_lora_weights: pissa_niter_4, which changes"),
        ({"layer_replication": [[0, 4]]}, "layer_replication: [[0, 4]], which changes the result"),
        ({"use_dora": True}, "its header says DoRA, but it has no magnitudes"),
    ],
)
def test_settings_of_peft_that_are_not_supported_are_told(
    tmp_path: Path, change: dict[str, Any], expected: str
) -> None:
    settings = {f"unet.{key}": value for key, value in {"r": 2, "lora_alpha": 2, **change}.items()}
    header = {"lora_adapter_metadata": json.dumps(settings)}
    save_file(lora(plain("sd1"), form="peft"), tmp_path / "ink.safetensors", header)
    assert expected in complaint(tmp_path / "ink.safetensors")


def test_layers_that_are_not_whole_or_do_not_fit_are_told(tmp_path: Path) -> None:
    file, whole = tmp_path / "ink.safetensors", lora(plain("sd1"))

    def told(change: dict[str, Tensor | None]) -> str:
        tensors = {key: value for key, value in (whole | change).items() if value is not None}
        save_file(tensors, file)
        return complaint(file)

    assert f"the tensors of {LAYER} do not form a whole layer: alpha, down" in told(
        {f"{LAYER}.lora_up.weight": None}
    )
    assert f"the tensors of {LAYER} do not fit each other" in told(
        {f"{LAYER}.lora_up.weight": torch.ones(16, 3)}
    )
    assert "changes weights of (16, 20), but this model's are (16, 16)" in told(
        {f"{LAYER}.lora_down.weight": torch.ones(2, 20)}
    )
    assert f"the magnitudes (DoRA) of {LAYER} do not fit" in told({f"{LAYER}.dora_scale": torch.ones(5)})
    twice = LAYER.replace("down_blocks_0_attentions_0", "input_blocks_1_1")
    assert f"{twice} and {LAYER} are both for down_blocks.0" in told(
        {k.replace(LAYER, twice): v.clone() for k, v in whole.items() if LAYER in k}
    )
    save_file(original_names(plain("sd1")), file)
    assert (
        "contains no LoRA layers but part of a checkpoint; give a whole checkpoint as model"
        in complaint(file)
    )
