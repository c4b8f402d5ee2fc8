"""Masks of latents: blended as diffusers' inpainting pipeline does, feathered inwards, told by words."""

import numpy as np
import torch
from diffusers import DDIMScheduler, StableDiffusionInpaintPipeline
from PIL import Image
from sampling import NEGATIVE, PROMPT, SEED, relative
from torch import Tensor

from sdcorrect.core.attention import attention_probabilities
from sdcorrect.core.masks import Mask, at_latents, feathered, word_maps
from sdcorrect.core.plan import Plan
from sdcorrect.core.sampler import Source, denoise, start
from sdcorrect.core.schedule import solver_from
from sdcorrect.core.sites import attention_block_at
from sdcorrect.models import Model


def disc(side: int = 64) -> Image.Image:
    """White within a circle, whose edge lies on no place of the latents."""
    y, x = np.mgrid[:side, :side]
    return Image.fromarray(np.uint8(255 * ((x - 27) ** 2 + (y - 35) ** 2 < 17**2)))


def inpainted(model: Model, image: Image.Image, mask: Image.Image) -> Tensor:
    posterior_noise, noise = model.noise([SEED], image.size)
    x0 = model.encode([image], posterior_noise)
    scheduler, timesteps = solver_from("ddim", model.scheduler, 6, 0.7)
    source, plan = Source(model.text([""], image.size)), Plan()
    inside = torch.from_numpy(np.asarray(mask) > 0)[None, None].float()

    def noised(t: Tensor) -> Tensor:
        return model.scheduler.add_noise(x0, noise, t[None])

    return denoise(
        model.pipe.unet,
        scheduler,
        start(scheduler, x0, noise, source, plan, timesteps),
        timesteps,
        cond=model.text([PROMPT], image.size),
        uncond=model.text([NEGATIVE], image.size),
        guidance_scale=5.0,
        source=source,
        plan=plan,
        mask=Mask(at_latents(inside, x0), x0, noised),
    )


def test_latents_are_those_of_diffusers_inpainting(model: Model, icon: Image.Image) -> None:
    ours = inpainted(model, icon, disc())
    parts = model.pipe.components | {
        "scheduler": DDIMScheduler.from_config(model.scheduler.config),
        "feature_extractor": None,
    }
    pipe = StableDiffusionInpaintPipeline(**parts, requires_safety_checker=False)
    pipe.set_progress_bar_config(disable=True)
    expected = pipe(
        PROMPT,
        negative_prompt=NEGATIVE,
        image=icon,
        mask_image=disc(),
        height=64,
        width=64,
        strength=0.7,
        num_inference_steps=6,
        guidance_scale=5.0,
        generator=torch.Generator().manual_seed(SEED),
        output_type="latent",
    ).images
    assert relative(ours, expected) < 1e-4


def test_a_feather_falls_to_the_edge_and_edits_nothing_outside() -> None:
    inside = np.asarray(disc()) > 0
    weights = feathered(inside, 3)
    assert not weights[~inside].any() and weights.max() == 1
    row = weights[35]
    edge = int(inside[35].argmax())
    np.testing.assert_allclose(row[edge - 1 : edge + 4], [0, 0.25, 0.5, 0.75, 1])
    np.testing.assert_array_equal(feathered(inside, 0), inside)
    for all_alike in (np.zeros((4, 4), bool), np.ones((4, 4), bool)):
        np.testing.assert_array_equal(feathered(all_alike, 3), all_alike)


def test_word_maps_are_the_mean_attention_to_their_tokens(model: Model) -> None:
    unet = model.pipe.unet
    x0 = torch.randn(2, 4, 8, 12, generator=torch.Generator().manual_seed(0))
    text, t = model.text(["a red church", "a ghost"], (48, 32)), torch.tensor(1)
    block = attention_block_at(unet, 8)
    heard: list[Tensor] = []
    hook = block.cross_attention[0].register_forward_pre_hook(
        lambda layer, args, kwargs: heard.append(
            attention_probabilities(layer, args[0], kwargs["encoder_hidden_states"])
        ),
        with_kwargs=True,
    )
    unet(x0, t, **text.arguments)
    hook.remove()
    maps = word_maps(unet, x0, t, text, [[3], [1, 2]], [8])
    for of_picture, probabilities, tokens in zip(maps, heard[0], [[3], [1, 2]], strict=True):
        expected = probabilities[..., tokens].mean(dim=(0, -1)).reshape(8, 12)
        expected = (expected - expected.min()) / (expected.max() - expected.min())
        torch.testing.assert_close(of_picture[0], expected)
    # of a coarser block, as large as the latents
    assert word_maps(unet, x0, t, text, [[1], [1]], [3, 8]).shape == (2, 1, 8, 12)
    # and nothing is left behind
    torch.testing.assert_close(maps, word_maps(unet, x0, t, text, [[3], [1, 2]], [8]))
