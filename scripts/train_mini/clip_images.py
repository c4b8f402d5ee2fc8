"""Train mini's image tower contrastively against its text tower; the U-Net may train at the same time.

The text tower is frozen (the mirror of LiT, Zhai et al., CVPR 2022), because the U-Net already depends
on it. A few thousand drawings do not show what other things look like. The image tower therefore starts
from a classifier of photographs (`lite.py`), and also learns the features of it and a larger classifier
and the names that a regression derives from them (`features.py`). Half of each batch comes from the five
sets that mini draws, as drawn or after the VAE; the rest are icons of many other sets and collages.
"""

from dataclasses import dataclass

import lite
import torch
from data import STYLES, Icons, as_pixels, more_icons
from diffusers import AutoencoderKL
from features import AXES, Teacher
from torch import Generator, Tensor, nn
from torch.nn.functional import cosine_similarity, cross_entropy, normalize
from towers import IMAGE, STYLE_AXES, HeldOut, as_seen, augment, embed_texts, save, through, tokens_of
from training import RUNS, Schedule, schedule_from_flags, train
from transformers import CLIPTokenizer, VisionTextDualEncoderModel

#: `batch` counts pictures of the five sets; icons of other sets and collages are added to it.
SCHEDULE = Schedule(steps=2400, batch=48, learning_rate=4e-4, weight_decay=0.05, ema=0.995)
OTHERS, COLLAGES = 16, 32
#: The possible sides of a collage's pieces, px.
PIECES = (16, 32)
#: The share of the five sets' pictures that the tower sees after the VAE, as all pictures that CLIP will
#: measure come out of it.
THROUGH_VAE = 0.3
#: Temperature of the similarity of names: similar names, such as donkey and giraffe, share an image.
KINSHIP = 0.06


@dataclass(frozen=True)
class Seen:
    """The outputs of the image tower for pictures."""

    embeddings: Tensor  #: (pictures, `PROJECTION`), of unit length
    features: Tensor  #: (pictures, `AXES`), as predicted of the classifiers


class Student(nn.Module):
    """The CLIP, with a second output of its image tower during training."""

    def __init__(self, clip: VisionTextDualEncoderModel) -> None:
        super().__init__()
        self.clip = clip
        self.as_features = nn.Linear(lite.WIDTH, AXES)

    def train(self, mode: bool = True) -> "Student":
        """As usual, but batch norms keep the classifier's statistics, which come from more pictures."""
        super().train(mode)
        for part in self.modules():
            if isinstance(part, nn.BatchNorm2d):
                part.eval()
        return self

    def forward(self, pixels: Tensor) -> Seen:
        pooled = self.clip.vision_model(pixel_values=as_seen(pixels)).pooler_output
        return Seen(normalize(self.clip.visual_projection(pooled), dim=-1), self.as_features(pooled))


