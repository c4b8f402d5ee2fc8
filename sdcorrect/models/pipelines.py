"""Load a checkpoint as a pipeline, and account for every tensor of its models."""

from collections.abc import Mapping
from typing import Any

import diffusers
import torch
import transformers
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionXLPipeline, UNet2DConditionModel
from diffusers.loaders.single_file_utils import create_diffusers_clip_model_from_ldm
from torch import dtype as DType
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from sdcorrect.errors import UsageError
from sdcorrect.models.accounts import account_for, account_for_header, account_for_loading, notices
from sdcorrect.models.architecture import read_config
from sdcorrect.models.checkpoints import MODELS, SAFETY_CHECKER, VAE_PREFIX, Checkpoint, Pipeline
from sdcorrect.models.original import taken, usual_name
from sdcorrect.models.reasons import MISFITS, reason_of
from sdcorrect.models.tensors import read_header, read_shapes, read_some
from sdcorrect.models.training import MARKS
from sdcorrect.models.variants import refuse_unreadable

#: Parts that are not loaded with a pipeline.
LEFT_OUT = {**SAFETY_CHECKER, "image_encoder": None}
LIBRARIES = {"diffusers": diffusers, "transformers": transformers}
TEXT_ENCODERS = {"text_encoder": CLIPTextModel, "text_encoder_2": CLIPTextModelWithProjection}


def load_pipeline(
    checkpoint: Checkpoint,
    dtype: DType,
    *,
    scheduler: DDIMScheduler,
    variant: str | None,
    vae: AutoencoderKL | None,
) -> Pipeline:
    """Load `checkpoint` on the CPU in `dtype`, with `vae` instead of its own if given.

    Raises:
        UsageError: it is broken, or lacks a part.
    """
    name = checkpoint.name
    if vae is None and not checkpoint.has_vae:
        raise UsageError(f"model {name}: contains no VAE; set one, vae: stabilityai/sd-vae-ft-mse")
    given = LEFT_OUT | {"scheduler": scheduler} | ({} if vae is None else {"vae": vae})
    known = checkpoint.pipeline_class._get_signature_keys(checkpoint.pipeline_class)[0]
    options: dict[str, Any] = {key: value for key, value in given.items() if key in known}
    if checkpoint.pipeline_class is StableDiffusionXLPipeline:
        options["add_watermarker"] = False
    else:
        options["requires_safety_checker"] = False
    try:
        with notices("model", name):
            pipe = _load(checkpoint, dtype, variant, options)
    except NotImplementedError:  # torch's error for moving a tensor without content
        raise UsageError(f"model {name}: some tensors of its U-Net or VAE are missing") from None
    except MISFITS as error:
        for part in ("",) if checkpoint.path.is_file() else MODELS:
            refuse_unreadable("model", checkpoint.path / part, variant)
        reason = reason_of(error)
        raise UsageError(f"model {name}: not a whole Stable Diffusion checkpoint: {reason}") from None
    _refuse_gaps(name, pipe)
    if checkpoint.path.is_file():
        account_for_single_file(checkpoint, pipe.components, vae_replaced=vae is not None)
    _read_at_the_end(pipe)
    return pipe


def _read_at_the_end(pipe: Pipeline) -> None:
    """Make the text encoders take the pooled text from the end token.

    Published configurations say `eos_token_id: 2`; transformers then takes the text from the highest
    token, which is the end token unless there are learned words.
    """
    for part, tokenizer in (("text_encoder", "tokenizer"), ("text_encoder_2", "tokenizer_2")):
        if encoder := pipe.components.get(part):
            end = pipe.components[tokenizer].eos_token_id
            encoder.config.eos_token_id = end
            getattr(encoder, "text_model", encoder).eos_token_id = end


