"""Mini's CLIP: its two towers, how they are fed, and how well they know the held-out icons."""

import math
from pathlib import Path

import lite
import torch
from data import STYLES, Icons, as_pixels
from diffusers import AutoencoderKL
from torch import Generator, Tensor
from torch.nn.functional import affine_grid, grid_sample, interpolate, normalize
from training import RUNS
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTokenizer,
    VisionTextDualEncoderConfig,
    VisionTextDualEncoderModel,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

WIDTH, PROJECTION = 160, 128
#: px of a picture, and px at which the image tower sees it; 64 px would leave only 2x2 positions.
IMAGE, SEEN = 64, 128
#: Folder of the CLIP with colours.
COLOURED = RUNS / "clip-with-colours"
#: The last axes of an embedding belong to the styles.
STYLE_AXES = 8


def build(tokenizer: CLIPTokenizer) -> VisionTextDualEncoderModel:
    text = CLIPTextConfig(
        hidden_size=WIDTH,
        intermediate_size=4 * WIDTH,
        num_attention_heads=4,
        num_hidden_layers=3,
        vocab_size=len(tokenizer),
        max_position_embeddings=tokenizer.model_max_length,
        projection_dim=PROJECTION,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    config = VisionTextDualEncoderConfig(
        text_config=text.to_dict(),
        vision_config=lite.config(SEEN).to_dict(),
        projection_dim=PROJECTION,
    )
    return VisionTextDualEncoderModel(config)


def text_tower() -> CLIPTextModel:
    """Only the text tower of the saved CLIP."""
    config = VisionTextDualEncoderConfig.from_pretrained(RUNS / "clip").text_config
    return CLIPTextModel.from_pretrained(RUNS / "clip", config=config)


def tokens_of(tokenizer: CLIPTokenizer, texts: list[str]) -> Tensor:
    read = tokenizer(texts, padding="max_length", truncation=True, return_tensors="pt")
    ids: Tensor = read.input_ids
    return ids


def as_seen(pixels: Tensor) -> Tensor:
    """(pictures, 3, `IMAGE`, `IMAGE`) enlarged to `SEEN` px a side, as by the image processor."""
    large = interpolate(pixels, size=SEEN, mode="bicubic", antialias=True).clamp(-1, 1)
    return large.contiguous(memory_format=torch.channels_last)


@torch.inference_mode()
def through(vae: AutoencoderKL, pictures: Tensor) -> Tensor:
    """(pictures, 3, height, width), uint8, encoded and decoded by the VAE."""
    back = [
        vae.decode(vae.encode(as_pixels(part)).latent_dist.mean).sample
        for part in torch.split(pictures, 64)
    ]
    return ((torch.cat(back) + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


def embed_images(clip: VisionTextDualEncoderModel, pixels: Tensor) -> Tensor:
    """(pictures, 3, `IMAGE`, `IMAGE`) -> (pictures, `PROJECTION`), of unit length."""
    pooled = clip.vision_model(pixel_values=as_seen(pixels)).pooler_output
    return normalize(clip.visual_projection(pooled).float(), dim=-1)


def embed_texts(clip: VisionTextDualEncoderModel, ids: Tensor) -> Tensor:
    """(texts, `PROJECTION`), of unit length; padding after the longest text is not read."""
    end = int((ids == ids[0, -1]).int().argmax(dim=1).max()) + 1
    pooled = clip.text_model(input_ids=ids[:, :end]).pooler_output
    return normalize(clip.text_projection(pooled).float(), dim=-1)


def augment(
    pixels: Tensor, generator: Generator, may_mirror: Tensor | None = None, nearest: float = 0.8
) -> Tensor:
    """Mirror pictures at random, if they may be; rotate every other one by up to 6 degrees and scale it.

    Colours are kept, because each set is recognised by its palette. The other half stays as sharp as
    drawn, as the tower will see pictures; a tower trained only on rotated ones recognised those better.
    """
    count, device = len(pixels), pixels.device
    random = torch.rand(5, count, generator=generator, device=device)
    angle, across, down = (random[:3] * 2 - 1).unbind()
    seen = nearest + (1.15 - nearest) * random[3]
    angle[::2], seen[::2] = 0, 1
    mirrored = random[4] < 0.5
    flip = torch.where(mirrored if may_mirror is None else mirrored & may_mirror, -1.0, 1.0)
    angle, room = angle * math.radians(6), (1 - seen).abs()
    cos, sin = angle.cos() * seen, angle.sin() * seen
    rows = torch.stack(
        [
            torch.stack([cos * flip, -sin, across * room], 1),
            torch.stack([sin * flip, cos, down * room], 1),
        ],
        1,
    )
    grid = affine_grid(rows, list(pixels.shape), align_corners=False)
    return grid_sample(pixels, grid, padding_mode="border", align_corners=False)


class HeldOut:
    """Metrics on concepts that the towers were not trained on, as drawn and after the VAE."""

    def __init__(self, icons: Icons, tokenizer: CLIPTokenizer, vae: AutoencoderKL) -> None:
        concepts, self.styles = icons.held_out, list(STYLES)
        names = [icons.caption(index) for index in concepts]
        self.style_texts = tokens_of(tokenizer, [f"in {style}" for style in STYLES.values()])
        self.names = tokens_of(tokenizer, [f"a {name}" for name in names])
        drawn = {name: icons.tensor([(i, name) for i in concepts]) for name in STYLES}
        self.pixels = {name: as_pixels(pictures) for name, pictures in drawn.items()}
        self.after_vae = {name: as_pixels(through(vae, pictures)) for name, pictures in drawn.items()}

    @torch.inference_mode()
    def figures(self, clip: VisionTextDualEncoderModel) -> dict[str, float]:
        """Image-to-style accuracy, and how often an image's name is among its 5 nearest names."""
        clip.eval()
        right, near = self._told(clip, self.pixels)
        right_after, near_after = self._told(clip, self.after_vae)
        clip.train()
        top = {f"top 5 {n}": float(x.mean()) for n, x in zip(self.styles, near, strict=True)}
        return {
            "style accuracy": float(right.mean()),
            "name in top 5": float(near.mean()),
            **top,
            "style accuracy after the VAE": float(right_after.mean()),
            "name in top 5 after the VAE": float(near_after.mean()),
        }

    def _told(
        self, clip: VisionTextDualEncoderModel, pixels: dict[str, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """(styles, pictures) each: 1 if the style is right, 1 if the name is among the nearest."""
        right, near = [], []
        styles, names = embed_texts(clip, self.style_texts), embed_texts(clip, self.names)
        for place, name in enumerate(self.styles):
            images = embed_images(clip, pixels[name])
            right.append((images @ styles.T).argmax(1) == place)
            nearest = (images @ names.T).topk(5, dim=1).indices
            near.append((nearest == torch.arange(len(images))[:, None]).any(1))
        return torch.stack(right).float(), torch.stack(near).float()


def save(
    clip: VisionTextDualEncoderModel, tokenizer: CLIPTokenizer, folder: Path = RUNS / "clip"
) -> None:
    """Save the CLIP with its tokenizer and image processor."""
    clip.eval().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    CLIPImageProcessorPil(
        size={"shortest_edge": SEEN}, crop_size=SEEN, image_mean=[0.5] * 3, image_std=[0.5] * 3
    ).save_pretrained(folder)
