"""Train mini's image tower against its text tower, contrastively, beside the U-Net.

The text tower stays as it is (the mirror of LiT, Zhai et al., CVPR 2022), for the U-Net already listens
to it. Some thousand drawings do not tell what a thing looks like that is not among them, so the image
tower starts from a classifier of photographs (`lite.py`), and goes on learning what this and a larger
one see in a picture and what is to be made of that (`features.py`). Half of each batch are the five sets
that mini draws, as drawn or as the VAE gives them back, the rest are icons of many others and collages.
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

#: The batch is of the five sets; so many icons of others come to it, and so many collages.
SCHEDULE = Schedule(steps=2400, batch=48, learning_rate=4e-4, weight_decay=0.05, ema=0.995)
OTHERS, COLLAGES = 16, 32
#: px that a collage's pieces may have.
PIECES = (16, 32)
#: Of the five sets' pictures, the part that is seen as the VAE gives them back: all that CLIP is to
#: measure went through it.
THROUGH_VAE = 0.3
#: Names this much alike share an image: what is near to a donkey may be near to a giraffe.
KINSHIP = 0.06


@dataclass(frozen=True)
class Seen:
    """What the image tower makes of pictures."""

    embeddings: Tensor  #: (pictures, `PROJECTION`), of unit length
    features: Tensor  #: (pictures, `AXES`), the classifiers'


class Student(nn.Module):
    """The CLIP, and what its image tower says beside its embedding while it trains."""

    def __init__(self, clip: VisionTextDualEncoderModel) -> None:
        super().__init__()
        self.clip = clip
        self.as_features = nn.Linear(lite.WIDTH, AXES)

    def train(self, mode: bool = True) -> "Student":
        """As ever, but the classifier's normalisation stays: it knows more pictures than a batch has."""
        super().train(mode)
        for part in self.modules():
            if isinstance(part, nn.BatchNorm2d):
                part.eval()
        return self

    def forward(self, pixels: Tensor) -> Seen:
        pooled = self.clip.vision_model(pixel_values=as_seen(pixels)).pooler_output
        return Seen(normalize(self.clip.visual_projection(pooled), dim=-1), self.as_features(pooled))


def collages(pictures: Tensor, by_style: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
    """`COLLAGES` pictures of pieces from anywhere in up to four of one style, and which style that is.

    A style is in every piece. From whole pictures the tower learns by heart which are of which style.
    """
    piece = PIECES[int(torch.randint(len(PIECES), (), generator=generator))]
    grid = IMAGE // piece

    def drawn(end: int, *shape: int) -> Tensor:
        return torch.randint(end, (COLLAGES, *shape), generator=generator)

    style = drawn(len(by_style))
    # a collage is of the first 1, 2, 3 or 4 of the four
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
    # of all collages a third is seen as the VAE gives it back
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
        # of the axes that are the styles' the teacher knows nothing
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