def _load(
    checkpoint: Checkpoint, dtype: DType, variant: str | None, options: dict[str, Any]
) -> Pipeline:
    if checkpoint.path.is_file():
        return checkpoint.pipeline_class.from_single_file(
            str(checkpoint.path),
            config=str(checkpoint.config),
            local_files_only=True,
            dtype=dtype,
            **options,
            **_text_encoder_without_model(checkpoint, dtype),
        )
    parts = {
        part: _load_part(checkpoint, part, dtype, variant)
        for part in MODELS
        if part not in options and any(checkpoint.index.get(part, ()))
    }
    return checkpoint.pipeline_class.from_pretrained(
        checkpoint.path, variant=variant, local_files_only=True, dtype=dtype, **options, **parts
    )


def _text_encoder_without_model(checkpoint: Checkpoint, dtype: DType) -> dict[str, nn.Module]:
    """The first text encoder of a single file with older tensor names, which diffusers does not know."""
    keys = read_shapes("model", checkpoint.path)
    older = {key: usual_name(key) for key in keys if usual_name(key) != key}
    if not older:
        return {}
    tensors = read_some("model", checkpoint.path, older)
    text_encoder: nn.Module = create_diffusers_clip_model_from_ldm(
        CLIPTextModel,
        {older[key]: value for key, value in tensors.items()},
        subfolder="text_encoder",
        config=str(checkpoint.config),
        torch_dtype=dtype,
        local_files_only=True,
    )
    return {"text_encoder": text_encoder.eval()}


def _load_part(checkpoint: Checkpoint, part: str, dtype: DType, variant: str | None) -> nn.Module:
    """Load a model of a diffusers folder, and account for its file."""
    folder, (library, name) = checkpoint.path / part, checkpoint.index[part]
    has_variant = any(folder.glob(f"*.{variant}[.-]*"))  # a variant may exist for some parts only
    module, told = getattr(LIBRARIES[library], name).from_pretrained(
        folder,
        variant=variant if has_variant else None,
        local_files_only=True,
        dtype=dtype,
        output_loading_info=True,
    )
    account_for_loading("model", checkpoint.name, part, told)
    return module


def account_for_single_file(
    checkpoint: Checkpoint, parts: Mapping[str, Any], *, vae_replaced: bool
) -> None:
    """Refuse a single file unless `parts`, the models loaded from it, use all of it.

    Raises:
        UsageError: a tensor in it is neither used nor ignorable.
    """
    shapes = read_shapes("model", checkpoint.path)
    used = taken({usual_name(key): shape for key, shape in shapes.items()}, parts)
    others = {key for key in shapes if usual_name(key) in used} | checkpoint.marks.tensors
    if vae_replaced:
        others |= {key for key in shapes if key.startswith(VAE_PREFIX)}
    account_for("model", checkpoint.name, shapes, used | others)
    account_for_header("model", checkpoint.name, read_header("model", checkpoint.path), MARKS)


def outline(checkpoint: Checkpoint) -> dict[str, Any]:
    """The models of a checkpoint, built from its configurations on the meta device, without weights.

    Raises:
        UsageError: a configuration is missing or invalid.
    """
    folder, what = checkpoint.config, f"model {checkpoint.name}"
    with torch.device("meta"):
        parts: dict[str, Any] = {
            "unet": UNet2DConditionModel.from_config(read_config(what, folder, "unet")),
            "vae": AutoencoderKL.from_config(read_config(what, folder, "vae")),
        }
        for part, kind in TEXT_ENCODERS.items():
            if any(checkpoint.index.get(part, ())):
                parts[part] = kind(CLIPTextConfig(**read_config(what, folder, part)))
    return parts


def _refuse_gaps(name: str, pipe: Pipeline) -> None:
    """Refuse a pipeline with tensors that its file lacks: diffusers leaves them without content."""
    for part, module in pipe.components.items():
        if isinstance(module, nn.Module):
            absent = [key for key, value in module.named_parameters() if value.is_meta]
            if absent:
                raise UsageError(
                    f"model {name}: {len(absent)} tensors of its {part} are missing, such as {absent[0]}"
                )
