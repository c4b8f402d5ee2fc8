"""The same translation twice: by the functions of the core alone, and by diffusers' own pipeline."""

from collections.abc import Sequence
from typing import Any

import torch
from diffusers import DDIMScheduler, StableDiffusionImg2ImgPipeline, StableDiffusionXLImg2ImgPipeline
from PIL import Image
from torch import Tensor

from sdcorrect.core.plan import Plan, SchedulerName
from sdcorrect.core.sampler import Source, denoise, start
from sdcorrect.core.schedule import solver_from
from sdcorrect.models import Model

PROMPT, NEGATIVE = "in 3d render style", "blurry"
SEED = 7


def relative(ours: Tensor, expected: Tensor) -> float:
    return float((ours - expected).norm() / expected.norm())


def sdedit(
    model: Model,
    image: Image.Image,
    *,
    negative: str = NEGATIVE,
    steps: int = 4,
    strength: float = 0.5,
    guidance_scale: float = 5.0,
    solver: SchedulerName = "ddim",
    hints: Sequence[Image.Image] = (),
) -> Tensor:
    """The latents of `image` with no block chosen."""
    posterior_noise, noise = model.noise([SEED], image.size)
    x0 = model.encode([image], posterior_noise)
    scheduler, timesteps = solver_from(solver, model.scheduler, steps, strength)
    source, plan = Source(model.text([""], image.size)), Plan()
    return denoise(
        model.pipe.unet,
        scheduler,
        start(scheduler, x0, noise, source, plan, timesteps),
        timesteps,
        cond=model.text([PROMPT], image.size, guidance_scale=guidance_scale),
        uncond=model.text([negative], image.size),
        guidance_scale=1.0 if model.follows_guidance else guidance_scale,
        source=source,
        plan=plan,
        control=model.control([hints]),
        generators=model.generators_after_noise([SEED], image.size),
    )


def of_diffusers(
    model: Model,
    image: Image.Image,
    *,
    negative: str | None = NEGATIVE,
    steps: int = 4,
    strength: float = 0.5,
    guidance_scale: float = 5.0,
    scheduler: Any = DDIMScheduler,
) -> Tensor:
    """The same by the img2img pipeline of the model's family."""
    parts = model.pipe.components | {"scheduler": scheduler.from_config(model.scheduler.config)}
    pipe = (
        StableDiffusionXLImg2ImgPipeline(**parts, add_watermarker=False)
        if "text_encoder_2" in parts
        else StableDiffusionImg2ImgPipeline(**parts, requires_safety_checker=False)
    )
    pipe.set_progress_bar_config(disable=True)
    latents: Tensor = pipe(
        PROMPT,
        negative_prompt=negative,
        image=image,
        strength=strength,
        num_inference_steps=steps,
        guidance_scale=guidance_scale,
        generator=torch.Generator().manual_seed(SEED),
        output_type="latent",
    ).images
    return latents
