"""Train mini's image tower against its text tower, contrastively, beside the U-Net.

The text tower stays as it is (the mirror of LiT, Zhai et al., CVPR 2022), for the U-Net already listens
to it. Half of each batch are the five sets that mini draws, half are icons of many others. Some thousand
drawings do not tell what a thing looks like that is not among them, so the tower also learns from an
image classifier: what this sees in a picture, and what is to be made of that (`features.py`).
"""

import torch
from data import STYLES, Icons, as_pixels, more_icons
from features import AXES, Teacher
from torch import Generator, Tensor, nn
from torch.nn.functional import cosine_similarity, cross_entropy, normalize
from towers import IMAGE, PATCH, STYLE_AXES, WIDTH, HeldOut, augment, embed_texts, save, tokens_of
from training import RUNS, Schedule, schedule_from_flags, train
from transformers import CLIPModel, CLIPTokenizer

#: The batch is of the five sets; so many icons of others come to it, and so many collages.
SCHEDULE = Schedule(steps=6000, batch=64, learning_rate=1e-3, weight_decay=0.1, ema=0.998)
OTHERS, COLLAGES = 48, 64
#: Names this much alike share an image: what is near to a donkey may be near to a giraffe.
KINSHIP = 0.06


class Student(nn.Module):
    """The CLIP, and what its image tower says of the classifier's features while it trains."""

    def __init__(self, clip: CLIPModel) -> None:
        super().__init__()
        self.clip = clip
        self.as_features = nn.Linear(WIDTH, AXES)

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Embeddings (pictures, `PROJECTION`), of unit length, and features (pictures, `AXES`)."""
        pooled = self.clip.vision_model(pixel_values=pixels).pooler_output
        embeddings = normalize(self.clip.visual_projection(pooled).float(), dim=-1)
        return embeddings, self.as_features(pooled).float()


def collages(pictures: Tensor, by_style: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
    """`COLLAGES` pictures of patches from up to four of one style, and which style that is.

    A style is in every patch. From whole pictures the tower learned by heart which are of which style.
    """

    def drawn(end: int, *shape: int) -> Tensor:
        return torch.randint(end, (COLLAGES, *shape), generator=generator)

    style = drawn(len(by_style))
    # a collage is of the first 1, 2, 3 or 4 of the four
    of_first = torch.arange(4) % (drawn(4, 1) + 1)
    four = by_style[style[:, None], drawn(by_style.shape[1], 4).gather(1, of_first)]
    side, grid = PATCH, IMAGE // PATCH
    # (collages, patches of four pictures, 3, side, side)
    patches = pictures[four].unfold(3, side, side).unfold(4, side, side).permute(0, 1, 3, 4, 2, 5, 6)
    patches = patches.flatten(1, 3)
    chosen = patches[torch.arange(COLLAGES)[:, None], drawn(patches.shape[1], grid * grid)]
    placed = chosen.reshape(COLLAGES, grid, grid, 3, side, side).permute(0, 3, 1, 4, 2, 5)
    return placed.reshape(COLLAGES, 3, IMAGE, IMAGE), style


def main() -> None:
    torch.manual_seed(0)
    icons, more = Icons(), more_icons()
    tokenizer = CLIPTokenizer.from_pretrained(RUNS / "clip")
    clip = CLIPModel.from_pretrained(RUNS / "clip")
    # on the CPU the gradient of the fused attention costs more than that of its parts
    clip.set_attn_implementation("eager")
    clip.text_model.requires_grad_(False)
    clip.text_projection.requires_grad_(False)

    def read(texts: list[str]) -> Tensor:
        with torch.no_grad():
            parts = torch.split(tokens_of(tokenizer, texts), 256)
            return torch.cat([embed_texts(clip, part) for part in parts])

    rows = icons.rows(icons.trained_on)
    pictures = torch.cat([icons.tensor(rows), torch.from_numpy(more.pictures).permute(0, 3, 1, 2)])
    names = [icons.caption(concept) for concept in icons.trained_on]
    name = torch.tensor([icons.trained_on.index(concept) for concept, _ in rows])
    style = torch.tensor([list(STYLES).index(of) for _, of in rows])
    by_style = torch.stack([torch.nonzero(style == place)[:, 0] for place in range(len(STYLES))])
    of_names = read([f"a {n}" for n in names])
    of_styles = read([f"in {words}" for words in STYLES.values()])
    of_captions = read([f"a {icons.caption(concept)} in {STYLES[of]}" for concept, of in rows])
    kin = (of_names @ of_names.T / KINSHIP).softmax(dim=1)
    teacher = Teacher(icons, rows, of_names[name])
    student = Student(clip).train()

    def loss(indices: Tensor, generator: Generator) -> Tensor:
        own = len(indices)
        others = torch.randint(len(rows), len(pictures), (OTHERS,), generator=generator)
        both = torch.cat([indices, others])
        cut, of = collages(pictures, by_style, generator)
        pixels = torch.cat([augment(as_pixels(pictures[both]), generator), as_pixels(cut)])
        with torch.autocast("cpu", torch.bfloat16):
            images, says = student(pixels)
        images, of_collages, says = images[: len(both)], images[len(both) :], says[: len(both)]
        scale = clip.logit_scale.exp().clamp(max=100)
        scores = scale * images[:own]
        # of the axes that are the styles' the teacher knows nothing
        meant, known = (of[:, :-STYLE_AXES] for of in (images, teacher.names[both]))
        return (
            cross_entropy(scores @ of_names.T, kin[name[indices]])
            + 0.25 * cross_entropy(scores @ of_captions.T, indices)
            + cross_entropy(scores @ of_styles.T, style[indices])
            + 8 * cross_entropy(scale * of_collages @ of_styles.T, of)
            + 8 * (1 - cosine_similarity(says, teacher.features[both])).mean()
            + 8 * (1 - cosine_similarity(meant, known)).mean()
        )

    held_out = HeldOut(icons, tokenizer)
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
