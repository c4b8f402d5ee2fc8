"""Find and load a replacement VAE in diffusers' format or the original one."""

import logging
from pathlib import Path

from diffusers import AutoencoderKL
from torch import dtype as DType

from sdcorrect.errors import UsageError
from sdcorrect.models.accounts import account_for, account_for_loading, notices
from sdcorrect.models.architecture import check_latents
from sdcorrect.models.original import taken
from sdcorrect.models.reasons import MISFITS, reason_of
from sdcorrect.models.sources import Finder, Found
from sdcorrect.models.tensors import read_shapes
from sdcorrect.models.variants import listing, refuse_unreadable, weights_in

logger = logging.getLogger(__name__)

#: The files to download from a repository, of a VAE itself or of a pipeline.
FILES = tuple(
    f"{folder}{file}"
    for folder in ("", "vae/")
    for file in (
        "config.json",
        "diffusion_pytorch_model.safetensors",
        "diffusion_pytorch_model.bin",
        "diffusion_pytorch_model*.json",
        "diffusion_pytorch_model-*-of-*",
    )
)


def find_vae(name: str, finder: Finder) -> Found:
    """Find a VAE's folder or file, or a pipeline's folder, and download it if it is on the hub.

    Raises:
        UsageError: it is missing, or has no weights.
    """
    path = Path(name).expanduser()
    if path.is_dir() and not (_folder(path) / "config.json").is_file():
        raise UsageError(f"vae {name}: this folder is not a VAE in diffusers' format (no config.json)")
    inside = ("vae/*",) if _folder(path) != path else ("*",)
    found = finder.find("vae", name, FILES, here=inside)
    if found.path.is_dir():
        part = "vae" if _folder(found.path) != found.path else ""
        _check_weights(name, part, weights_in(listing(name, found)).get(part, set()))
    return found


def _folder(path: Path) -> Path:
    """The folder of the VAE itself, if `path` is a pipeline's."""
    return path / "vae" if (path / "vae").is_dir() else path


def _check_weights(name: str, part: str, variants: set[str]) -> None:
    if not variants:
        raise UsageError(f"vae {name}: has no VAE weights under diffusers' file names")
    if "" not in variants:
        folder = f"{name}/{part}" if part else name
        variant = min(variants)
        raise UsageError(
            f"vae {name}: has only weights of the variant {variant}; name their file: "
            f"{folder}/diffusion_pytorch_model.{variant}.safetensors"
        )


def load_vae(found: Found, config: Path, dtype: DType, *, xl: bool) -> AutoencoderKL:
    """Load a VAE from a diffusers folder, a pipeline's folder, or a single file configured by `config`.

    Args:
        config: the diffusers folder that the model's configuration comes from.
        xl: whether the model is an SDXL.

    Raises:
        UsageError: it is broken, or is not a VAE of Stable Diffusion.
    """
    path = found.path
    try:
        with notices("vae", str(path)):
            if path.is_file():
                vae = AutoencoderKL.from_single_file(
                    str(path), config=str(config), subfolder="vae", local_files_only=True, dtype=dtype
                )
            else:
                vae, told = AutoencoderKL.from_pretrained(
                    _folder(path), local_files_only=True, dtype=dtype, output_loading_info=True
                )
                account_for_loading("vae", str(path), "VAE", told)
    except NotImplementedError:  # torch's error for moving a tensor without content
        raise UsageError(f"vae {path}: some of its tensors are missing") from None
    except MISFITS as error:
        refuse_unreadable("vae", _folder(path), None)
        raise UsageError(f"vae {path}: not a VAE of Stable Diffusion: {reason_of(error)}") from None
    if path.is_file():
        shapes = read_shapes("vae", path)
        account_for("vae", str(path), shapes, taken(shapes, {"vae": vae}))
    if vae.config.latent_channels != 4:
        raise UsageError(
            f"vae {path}: its latents have {vae.config.latent_channels} channels instead of 4"
        )
    check_latents(f"vae {path}: it", vae.config, xl=xl)
    own, models = vae.config.scaling_factor, _scaling_factor(config)
    if own != models:
        logger.warning(
            "vae %s: scales latents by %g, the model's own VAE by %g; is it for another family?",
            path,
            own,
            models,
        )
    return vae


def _scaling_factor(config: Path) -> float:
    return AutoencoderKL.load_config(config, subfolder="vae").get("scaling_factor", 0.18215)
