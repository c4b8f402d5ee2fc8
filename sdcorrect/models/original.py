"""Find out which tensors of a single file in the original (LDM) format a loaded model has used.

diffusers renames the tensors that it knows and ignores the others silently. So its renaming is run once
more on placeholders that take no memory: each has the shape of its tensor, and the value of the tensor's
number in the file.
"""

import re
from collections.abc import Mapping
from typing import Any

import torch
from diffusers import AutoencoderKL, ControlNetModel, UNet2DConditionModel
from diffusers.loaders.single_file_utils import (
    convert_controlnet_checkpoint,
    convert_ldm_clip_checkpoint,
    convert_ldm_unet_checkpoint,
    convert_ldm_vae_checkpoint,
    convert_open_clip_checkpoint,
    is_clip_model,
    is_clip_sdxl_model,
)
from torch import Tensor, nn

Shapes = Mapping[str, tuple[int, ...]]
#: The prefixes of the tensors of OpenCLIP text encoders in the original format.
OPEN_CLIPS = {
    "text_encoder": "cond_stage_model.model.",
    "text_encoder_2": "conditioner.embedders.1.model.",
}
#: Older files omit "text_model." in the names of CLIP's tensors.
_WITHOUT_MODEL = re.compile(
    r"(?P<clip>(cond_stage_model|conditioner\.embedders\.0)\.transformer\.)"
    r"(?P<rest>(embeddings|encoder|final_layer_norm)\..+)"
)


def usual_name(key: str) -> str:
    """The name of a tensor in most files; older files name CLIP's differently."""
    match = _WITHOUT_MODEL.fullmatch(key)
    return f"{match['clip']}text_model.{match['rest']}" if match else key


def taken(shapes: Shapes, parts: Mapping[str, Any]) -> set[str]:
    """The names of the tensors in a single file that `parts` were loaded from.

    Args:
        shapes: the shapes of all tensors in the file, by name.
        parts: the loaded models, by their names in a pipeline ("unet", "vae", "text_encoder", ...) or
            "controlnet". Other parts, such as a tokenizer, are ignored.
    """
    names = list(shapes)
    numbers = {
        key: torch.tensor(float(number), dtype=torch.float64).expand(shapes[key])
        for number, key in enumerate(names)
    }
    used = set()
    for part, module in parts.items():
        if isinstance(module, nn.Module):
            known = module.state_dict().keys()
            for key, value in _renamed(part, module, dict(numbers)).items():
                if key in known and value is not None and value.numel():
                    used.add(names[int(value.flatten()[0])])
    return used


def _renamed(part: str, module: nn.Module, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    if module.state_dict().keys() == tensors.keys():
        return tensors  # a file of one part, in diffusers' own format
    if isinstance(module, UNet2DConditionModel):
        return convert_ldm_unet_checkpoint(tensors, module.config)
    if isinstance(module, AutoencoderKL):
        return convert_ldm_vae_checkpoint(tensors, module.config)
    if isinstance(module, ControlNetModel):
        return convert_controlnet_checkpoint(tensors, module.config)
    if part == "text_encoder" and (is_clip_model(tensors) or is_clip_sdxl_model(tensors)):
        renamed = convert_ldm_clip_checkpoint(tensors)
    else:
        renamed = convert_open_clip_checkpoint(module, tensors, OPEN_CLIPS[part])
    if not hasattr(module, "text_model"):
        renamed = {key.removeprefix("text_model."): value for key, value in renamed.items()}
    return renamed