def collages(pictures: Tensor, by_style: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
    """`COLLAGES` pictures, each made of random pieces of up to four pictures of a style, and the styles.

    Every piece shows its style. From whole pictures the tower would only memorise the style of each.
    """
    piece = PIECES[int(torch.randint(len(PIECES), (), generator=generator))]
    grid = IMAGE // piece

    def drawn(end: int, *shape: int) -> Tensor:
        return torch.randint(end, (COLLAGES, *shape), generator=generator)

    style = drawn(len(by_style))
    # a collage uses the first 1, 2, 3 or 4 of the four
    of_first = torch.arange(4) % (drawn(4, 1) + 1)
    four = by_style[style[:, None], drawn(by_style.shape[1], 4).gather(1, of_first)]
    side = torch.arange(piece)
    which = drawn(4, grid**2)
    top, left = (drawn(IMAGE - piece + 1, grid**2) for _ in range(2))
    down, across = top[..., None, None] + side[:, None], left[..., None, None] + side
    # (collages, pieces, side, side, 3)
    pieces = pictures[four.gather(1, which)[..., None, None], :, down, across]
    placed = pieces.reshape(COLLAGES, grid, grid, piece, piece, 3).permute(0, 5, 1, 3, 2, 4)
    return placed.reshape(COLLAGES, 3, IMAGE, IMAGE), style


def main() -> None:
    torch.manual_seed(0)
    icons, more = Icons(), more_icons()
    tokenizer = CLIPTokenizer.from_pretrained(RUNS / "clip")
    clip = VisionTextDualEncoderModel.from_pretrained(RUNS / "clip")
    clip.text_model.requires_grad_(False)
    clip.text_projection.requires_grad_(False)
    clip.vision_model.to(memory_format=torch.channels_last)
    lite.start_from(lite.classifiers()[0], clip.vision_model)
    vae = AutoencoderKL.from_pretrained(RUNS / "vae")

    def read(texts: list[str]) -> Tensor:
        with torch.no_grad():
            parts = torch.split(tokens_of(tokenizer, texts), 256)
            return torch.cat([embed_texts(clip, part) for part in parts])

    rows = icons.rows(icons.trained_on)
    own = icons.tensor(rows)
    pictures = torch.cat([own, torch.from_numpy(more.pictures).permute(0, 3, 1, 2), through(vae, own)])
    others_end = len(own) + len(more.pictures)
    names = [icons.caption(concept) for concept in icons.trained_on]
    name = torch.tensor([icons.trained_on.index(concept) for concept, _ in rows])
    style = torch.tensor([list(STYLES).index(of) for _, of in rows])
    by_style = torch.stack([torch.nonzero(style == place)[:, 0] for place in range(len(STYLES))])
    of_names = read([f"a {n}" for n in names])
    of_styles = read([f"in {words}" for words in STYLES.values()])
    of_captions = read([f"a {icons.caption(concept)} in {STYLES[of]}" for concept, of in rows])
    kin = (of_names @ of_names.T / KINSHIP).softmax(dim=1)
    # a third of all collages are made of pictures after the VAE
    by_style = torch.cat([by_style, by_style, by_style + others_end])
    teacher = Teacher(icons, rows, of_names[name])
    student = Student(clip)

    def loss(indices: Tensor, generator: Generator) -> Tensor:
        others = torch.randint(len(own), others_end, (OTHERS,), generator=generator)
        both = torch.cat([indices, others])
        passed = torch.rand(len(indices), generator=generator) < THROUGH_VAE
        seen_as = torch.cat([torch.where(passed, indices + others_end, indices), others])
        cut, of = collages(pictures, by_style, generator)
        pixels = torch.cat([augment(as_pixels(pictures[seen_as]), generator), as_pixels(cut)])
        student.train()
        seen = student(pixels)
        images, of_collages = seen.embeddings.split([len(both), COLLAGES])
        scale = clip.logit_scale.exp().clamp(max=100)
        scores = scale * images[: len(indices)]
        # the teacher knows nothing about the axes of the styles
        meant, known = (of[:, :-STYLE_AXES] for of in (images, teacher.names[both]))
        return (
            0.5 * cross_entropy(scores @ of_names.T, kin[name[indices]])
            + 0.25 * cross_entropy(scores @ of_captions.T, indices)
            + cross_entropy(scores @ of_styles.T, style[indices])
            + 4 * cross_entropy(scale * of_collages @ of_styles.T, of % len(STYLES))
            + 8 * (1 - cosine_similarity(seen.features[: len(both)], teacher.features[both])).mean()
            + 8 * (1 - cosine_similarity(meant, known)).mean()
        )

    held_out = HeldOut(icons, tokenizer, vae)
    train(
        "clip_images",
        student,
        schedule_from_flags(SCHEDULE),
        len(rows),
        loss,
        lambda: held_out.figures(clip),
    )
    save(clip, tokenizer)


if __name__ == "__main__":
    main()
