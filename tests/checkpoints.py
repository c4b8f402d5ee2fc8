"""Tiny Stable Diffusion checkpoints of every family and format, with the tensors' real names.

The weights are random; the tokenizer is the embedded model's. The original format's names are those that
diffusers' conversion expects, so that loading one runs the conversion that a real checkpoint runs.
"""

import re
from pathlib import Path
from typing import Literal

import torch
from diffusers import (
    AutoencoderKL,
    ControlNetModel,
    DDIMScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from safetensors.torch import save_file
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from sdcorrect.models import MINI

Family = Literal["sd1", "sd2", "sdxl"]
FAMILIES: tuple[Family, ...] = ("sd1", "sd2", "sdxl")
Pipeline = StableDiffusionPipeline | StableDiffusionXLPipeline
Tensors = dict[str, Tensor]

WIDTHS = (16, 32, 32, 32)
_UNET = {
    "sd1": {
        "cross_attention_dim": 32,
        "attention_head_dim": 4,  # heads, as SD 1.x has it
    },
    "sd2": {
        "cross_attention_dim": 48,
        "attention_head_dim": (2, 4, 4, 4),
        "use_linear_projection": True,
    },
    "sdxl": {
        "block_out_channels": WIDTHS[:3],
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "transformer_layers_per_block": (1, 2, 3),
        "cross_attention_dim": 32 + 48,
        "attention_head_dim": (2, 4, 4),
        "use_linear_projection": True,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 8,
        "projection_class_embeddings_input_dim": 6 * 8 + 48,
    },
}


def text_config(width: int, activation: str) -> CLIPTextConfig:
    words = tokenizer()
    return CLIPTextConfig(
        vocab_size=len(words),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=24,
        projection_dim=width,
        hidden_act=activation,
        # as published configs say, of whichever tokenizer
        bos_token_id=0,
        eos_token_id=2,
        pad_token_id=1,
    )


def unet_of(family: Family, **changes: object) -> UNet2DConditionModel:
    settings = {"sample_size": 8, "block_out_channels": WIDTHS, "norm_num_groups": 8}
    return UNet2DConditionModel(**settings | _UNET[family] | changes)


def vae(latent_channels: int = 4) -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=(8, 8, 16, 16),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=1,
        norm_num_groups=4,
        latent_channels=latent_channels,
        sample_size=64,
    )


def tokenizer() -> CLIPTokenizer:
    return CLIPTokenizer.from_pretrained(MINI / "tokenizer")


def tiny(family: Family, **unet_changes: object) -> Pipeline:
    """A randomly initialised pipeline, the same each time."""
    torch.manual_seed(0)
    scheduler = DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        steps_offset=1,
        clip_sample=False,
        prediction_type="v_prediction" if family == "sd2" else "epsilon",
    )
    unet = unet_of(family, **unet_changes)
    if family == "sdxl":
        return StableDiffusionXLPipeline(
            vae(),
            CLIPTextModel(text_config(32, "quick_gelu")).eval(),
            CLIPTextModelWithProjection(text_config(48, "gelu")).eval(),
            tokenizer(),
            tokenizer(),
            unet,
            scheduler,
            add_watermarker=False,
        )
    width, activation = (48, "gelu") if family == "sd2" else (32, "quick_gelu")
    text_encoder = CLIPTextModel(text_config(width, activation)).eval()
    return StableDiffusionPipeline(
        vae(), text_encoder, tokenizer(), unet, scheduler, None, None, requires_safety_checker=False
    )


def controlnet(family: Family, seed: int = 2) -> ControlNetModel:
    """A ControlNet whose zero convolutions have learned something."""
    torch.manual_seed(seed)
    network = ControlNetModel.from_unet(unet_of(family))
    hint = network.controlnet_cond_embedding.conv_out
    for zero in (hint, *network.controlnet_down_blocks, network.controlnet_mid_block):
        torch.nn.init.normal_(zero.weight, std=0.3)
    return network.eval()


def save_folder(pipe: Pipeline, folder: Path, **options: object) -> Path:
    pipe.save_pretrained(folder, **options)
    return folder


