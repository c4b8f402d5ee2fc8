"""Train mini's CLIP: an image and a text tower, contrastively; the text tower then tells the U-Net.

`clip_images.py` goes on with the image tower while the U-Net trains.
"""

import math

import torch
from data import STYLES, Icons, as_pixels
from torch import Generator, Tensor
from torch.nn.functional import affine_grid, cross_entropy, grid_sample, normalize
from training import RUNS, Schedule, schedule_from_flags, train
from transformers import CLIPConfig, CLIPModel, CLIPTokenizer
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from words import targets, vocabulary

SCHEDULE = Schedule(steps=1000, batch=128, learning_rate=1e-3, weight_decay=0.1, ema=0.998)
WIDTH, PROJECTION, IMAGE = 160, 128, 64
WORDS_A_STEP = 128


def build(tokenizer: CLIPTokenizer) -> CLIPModel:
    towers = {
        "hidden_size": WIDTH,
        "intermediate_size": 4 * WIDTH,
        "num_attention_heads": 4,
        "projection_dim": PROJECTION,
    }
    text = {
        **towers,
        "num_hidden_layers": 3,
        "vocab_size": len(tokenizer),
        "max_position_embeddings": tokenizer.model_max_length,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    vision = {**towers, "num_hidden_layers": 6, "image_size": IMAGE, "patch_size": 8}
    return CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=PROJECTION))


def tokens_of(tokenizer: CLIPTokenizer, texts: list[str]) -> Tensor:
    read = tokenizer(texts, padding="max_length", truncation=True, return_tensors="pt")
    ids: Tensor = read.input_ids
    return ids


def embed_images(clip: CLIPModel, pixels: Tensor) -> Tensor:
    """(pictures, `PROJECTION`), of unit length."""
    pooled = clip.vision_model(pixel_values=pixels).pooler_output
    return normalize(clip.visual_projection(pooled).float(), dim=-1)


def embed_texts(clip: CLIPModel, ids: Tensor) -> Tensor:
    """(texts, `PROJECTION`), of unit length; padding after the longest is not read."""
    end = int((ids == ids[0, -1]).int().argmax(dim=1).max()) + 1
    pooled = clip.text_model(input_ids=ids[:, :end]).pooler_output
    return normalize(clip.text_projection(pooled).float(), dim=-1)


def contrast(scores: Tensor, alike: Tensor) -> Tensor:
    """InfoNCE both ways; of several pairs that are `alike` (rows, columns) each is as right."""
    truth = alike.float()
    rows, columns = truth / truth.sum(1, keepdim=True), truth / truth.sum(0, keepdim=True)
    return (cross_entropy(scores, rows) + cross_entropy(scores.T, columns.T)) / 2


def augment(pixels: Tensor, generator: Generator) -> Tensor:
    """Each picture mirrored or not, turned by up to 6 degrees, seen whole or in part, and brightened.

    A style is in every part of a picture: what is learned from wholes alone are the pictures by heart.
    """
    count = len(pixels)
    angle, across, down, light = (torch.rand(4, count, generator=generator) * 2 - 1).unbind()
    seen = 0.5 + 0.6 * torch.rand(count, generator=generator)
    flip = torch.where(torch.rand(count, generator=generator) < 0.5, -1.0, 1.0)
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
    moved = grid_sample(pixels, grid, padding_mode="border", align_corners=False)
    gamma = (0.2 * light).exp()[:, None, None, None]
    return 2 * ((moved + 1) / 2).clamp(0, 1) ** gamma - 1


