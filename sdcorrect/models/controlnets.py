"""Load ControlNets, of diffusers' format or the original one."""

import tempfile
from collections.abc import Sequence

from diffusers import ControlNetModel, MultiControlNetModel
from diffusers.loaders.single_file_utils import SingleFileComponentError
from safetensors import SafetensorError
from torch import dtype as DType

from sdcorrect.errors import UsageError
from sdcorrect.models.adapters import MISFITS
from sdcorrect.models.checkpoints import Pipeline
from sdcorrect.models.sources import Found
from sdcorrect.models.tensors import read_shapes
from sdcorrect.settings import ControlNet


def load_controlnets(
    pipe: Pipeline, controlnets: Sequence[tuple[ControlNet, Found]], dtype: DType
) -> MultiControlNetModel | None:
    """ControlNets for the U-Net of `pipe`, from diffusers folders or single files; None without any.

    Raises:
        UsageError: one is broken, or made for another family.
    """
    networks = [_load_controlnet(pipe, network, found, dtype) for network, found in controlnets]
    return MultiControlNetModel(networks) if networks else None


def _load_controlnet(
    pipe: Pipeline, settings: ControlNet, found: Found, dtype: DType
) -> ControlNetModel:
    try:
        if found.path.is_file():
            read_shapes("controlnet", found.path)
            with tempfile.TemporaryDirectory() as config:
                # a single file does not say what it is, but a ControlNet mirrors its U-Net
                ControlNetModel.from_unet(pipe.unet, load_weights_from_unet=False).save_config(config)
                network = ControlNetModel.from_single_file(
                    str(found.path), config=config, local_files_only=True, dtype=dtype
                )
        else:
            network = ControlNetModel.from_pretrained(found.path, local_files_only=True, dtype=dtype)
    except (*MISFITS, OSError, SafetensorError, SingleFileComponentError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UsageError(
            f"controlnet {settings.path}: not a ControlNet for this model's family: {reason}"
        ) from None
    for key in ("cross_attention_dim", "block_out_channels"):
        own, expected = network.config[key], pipe.unet.config[key]
        if own != expected:
            raise UsageError(
                f"controlnet {settings.path}: made for another family: its {key} is {own}, "
                f"this model's {expected}"
            )
    return network
