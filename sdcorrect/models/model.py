"""A loaded Stable Diffusion: latents of pictures, embeddings of prompts, pictures of latents."""

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from diffusers import DDIMScheduler
from PIL import Image
from torch import Tensor

from sdcorrect.core.alignment import Prompt
from sdcorrect.core.layout import UNetLayout
from sdcorrect.models.checkpoints import Pipeline

logger = logging.getLogger(__name__)


@dataclass
class Model:
    """A Stable Diffusion pipeline in memory, with what it has been asked so far."""

    name: str
    #: what decides the pictures, by setting: SHA-256 of files, revisions of hub ids, weights
    identity: dict[str, Any]
    pipe: Pipeline
    scheduler: DDIMScheduler
    device: torch.device
    evaluations: int = 0  #: U-Net evaluations so far, a row of a batch counting as one
    _embeddings: dict[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.pipe.unet.register_forward_pre_hook(self._count, with_kwargs=True)

    def _count(self, _unet: object, args: tuple[Tensor, ...], kwargs: dict[str, Any]) -> None:
        rows = args[0] if args else kwargs["sample"]
        self.evaluations += len(rows)

    @cached_property
    def layout(self) -> UNetLayout:
        return UNetLayout.from_config(self.pipe.unet.config)

    @property
    def dtype(self) -> torch.dtype:
        return self.pipe.unet.dtype

    @property
    def multiple(self) -> int:
        """What a picture's sides must be a multiple of, px: three more halvings of the latent."""
        return 8 * self.pipe.vae_scale_factor

    @property
    def native_size(self) -> int:
        """The side of the square pictures that the U-Net was trained on, px."""
        return self.pipe.unet.config.sample_size * self.pipe.vae_scale_factor

    def embed(self, prompt: str) -> Tensor:
        """The text embedding of `prompt`, (1, tokens, channels), computed once for each prompt."""
        if prompt not in self._embeddings:
            self._warn_if_cut(prompt)
            self._embeddings[prompt] = self.pipe.encode_prompt(prompt, self.device, 1, False)[0]
        return self._embeddings[prompt]

    def embed_all(self, prompts: Sequence[str]) -> Tensor:
        """(prompts, tokens, channels)."""
        return torch.cat([self.embed(prompt) for prompt in prompts])

    @property
    def text_length(self) -> int:
        """How many tokens the text encoder reads."""
        length: int = self.pipe.tokenizer.model_max_length
        return length

    def tokenize(self, prompt: str) -> Prompt:
        """`prompt` as the text encoder reads it, and which of its tokens make which word."""
        read = self.pipe.tokenizer(
            prompt, truncation=True, max_length=self.text_length, return_offsets_mapping=True
        )
        spans = [match.span() for match in re.finditer(r"\S+", prompt)]
        positions = [
            tuple(
                place
                for place, (begin, end) in enumerate(read.offset_mapping)
                if first <= begin < end <= last
            )
            for first, last in spans
        ]
        return Prompt(prompt, tuple(read.input_ids), tuple(prompt.split()), tuple(positions))

    def _warn_if_cut(self, prompt: str) -> None:
        tokenizer = self.pipe.tokenizer
        limit = tokenizer.model_max_length - 2  # the start and end tokens
        tokens = tokenizer(prompt, add_special_tokens=False).input_ids
        if len(tokens) > limit:
            cut = tokenizer.decode(tokens[limit:])
            logger.warning(
                "the prompt has %d tokens and the text encoder reads %d; cut off: %r",
                len(tokens),
                limit,
                cut,
            )

    def encode(self, pictures: Sequence[Image.Image], noise: Tensor) -> Tensor:
        """x0 = scaling_factor * (mean + std * noise) of RGB pictures of one size, in float32."""
        vae = self.pipe.vae
        pixels = self.pipe.image_processor.preprocess(list(pictures))
        posterior = vae.encode(pixels.to(self.device, vae.dtype)).latent_dist
        latents = posterior.mean.float() + posterior.std.float() * noise.to(self.device)
        return vae.config.scaling_factor * latents

    def decode(self, latents: Tensor) -> list[Image.Image | None]:
        """The pictures of (batch, 4, height, width); None where the result is not finite."""
        vae = self.pipe.vae
        pixels = vae.decode(latents.to(vae.dtype) / vae.config.scaling_factor).sample.float()
        finite = pixels.isfinite().flatten(1).all(dim=1).tolist()
        pictures = self.pipe.image_processor.postprocess(pixels.nan_to_num())
        return [p if good else None for p, good in zip(pictures, finite, strict=True)]

    def noise(self, seeds: Sequence[int], size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Noise for the posterior sample and for the start, each (seeds, 4, height / f, width / f).

        A generator for each picture, on the CPU and in float32, makes a picture's noise the same in
        every batch, shard and device; the order of the draws is that of diffusers' img2img pipeline.

        Args:
            size: width and height of the pictures, px.
        """
        width, height = (side // self.pipe.vae_scale_factor for side in size)
        shape = (self.pipe.vae.config.latent_channels, height, width)
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        posterior = torch.stack([torch.randn(shape, generator=g) for g in generators])
        start = torch.stack([torch.randn(shape, generator=g) for g in generators])
        return posterior, start.to(self.device)
