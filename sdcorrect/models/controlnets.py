"""Find and load ControlNets in diffusers' format or the original one."""

import json
import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import ControlNetModel, MultiControlNetModel
from torch import dtype as DType

from sdcorrect.errors import UsageError, printable
from sdcorrect.models.accounts import account_for, account_for_header, account_for_loading, notices
from sdcorrect.models.checkpoints import Pipeline
from sdcorrect.models.original import taken
from sdcorrect.models.reasons import MISFITS, reason_of
from sdcorrect.models.sources import Finder, Found
from sdcorrect.models.tensors import read_header, read_shapes
from sdcorrect.models.variants import check_variant, listing, refuse_unreadable, weights_in
from sdcorrect.settings import ControlNet

#: Residuals are pooled (Zhang's shuffle); in a single file, only the file's name says so.
_POOLED = re.compile(r"shuffle(_fp16)?$", re.I)
#: Settings that a ControlNet shares with the U-Net that it mirrors.
MIRRORED = ("cross_attention_dim", "block_out_channels", "layers_per_block", "addition_embed_type")
#: The supported values of settings of a ControlNet; others need inputs beyond hints.
USUAL = {
    "in_channels": 4,
    "conditioning_channels": 3,
    "class_embed_type": None,
    "num_class_embeds": None,
}
#: Keys of the configurations of ControlNet-Union.
UNION = ("num_control_type", "num_trans_channel", "num_proj_channel")


def find_controlnet(settings: ControlNet, finder: Finder) -> Found:
    """Find a ControlNet's folder or file, and download it if it is on the hub.

    Raises:
        UsageError: it is missing, is not a ControlNet, or lacks the requested variant.
    """
    what = f"controlnet {settings.path}"
    here = Path(settings.path).expanduser()
    if here.is_dir():
        _check_config(what, here)  # first, because the folder may be a large one of another kind
    found = finder.find("controlnet", settings.path, _files(settings.variant), here=("*",))
    if found.path.is_file():
        # the name decides: of two equal files, one may be pooled
        return Found(found.path, f"{found.identity} pooled") if _is_pooled(found) else found
    _check_config(what, found.path)
    weights = weights_in(listing(settings.path, found))
    check_variant(what, weights, [""], settings.variant)
    identity = f"{found.identity} {settings.variant}" if settings.variant else found.identity
    return Found(found.path, identity)


def _files(variant: str | None) -> tuple[str, ...]:
    """The files to download from a repository."""
    stem = f"diffusion_pytorch_model.{variant}" if variant else "diffusion_pytorch_model"
    index = f".index.{variant}.json" if variant else ".index.json"
    kinds = ("safetensors", "bin")
    return (
        "config.json",
        *(f"{stem}.{kind}" for kind in kinds),
        *(f"{stem}-*-of-*.{kind}" for kind in kinds),
        *(f"diffusion_pytorch_model.{kind}{index}" for kind in kinds),
    )


def _is_pooled(found: Found) -> bool:
    return _POOLED.search(found.path.stem) is not None


def _check_config(what: str, folder: Path) -> None:
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        kind = config.get("_class_name", "ControlNetModel")
    except (OSError, ValueError, AttributeError) as error:
        raise UsageError(
            f"{what}: this folder is not a ControlNet in diffusers' format (config.json): {error}"
        ) from None
    if kind == "ControlNetUnionModel" or any(key in config for key in UNION):
        raise UsageError(f"{what}: is a ControlNet-Union, which combines several; give a plain one")
    if kind != "ControlNetModel":
        raise UsageError(f"{what}: is not a ControlNet but {printable(kind)}")


def load_controlnets(
    pipe: Pipeline, controlnets: Sequence[tuple[ControlNet, Found]], dtype: DType
) -> MultiControlNetModel | None:
    """Load ControlNets for the U-Net of `pipe`, from diffusers folders or single files; None if empty.

    Raises:
        UsageError: one is broken, or belongs to another family.
    """
    networks = [_load_controlnet(pipe, network, found, dtype) for network, found in controlnets]
    return MultiControlNetModel(networks) if networks else None


def _load_controlnet(
    pipe: Pipeline, settings: ControlNet, found: Found, dtype: DType
) -> ControlNetModel:
    what = f"controlnet {settings.path}"
    try:
        with notices("controlnet", settings.path):
            load = _load_file if found.path.is_file() else _load_folder
            network = load(pipe, settings, found, dtype)
    except NotImplementedError:  # torch's error for moving a tensor without content
        raise UsageError(
            f"{what}: not a ControlNet for this model's family: some of its tensors are missing"
        ) from None
    except MISFITS as error:
        refuse_unreadable("controlnet", found.path, settings.variant)
        raise UsageError(
            f"{what}: not a ControlNet for this model's family: {reason_of(error)}"
        ) from None
    check_family(what, network.config, pipe.unet.config)
    return network


def check_family(what: str, config: Mapping[str, Any], unet: Mapping[str, Any]) -> None:
    """Refuse a ControlNet that mirrors another U-Net, by the configurations of both.

    Raises:
        UsageError: it does, or it needs inputs beyond hints.
    """
    for key in MIRRORED:
        own, expected = config[key], unet[key]
        if own != expected:
            raise UsageError(
                f"{what}: made for another family: its {key} is {own}, this model's is {expected}"
            )
    for key, usual in USUAL.items():
        if config[key] != usual:
            raise UsageError(f"{what}: its {key} is {config[key]}; expected {usual}")


def outline_controlnet(settings: ControlNet, found: Found, unet: Any) -> ControlNetModel:
    """A ControlNet without weights, for a U-Net from `outline`; a single file is accounted for.

    Raises:
        UsageError: it belongs to another family, or has unknown tensors.
    """
    what = f"controlnet {settings.path}"
    with torch.device("meta"):
        if found.path.is_dir():
            config = json.loads((found.path / "config.json").read_text(encoding="utf-8"))
            network = ControlNetModel.from_config(config)
        else:
            network = ControlNetModel.from_unet(unet, load_weights_from_unet=False)
            network.register_to_config(global_pool_conditions=_is_pooled(found))
    if found.path.is_file():
        shapes = read_shapes("controlnet", found.path)
        account_for("controlnet", settings.path, shapes, taken(shapes, {"controlnet": network}))
    check_family(what, network.config, unet.config)
    return network


def _load_folder(_pipe: Pipeline, settings: ControlNet, found: Found, dtype: DType) -> ControlNetModel:
    network, told = ControlNetModel.from_pretrained(
        found.path,
        variant=settings.variant,
        local_files_only=True,
        dtype=dtype,
        output_loading_info=True,
    )
    account_for_loading("controlnet", settings.path, "ControlNet", told)
    return network


def _load_file(pipe: Pipeline, settings: ControlNet, found: Found, dtype: DType) -> ControlNetModel:
    shapes = read_shapes("controlnet", found.path)
    with tempfile.TemporaryDirectory() as config:
        # a single file has no configuration, but a ControlNet mirrors its U-Net
        mirror = ControlNetModel.from_unet(pipe.unet, load_weights_from_unet=False)
        mirror.register_to_config(global_pool_conditions=_is_pooled(found))
        mirror.save_config(config)
        network: ControlNetModel = ControlNetModel.from_single_file(
            str(found.path), config=config, local_files_only=True, dtype=dtype
        )
    account_for("controlnet", settings.path, shapes, taken(shapes, {"controlnet": network}))
    account_for_header("controlnet", settings.path, read_header("controlnet", found.path), ())
    return network