def save_single(pipe: Pipeline, file: Path) -> Path:
    """Write the whole pipeline as one file in the original format."""
    tensors = original_names(pipe)
    if file.suffix == ".ckpt":
        torch.save({"global_step": 7, "state_dict": tensors}, file)
    else:
        save_file(tensors, file)
    return file


def original_names(pipe: Pipeline) -> Tensors:
    """The pipeline's tensors under the names of the original (LDM) format."""
    named = {f"model.diffusion_model.{key}": value for key, value in _unet(pipe.unet).items()}
    named |= {f"first_stage_model.{key}": value for key, value in _vae(pipe.vae).items()}
    if isinstance(pipe, StableDiffusionXLPipeline):
        named |= _clip(pipe.text_encoder, "conditioner.embedders.0.transformer.")
        named |= _open_clip(pipe.text_encoder_2, "conditioner.embedders.1.model.")
    elif pipe.unet.config.use_linear_projection:
        named |= _open_clip(pipe.text_encoder, "cond_stage_model.model.")
    else:
        named |= _clip(pipe.text_encoder, "cond_stage_model.transformer.")
    return {key: value.contiguous().clone() for key, value in named.items()}


def _renamed(key: str, rules: list[tuple[str, str]]) -> str:
    for pattern, replacement in rules:
        key = re.sub(pattern, replacement, key)
    return key


_RESNET = [
    (r"\.norm1\.", ".in_layers.0."),
    (r"\.conv1\.", ".in_layers.2."),
    (r"\.norm2\.", ".out_layers.0."),
    (r"\.conv2\.", ".out_layers.3."),
    (r"\.time_emb_proj\.", ".emb_layers.1."),
    (r"\.conv_shortcut\.", ".skip_connection."),
]


def _unet(unet: UNet2DConditionModel | ControlNetModel) -> Tensors:
    named = {}
    for key, value in unet.state_dict().items():
        name = _renamed(
            key,
            [
                (r"^time_embedding\.linear_1", "time_embed.0"),
                (r"^time_embedding\.linear_2", "time_embed.2"),
                (r"^add_embedding\.linear_1", "label_emb.0.0"),
                (r"^add_embedding\.linear_2", "label_emb.0.2"),
                (r"^conv_in", "input_blocks.0.0"),
                (r"^conv_norm_out", "out.0"),
                (r"^conv_out", "out.2"),
            ],
        )
        if match := re.match(r"(down|up)_blocks\.(\d+)\.(\w+)\.(\d+)\.(.*)", key):
            side, level, kind, i, rest = match.groups()
            first = 3 * int(level)
            if kind == "downsamplers":
                name = f"input_blocks.{first + 3}.0.op.{rest.removeprefix('conv.')}"
            elif kind == "upsamplers":
                place = 2 if f"up_blocks.{level}.attentions.0.norm.weight" in unet.state_dict() else 1
                name = f"output_blocks.{first + 2}.{place}.{rest}"
            else:
                block = f"input_blocks.{first + int(i) + 1}"
                if side == "up":
                    block = f"output_blocks.{first + int(i)}"
                name = f"{block}.{0 if kind == 'resnets' else 1}.{rest}"
        elif match := re.match(r"mid_block\.(\w+)\.(\d)\.(.*)", key):
            kind, i, rest = match.groups()
            name = f"middle_block.{2 * int(i) if kind == 'resnets' else 1}.{rest}"
        resnet = ".resnets." in key
        named[_renamed(name, _RESNET) if resnet else name] = value
    return named


def original_controlnet_names(network: ControlNetModel) -> Tensors:
    """The tensors of a ControlNet under the names of its original format."""
    named = {}
    for key, value in _unet(network).items():
        name = _renamed(
            key,
            [
                (r"^controlnet_down_blocks\.(\d+)", r"zero_convs.\1.0"),
                (r"^controlnet_mid_block", "middle_block_out.0"),
                (r"^controlnet_cond_embedding\.conv_in", "input_hint_block.0"),
                (r"^controlnet_cond_embedding\.conv_out", "input_hint_block.14"),
            ],
        )
        if match := re.match(r"controlnet_cond_embedding\.blocks\.(\d)\.(.*)", key):
            name = f"input_hint_block.{2 * (int(match[1]) + 1)}.{match[2]}"
        named[f"control_model.{name}"] = value.contiguous().clone()
    return named


