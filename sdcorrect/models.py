"""Load Stable Diffusion once: latents of pictures, embeddings of prompts, pictures of latents."""

import hashlib
import logging
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline
from diffusers.utils import logging as diffusers_logging
from PIL import Image
from torch import Tensor, nn
from transformers.utils import logging as transformers_logging

from sdcorrect.core.alignment import Prompt
from sdcorrect.core.layout import UNetLayout
from sdcorrect.core.schedule import ddim_scheduler
from sdcorrect.errors import UsageError

MINI = Path(__file__).parent / "assets" / "mini"
HUB_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*")
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}

logger = logging.getLogger(__name__)


@dataclass
class Model:
    """A Stable Diffusion pipeline in memory, with what it has been asked so far."""

    name: str
    identity: str  #: SHA-256 of a folder's files, or the revision of a hub id
    pipe: StableDiffusionPipeline
    scheduler: DDIMScheduler
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
    def device(self) -> torch.device:
        return self.pipe.unet.device

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

    @contextmanager
    def in_float32(self) -> Iterator[None]:
        """Within this context all parts compute in float32; after it, in what they did before."""
        parts = [part for part in self.pipe.components.values() if isinstance(part, nn.Module)]
        dtypes = [next(part.parameters()).dtype for part in parts]
        self._embeddings.clear()
        try:
            for part in parts:
                part.to(torch.float32)
            yield
        finally:
            for part, dtype in zip(parts, dtypes, strict=True):
                part.to(dtype)
            self._embeddings.clear()

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


def quiet_libraries() -> None:
    """Keep the loading bars and notices of diffusers and transformers off the terminal."""
    for library in (diffusers_logging, transformers_logging):
        library.set_verbosity_error()
        library.disable_progress_bar()


def choose_device(device: str, dtype: str) -> tuple[torch.device, torch.dtype]:
    """`auto` is CUDA in float16 where there is one, else the CPU in float32.

    Raises:
        UsageError: torch knows no such device, or this machine has none.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        chosen = torch.device(device)
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(f"device {device!r} cannot be used: {reason}; try --device cpu") from None
    if dtype == "auto":
        dtype = "float16" if chosen.type == "cuda" else "float32"
    return chosen, DTYPES[dtype]


def load_model(name: str, device: str = "auto", dtype: str = "auto") -> Model:
    """Load `mini`, a diffusers folder or a hub id, ready to evaluate.

    Raises:
        UsageError: it is not there, is not Stable Diffusion, or the device cannot be used.
    """
    chosen_device, chosen_dtype = choose_device(device, dtype)
    folder, identity = _locate(name)
    try:
        pipe = StableDiffusionPipeline.from_pretrained(
            folder,
            dtype=chosen_dtype,
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
            local_files_only=True,
        )
    except (OSError, ValueError, TypeError, KeyError) as error:
        reason = " ".join(str(error).split())
        raise UsageError(f"model {name}: not a Stable Diffusion pipeline: {reason}") from None
    pipe.to(chosen_device)
    scheduler = ddim_scheduler(pipe.scheduler.config)
    return Model(name, identity, pipe, scheduler)


def _locate(name: str) -> tuple[Path, str]:
    """The folder of a model's files and what identifies their content."""
    folder = MINI if name == "mini" else Path(name).expanduser()
    if folder.is_dir():
        if not (folder / "model_index.json").is_file():
            raise UsageError(f"model {name}: that folder is no diffusers pipeline (no model_index.json)")
        return folder, _hash_folder(folder)
    if not HUB_ID.fullmatch(name):
        raise UsageError(
            f"model {name}: there is no such folder; "
            "give mini, a diffusers folder or a hub id (owner/name)"
        )
    try:
        snapshot = Path(StableDiffusionPipeline.download(name))
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(f"model {name}: no such folder, nor to be had from the hub: {reason}") from None
    return snapshot, snapshot.name  # the hub names a snapshot's folder by its revision


def _hash_folder(folder: Path) -> str:
    digest = hashlib.sha256()
    for file in sorted(folder.rglob("*")):
        if file.suffix in {".safetensors", ".json", ".bin"}:
            digest.update(file.relative_to(folder).as_posix().encode())
            with file.open("rb") as stream:
                while chunk := stream.read(1 << 20):
                    digest.update(chunk)
    return digest.hexdigest()
