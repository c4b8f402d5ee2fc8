"""A loaded Stable Diffusion model: encode pictures and prompts, decode latents, draw noise."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, Literal

import numpy as np
import torch
from diffusers import DDIMScheduler, MultiControlNetModel
from PIL import Image
from torch import Tensor, nn

from sdcorrect.core.alignment import Prompt
from sdcorrect.core.control import Control
from sdcorrect.core.devices import send
from sdcorrect.core.layout import UNetLayout
from sdcorrect.core.text import Text
from sdcorrect.models.checkpoints import Pipeline
from sdcorrect.models.machine import convolves_skips_once, name_of, tf32
from sdcorrect.models.prompts import Encoding, count_chunks, encode_plain, encode_weighted
from sdcorrect.models.safety import flagged

#: How many text embeddings are cached; SDXL's take 0.3 MiB each.
KEPT_ENCODINGS = 256
KEPT_SIZES = 256  #: how many embeddings of sizes, and of guidance scales, are cached


@dataclass
class Model:
    """A Stable Diffusion pipeline in memory, with a count of its evaluations."""

    name: str
    identity: str  #: SHA-256 of the checkpoint's files, or the revision of a hub id
    #: everything else about the model that decides the pictures, by setting; files by their identity
    decisive: dict[str, Any]
    pipe: Pipeline
    scheduler: DDIMScheduler
    device: torch.device
    prompt_syntax: Literal["plain", "weighted"] = "plain"
    controlnets: MultiControlNetModel | None = None
    control_scales: Sequence[float] = ()
    skips_once: Literal["auto"] | bool = "auto"
    evaluations: int = 0  #: U-Net evaluations so far; each row of a batch counts

    def __post_init__(self) -> None:
        self.pipe.unet.register_forward_pre_hook(self._count, with_kwargs=True)
        # bounded, because a folder with captions has a text for each picture
        self._kept_encoding = lru_cache(KEPT_ENCODINGS)(self._encode)
        # kept on the device, because each copy waits
        self._kept_sizes = lru_cache(KEPT_SIZES)(self._sizes)
        self._kept_guidance = lru_cache(KEPT_SIZES)(self._guidance)

    def _count(self, _unet: object, args: tuple[Tensor, ...], kwargs: dict[str, Any]) -> None:
        rows = args[0] if args else kwargs["sample"]
        self.evaluations += len(rows)

    @cached_property
    def layout(self) -> UNetLayout:
        return UNetLayout.from_config(self.pipe.unet.config)

    @property
    def convolves_skips_once(self) -> bool:
        return convolves_skips_once(self.skips_once, self.pipe.unet, self.device)

    @property
    def dtype(self) -> torch.dtype:
        return self.pipe.unet.dtype

    @property
    def precision(self) -> str:
        """The name of `dtype`, as in a job."""
        return name_of(self.dtype)

    @property
    def multiple(self) -> int:
        """The sides of pictures must be multiples of this, px: the U-Net halves latents three times."""
        return 8 * self.pipe.vae_scale_factor

    @property
    def native_size(self) -> int:
        """The side of the square pictures that the U-Net was trained on, px."""
        return self.pipe.unet.config.sample_size * self.pipe.vae_scale_factor

    @contextmanager
    def in_float32(self) -> Iterator[None]:
        """Within this context all parts compute in float32; afterwards as before."""
        parts = [part for part in self.pipe.components.values() if isinstance(part, nn.Module)]
        parts += self.controlnets.nets if self.controlnets else []
        dtypes = [next(part.parameters()).dtype for part in parts]
        self._forget()
        try:
            for part in parts:
                part.to(torch.float32)
            with tf32(False):
                yield
        finally:
            for part, dtype in zip(parts, dtypes, strict=True):
                part.to(dtype)
            self._forget()

    def _forget(self) -> None:
        """Clear caches that were computed in another precision."""
        for kept in (self._kept_encoding, self._kept_sizes, self._kept_guidance):
            kept.cache_clear()

    def text(
        self,
        prompts: Sequence[str],
        size: tuple[int, int],
        *,
        chunks: int = 1,
        guidance_scale: float = 1.0,
    ) -> Text:
        """The text conditioning for `prompts`, each padded to `chunks` chunks.

        Args:
            size: width and height of the pictures, px, for SDXL.
            guidance_scale: for models with distilled guidance.
        """
        encodings = [self.embed(prompt, chunks) for prompt in prompts]
        embeddings = torch.cat([encoding.embeddings for encoding in encodings])
        pooled = [encoding.pooled for encoding in encodings if encoding.pooled is not None]
        added = {}
        if pooled:
            width, height = size
            sizes = self._kept_sizes(width, height, pooled[0].shape[-1])
            added = {"text_embeds": torch.cat(pooled), "time_ids": sizes.expand(len(prompts), -1)}
        guidance = None
        if self.follows_guidance:
            guidance = self._kept_guidance(guidance_scale).expand(len(prompts), -1)
        return Text(embeddings, added, guidance)

    def _sizes(self, width: int, height: int, pooled: int) -> Tensor:
        """SDXL's conditioning on the size of pictures, (1, 6)."""
        whole = (height, width)
        times: Tensor = self.pipe._get_add_time_ids(whole, (0, 0), whole, self.dtype, pooled)
        return times.to(self.device)

    def _guidance(self, scale: float) -> Tensor:
        """The embedding of a guidance scale, (1, channels)."""
        embedding: Tensor = self.pipe.get_guidance_scale_embedding(
            torch.tensor([scale - 1]), self.pipe.unet.config.time_cond_proj_dim
        )
        return embedding.to(self.device, self.dtype)

    @property
    def follows_guidance(self) -> bool:
        """Whether guidance is distilled: the model takes the scale as input (LCM; Luo et al., 2023)."""
        return self.pipe.unet.config.time_cond_proj_dim is not None

    def embed(self, prompt: str, chunks: int = 1) -> Encoding:
        """The encoding of `prompt`, cached while it is in use.

        It is padded with the empty prompt's to `chunks` chunks, as other texts of the picture need.
        """
        return self._kept_encoding(prompt, chunks)

    def _encode(self, prompt: str, chunks: int) -> Encoding:
        encode = encode_weighted if self.prompt_syntax == "weighted" else encode_plain
        encoding = encode(self.pipe, prompt, self.device)
        if missing := chunks - self.count_chunks(prompt):
            filling = [(self.embed("") if prompt else encoding).embeddings] * missing
            embeddings = torch.cat([encoding.embeddings, *filling], dim=1)
            encoding = encoding._replace(embeddings=embeddings)
        return encoding

    def count_chunks(self, *prompts: str) -> int:
        """The number of chunks that the longest of `prompts` needs; 1 for plain prompts."""
        if self.prompt_syntax == "plain":
            return 1
        return max(count_chunks(self.pipe, prompt) for prompt in prompts)

    @property
    def text_length(self) -> int:
        """How many tokens the text encoder reads, including start and end."""
        return self.pipe.tokenizer.model_max_length

    def tokenize(self, prompt: str) -> Prompt:
        """`prompt` as the text encoder reads it, with the tokens of each word."""
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

    def control(self, hints: Sequence[Sequence[Image.Image]]) -> Control | None:
        """The ControlNets with the hints of each picture, in the networks' order; None without any.

        Hints are RGB images of the pictures' size.
        """
        if self.controlnets is None:
            return None
        tensors = [
            (self._pixels(of_network) / 255).to(self.dtype) for of_network in zip(*hints, strict=True)
        ]
        return Control(self.controlnets, tensors, self.control_scales)

    def encode(self, pictures: Sequence[Image.Image], noise: Tensor) -> Tensor:
        """x0 = scaling_factor * (mean + std * noise) of RGB pictures of one size, in float32.

        If the VAE's configuration has latents_mean and latents_std, the latents are normalised by them.
        """
        return self.latents(self.posterior(pictures), noise)

    def posterior(self, pictures: Sequence[Image.Image]) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the VAE's posterior, each (pictures, 4, height / f, width / f)
        in float32."""
        vae = self.pipe.vae
        pixels = self._pixels(pictures) / 255 * 2 - 1
        posterior = vae.encode(pixels.to(vae.dtype)).latent_dist
        return posterior.mean.float(), posterior.std.float()

    def latents(self, posterior: tuple[Tensor, Tensor], noise: Tensor) -> Tensor:
        """x0 of `encode`, drawn from what `posterior` gives."""
        drawn = posterior[0] + posterior[1] * send(noise, self.device)
        mean, std = self._latents_statistics
        scaling_factor: float = self.pipe.vae.config.scaling_factor
        return scaling_factor * ((drawn - mean) / std)

    def decode(self, latents: Tensor) -> list[Image.Image | None]:
        """Decode latents (batch, 4, height, width) to RGB pictures; None for results not finite."""
        vae = self.pipe.vae
        dtype = vae.dtype  # asked once: it walks through all parameters to tell
        mean, std = (value.to(dtype) for value in self._latents_statistics)
        latents = latents.to(dtype) / vae.config.scaling_factor * std + mean
        pixels = vae.decode(latents).sample.float()
        finite = pixels.isfinite().flatten(1).all(dim=1)
        samples = ((pixels / 2 + 0.5).clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1)
        # a single copy, so that the host waits only once
        told = torch.cat([finite[:, None].to(torch.uint8), samples.flatten(1)], dim=1).cpu().numpy()
        return [Image.fromarray(row[1:].reshape(samples.shape[1:])) if row[0] else None for row in told]

    def _pixels(self, pictures: Sequence[Image.Image]) -> Tensor:
        """RGB pictures of one size in 0 to 255, (pictures, 3, height, width) in float32."""
        samples = torch.from_numpy(np.stack([np.asarray(p.convert("RGB")) for p in pictures]))
        return send(samples, self.device).permute(0, 3, 1, 2).float()

    @cached_property
    def _latents_statistics(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the VAE's latents, (1, 4, 1, 1) each; 0 and 1 for most VAEs."""
        config = self.pipe.vae.config
        pair = (config.latents_mean or [0.0], config.latents_std or [1.0])
        mean, std = (torch.tensor(values, device=self.device).view(1, -1, 1, 1) for values in pair)
        return mean, std

    def flagged(self, pictures: Sequence[Image.Image | None]) -> list[bool]:
        """Which of `pictures` the safety checker considers unsafe; without a checker, none."""
        return flagged(self.pipe, pictures)

    def noise(self, seeds: Sequence[int], size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Noise for the posterior sample and for the start, each (seeds, 4, height / f, width / f).

        Each picture has its own CPU generator, in float32, so that its noise is the same in every batch,
        shard and device. The draws come in the order of diffusers' img2img pipeline.

        Args:
            size: width and height of the pictures, px.
        """
        posterior, start = self._draw([torch.Generator().manual_seed(seed) for seed in seeds], size)
        return posterior, send(start, self.device)

    def generators_after_noise(
        self, seeds: Sequence[int], size: tuple[int, int]
    ) -> list[torch.Generator]:
        """The generators after drawing `noise`, for a solver that draws noise during denoising."""
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        self._draw(generators, size)
        return generators

    def _draw(
        self, generators: Sequence[torch.Generator], size: tuple[int, int]
    ) -> tuple[Tensor, Tensor]:
        width, height = (side // self.pipe.vae_scale_factor for side in size)
        shape = (self.pipe.vae.config.latent_channels, height, width)
        posterior, start = (
            torch.stack([torch.randn(shape, generator=g) for g in generators]) for _ in range(2)
        )
        return posterior, start