def _vae(vae: AutoencoderKL) -> Tensors:
    last = len(vae.config.up_block_types) - 1
    rules = [
        (r"encoder\.down_blocks\.(\d)\.resnets", r"encoder.down.\1.block"),
        (r"encoder\.down_blocks\.(\d)\.downsamplers\.0", r"encoder.down.\1.downsample"),
        (r"mid_block\.resnets\.0", "mid.block_1"),
        (r"mid_block\.resnets\.1", "mid.block_2"),
        (r"mid_block\.attentions\.0", "mid.attn_1"),
        (r"group_norm", "norm"),
        (r"to_([qkv])\.", r"\1."),
        (r"to_out\.0", "proj_out"),
        (r"conv_norm_out", "norm_out"),
        (r"conv_shortcut", "nin_shortcut"),
    ]
    named = {}
    for key, value in vae.state_dict().items():
        if match := re.match(r"decoder\.up_blocks\.(\d)\.(.*)", key):
            inner = match[2].replace("resnets.", "block.").replace("upsamplers.0", "upsample")
            key = f"decoder.up.{last - int(match[1])}.{inner}"
        name = _renamed(key, rules)
        is_projection = "attn_1" in name and value.ndim == 2
        named[name] = value[:, :, None, None] if is_projection else value
    return named


def _clip(text_encoder: CLIPTextModel, prefix: str) -> Tensors:
    return {f"{prefix}text_model.{key}": value for key, value in text_encoder.state_dict().items()}


def _open_clip(text_encoder: CLIPTextModel | CLIPTextModelWithProjection, prefix: str) -> Tensors:
    tensors = {key.removeprefix("text_model."): v for key, v in text_encoder.state_dict().items()}
    named = {}
    for key, value in tensors.items():
        name = _renamed(
            key,
            [
                (r"^embeddings\.token_embedding", "token_embedding"),
                (r"^embeddings\.position_embedding\.weight", "positional_embedding"),
                (r"^final_layer_norm", "ln_final"),
                (r"^text_projection\.weight", "text_projection"),
                (r"^encoder\.layers", "transformer.resblocks"),
                (r"self_attn\.out_proj", "attn.out_proj"),
                (r"layer_norm", "ln_"),
                (r"mlp\.fc1", "mlp.c_fc"),
                (r"mlp\.fc2", "mlp.c_proj"),
            ],
        )
        if "self_attn.k_proj" in key or "self_attn.v_proj" in key:
            continue
        if "self_attn.q_proj" in key:
            parts = [tensors[key.replace("q_proj", f"{part}_proj")] for part in "qkv"]
            name = name.replace("self_attn.q_proj.", "attn.in_proj_")
            value = torch.cat(parts)
        named[prefix + name] = value.T if name == "text_projection" else value
    return named


def lora(pipe: Pipeline, *, form: Literal["kohya", "peft"] = "kohya", rank: int = 2) -> Tensors:
    """A LoRA over every attention of the U-Net and the text encoders, as trainers name its tensors."""
    generator = torch.Generator().manual_seed(1)
    tensors: Tensors = {}
    prefixes = {"unet": "lora_unet", "text_encoder": "lora_te"}
    if "text_encoder_2" in pipe.components:
        prefixes |= {"text_encoder": "lora_te1", "text_encoder_2": "lora_te2"}
    for part, prefix in prefixes.items():
        for name, module in pipe.components[part].named_modules():
            if not re.search(r"attn\d?\.(to_[qkv]|to_out\.0|[qkv]_proj|out_proj)$", name):
                continue
            full = name if part == "unet" or name.startswith("text_model") else f"text_model.{name}"
            down = torch.randn(rank, module.in_features, generator=generator)
            up = torch.randn(module.out_features, rank, generator=generator) / rank
            if form == "kohya":
                flat = f"{prefix}_{full.replace('.', '_')}"
                tensors[f"{flat}.lora_down.weight"] = down
                tensors[f"{flat}.lora_up.weight"] = up
                tensors[f"{flat}.alpha"] = torch.tensor(float(rank))
            else:
                tensors[f"{part}.{full}.lora_A.weight"] = down
                tensors[f"{part}.{full}.lora_B.weight"] = up
    return tensors
