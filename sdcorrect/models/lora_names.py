"""The names that trainers use for the layers of Stable Diffusion's U-Net and text encoders.

A LoRA names a layer as diffusers does ("down_blocks.0..."), as the original format does
("input_blocks.1..."), or as either with "_" instead of ".", which is the form used here.
"""

import re
from collections.abc import Iterator
from typing import Any

from torch import nn
from transformers import PreTrainedModel

_RESNET = {
    "conv1": "in_layers_2",
    "conv2": "out_layers_3",
    "time_emb_proj": "emb_layers_1",
    "conv_shortcut": "skip_connection",
}
_OUTER = {
    "conv_in": "input_blocks_0_0",
    "conv_out": "out_2",
    "time_embedding_linear_1": "time_embed_0",
    "time_embedding_linear_2": "time_embed_2",
    "add_embedding_linear_1": "label_emb_0_0",
    "add_embedding_linear_2": "label_emb_0_2",
}
_BLOCK = re.compile(r"(?P<side>down|up)_blocks_(?P<level>\d+)_(?P<kind>[a-z]+)_(?P<i>\d+)_(?P<rest>.+)")
_MID = re.compile(r"mid_block_(?P<kind>resnets|attentions)_(?P<i>\d+)_(?P<rest>.+)")


def layers_by_name(part: Any) -> dict[str, str]:
    """A table from all names that trainers use to the linear and convolution layers of a part."""
    return {
        alias: name
        for name, module in part.named_modules()
        if isinstance(module, nn.Linear | nn.Conv2d)
        for alias in _aliases(name.replace(".", "_"), part)
    }


def _aliases(flat: str, part: Any) -> Iterator[str]:
    yield flat
    if isinstance(part, PreTrainedModel):
        bare = flat.removeprefix("text_model_")  # the prefix depends on the library's version
        for name in (bare, f"text_model_{bare}"):
            yield name
            yield re.sub(r"self_attn_([qkv]|out)_proj", r"self_attn_to_\1", name)
    else:
        yield _original(flat, part.config.layers_per_block)
        if flat.endswith("_to_out_0"):
            yield flat.removesuffix("_0")


def _original(flat: str, layers_per_block: int) -> str:
    """The name of a U-Net's layer in the original format."""
    if flat in _OUTER:
        return _OUTER[flat]
    if match := _MID.fullmatch(flat):
        place = 1 if match["kind"] == "attentions" else 2 * int(match["i"])
        return f"middle_block_{place}_{_inner(match)}"
    if not (match := _BLOCK.fullmatch(flat)):
        return flat
    first, i = (layers_per_block + 1) * int(match["level"]), int(match["i"])
    if match["kind"] == "downsamplers":
        return f"input_blocks_{first + layers_per_block + 1}_0_op"
    if match["kind"] == "upsamplers":
        return f"output_blocks_{first + layers_per_block}_2_conv"
    block = f"input_blocks_{first + i + 1}" if match["side"] == "down" else f"output_blocks_{first + i}"
    return f"{block}_{1 if match['kind'] == 'attentions' else 0}_{_inner(match)}"


def _inner(match: re.Match[str]) -> str:
    return _RESNET.get(match["rest"], match["rest"]) if match["kind"] == "resnets" else match["rest"]