class HeldOut:
    """What the towers make of concepts that they were not trained on."""

    def __init__(self, icons: Icons, tokenizer: CLIPTokenizer) -> None:
        concepts, self.styles = icons.held_out, list(STYLES)
        names = [icons.caption(index) for index in concepts]
        self.style_texts = tokens_of(tokenizer, [f"in {style}" for style in STYLES.values()])
        self.names = tokens_of(tokenizer, [f"a {name}" for name in names])
        self.pixels = {name: as_pixels(icons.tensor([(i, name) for i in concepts])) for name in STYLES}

    @torch.inference_mode()
    def figures(self, clip: CLIPModel) -> dict[str, float]:
        """Image-to-style accuracy, and how often an image's name is among the 5 nearest to it."""
        clip.eval()
        right, near = [], []
        styles, names = embed_texts(clip, self.style_texts), embed_texts(clip, self.names)
        for place, name in enumerate(self.styles):
            images = embed_images(clip, self.pixels[name])
            right.append((images @ styles.T).argmax(1) == place)
            nearest = (images @ names.T).topk(5, dim=1).indices
            near.append((nearest == torch.arange(len(images))[:, None]).any(1))
        clip.train()
        top = {f"top 5 {n}": float(x.float().mean()) for n, x in zip(self.styles, near, strict=True)}
        return {
            "style accuracy": float(torch.cat(right).float().mean()),
            "name in top 5": float(torch.cat(near).float().mean()),
            **top,
        }


def main() -> None:
    torch.manual_seed(0)
    icons = Icons()
    tokenizer = CLIPTokenizer.from_pretrained(RUNS / "tokenizer")
    clip = build(tokenizer).train()
    # on the CPU the gradient of the fused attention costs more than that of its parts
    clip.set_attn_implementation("eager")
    rows = icons.rows(icons.trained_on)
    pictures = icons.tensor(rows)
    concept = torch.tensor([index for index, _ in rows])
    style = torch.tensor([list(STYLES).index(name) for _, name in rows])
    full = tokens_of(tokenizer, [f"a {icons.caption(i)} in {STYLES[name]}" for i, name in rows])
    named = tokens_of(tokenizer, [f"a {icons.caption(i)}" for i, _ in rows])
    styles = tokens_of(tokenizer, [f"in {name}" for name in STYLES.values()])
    texts = vocabulary(icons)
    words = tokens_of(tokenizer, texts)
    meaning = targets(texts, PROJECTION, len(icons.names))
    held_out = HeldOut(icons, tokenizer)

    def loss(indices: Tensor, generator: Generator) -> Tensor:
        pixels = augment(as_pixels(pictures[indices]), generator)
        chosen = torch.randint(len(words), (WORDS_A_STEP,), generator=generator)
        chosen[::2] = torch.randint(len(icons.names), (WORDS_A_STEP // 2,), generator=generator)
        with torch.autocast("cpu", torch.bfloat16):
            images = embed_images(clip, pixels)
            read = embed_texts(clip, torch.cat([full[indices], named[indices], styles, words[chosen]]))
        parts = [len(indices), len(indices), len(styles), WORDS_A_STEP]
        whole, names, of_style, of_words = torch.split(read, parts)
        scale = clip.logit_scale.exp().clamp(max=100)
        same = concept[indices][:, None] == concept[indices]
        alike = same & (style[indices][:, None] == style[indices])
        return (
            contrast(scale * images @ whole.T, alike)
            + contrast(scale * images @ names.T, same)
            + 0.5 * cross_entropy(scale * images @ of_style.T, style[indices])
            + 4 * (1 - (of_words * meaning[chosen]).sum(1)).mean()
        )

    train("clip", clip, schedule_from_flags(SCHEDULE), len(rows), loss, lambda: held_out.figures(clip))
    save(clip, tokenizer)


def save(clip: CLIPModel, tokenizer: CLIPTokenizer) -> None:
    """To `build/mini/clip`, with what reads text and pictures for it."""
    clip.eval().save_pretrained(RUNS / "clip")
    tokenizer.save_pretrained(RUNS / "clip")
    CLIPImageProcessorPil(
        size={"shortest_edge": IMAGE}, crop_size=IMAGE, image_mean=[0.5] * 3, image_std=[0.5] * 3
    ).save_pretrained(RUNS / "clip")


if __name__ == "__main__":
    main()
