"""The safety checker that comes with a checkpoint; it only reports, and callers decide what to do."""

from collections.abc import Sequence

import numpy as np
from diffusers import StableDiffusionPipeline
from diffusers.pipelines.stable_diffusion import StableDiffusionSafetyChecker
from PIL import Image
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from sdcorrect.errors import UsageError
from sdcorrect.models.accounts import account_for_loading
from sdcorrect.models.checkpoints import Checkpoint, Pipeline
from sdcorrect.models.reasons import MISFITS, reason_of
from sdcorrect.models.variants import refuse_unreadable


def add_safety_checker(pipe: Pipeline, checkpoint: Checkpoint) -> None:
    """Load the safety checker of `checkpoint` into `pipe`.

    Raises:
        UsageError: the family has none, or it is missing.
    """
    if not isinstance(pipe, StableDiffusionPipeline):
        raise UsageError(f"safety_checker: {checkpoint.name} is an SDXL, which has none; remove it")
    try:
        checker, told = StableDiffusionSafetyChecker.from_pretrained(
            checkpoint.config / "safety_checker",
            local_files_only=True,
            dtype=pipe.unet.dtype,
            output_loading_info=True,
        )
        extractor = CLIPImageProcessorPil.from_pretrained(
            checkpoint.config / "feature_extractor", local_files_only=True
        )
    except MISFITS as error:
        refuse_unreadable("safety_checker", checkpoint.config / "safety_checker", None)
        raise UsageError(
            f"safety_checker: none could be loaded from {checkpoint.config}: {reason_of(error)}"
        ) from None
    account_for_loading("safety_checker", str(checkpoint.config), "safety_checker", told)
    pipe.register_modules(safety_checker=checker.eval(), feature_extractor=extractor)


def flagged(pipe: Pipeline, pictures: Sequence[Image.Image | None]) -> list[bool]:
    """Which of `pictures` the checker of `pipe` considers unsafe; without a checker, none."""
    checker = pipe.components.get("safety_checker")
    flags = [False] * len(pictures)
    if checker is None:
        return flags
    for number, picture in enumerate(pictures):
        if picture is not None:
            pixels = pipe.feature_extractor(picture, return_tensors="pt").pixel_values
            # the checker blackens what it flags, so it gets a copy
            copy = np.asarray(picture, dtype=np.float32)[None] / 255
            _, (flags[number],) = checker(
                images=copy, clip_input=pixels.to(checker.device, checker.dtype)
            )
    return flags
