"""Train mini's image tower against its text tower, contrastively, beside the U-Net.

The text tower stays as it is (the mirror of LiT, Zhai et al., CVPR 2022), for the U-Net already listens
to it. Half of each batch are the five sets that mini draws, half are icons of many others. Some thousand
drawings do not tell what a thing looks like that is not among them, so the tower also learns from an
image classifier: what this sees in a picture, and what is to be made of that (`features.py`). Styles it
learns with the colours that they are drawn in (`palettes.py`).
"""

from dataclasses import dataclass

import torch
from data import STYLES, Icons, as_pixels, more_icons
from features import AXES, Teacher
from palettes import AXES as PALETTE_AXES
from palettes import Palettes, missed
from torch import Generator, Tensor, nn
from torch.nn.functional import cosine_similarity, cross_entropy, normalize
from towers import IMAGE, PATCH, STYLE_AXES, WIDTH, HeldOut, augment, embed_texts, save, tokens_of
from training import RUNS, Schedule, schedule_from_flags, train
from transformers import CLIPModel, CLIPTokenizer

#: The batch is of the five sets; so many icons of others come to it, and so many collages.
SCHEDULE = Schedule(steps=4500, batch=64, learning_rate=1e-3, weight_decay=0.1, ema=0.998)
OTHERS, COLLAGES = 48, 32
#: Names this much alike share an image: what is near to a donkey may be near to a giraffe.
KINSHIP = 0.06


@dataclass(frozen=True)
class Seen:
    """What the image tower makes of pictures."""

    embeddings: Tensor  #: (pictures, `PROJECTION`), of unit length
    features: Tensor  #: (pictures, `AXES`), the classifier's
    palette: Tensor  #: (pictures, `PALETTE_AXES`)
    patches: Tensor  #: (pictures, patches, `PALETTE_AXES`): the palette of each


class Student(nn.Module):
    """The CLIP, and what its image tower says beside its embedding while it trains."""

    def __init__(self, clip: CLIPModel) -> None:
        super().__init__()
        self.clip = clip
        self.as_features = nn.Linear(WIDTH, AXES)
        self.as_palette = nn.Linear(WIDTH, PALETTE_AXES)
        self.as_patches = nn.Linear(WIDTH, PALETTE_AXES)

    def forward(self, pixels: Tensor) -> Seen:
        seen = self.clip.vision_model(pixel_values=pixels)
        embeddings = self.clip.visual_projection(seen.pooler_output).float()
        return Seen(
            normalize(embeddings, dim=-1),
            self.as_features(seen.pooler_output).float(),
            self.as_palette(seen.pooler_output).float(),
            self.as_patches(seen.last_hidden_state[:, 1:]).float(),
        )


def collages(pictures: Tensor, by_style: Tensor, generator: Generator) -> tuple[Tensor, Tensor, Tensor]:
    """`COLLAGES` pictures of patches from anywhere in up to four of one style, the patches, the style.

    A style is in every patch. From whole pictures the tower learned by heart which are of which style.
    """
    grid = IMAGE // PATCH

    def drawn(end: int, *shape: int) -> Tensor:
        return torch.randint(end, (COLLAGES, *shape), generator=generator)

    style = drawn(len(by_style))
    # a collage is of the first 1, 2, 3 or 4 of the four
    of_first = torch.arange(4) % (drawn(4, 1) + 1)
    four = by_style[style[:, None], drawn(by_style.shape[1], 4).gather(1, of_first)]
    side = torch.arange(PATCH)
    which = drawn(4, grid**2)
    top, left = (drawn(IMAGE - PATCH + 1, grid**2) for _ in range(2))
    down, across = top[..., None, None] + side[:, None], left[..., None, None] + side
    # (collages, patches, side, side, 3)
    patches = pictures[four.gather(1, which)[..., None, None], :, down, across]
    placed = patches.reshape(COLLAGES, grid, grid, PATCH, PATCH, 3).permute(0, 5, 1, 3, 2, 4)
    return placed.reshape(COLLAGES, 3, IMAGE, IMAGE), patches.movedim(-1, 2), style


def main() -> None:
    torch.manual_seed(0)
    icons, more = Icons(), more_icons()
    tokenizer = CLIPTokenizer.from_pretrained(RUNS / "clip")
    clip = CLIPModel.from_pretrained(RUNS / "clip")
    # on the CPU the gradient of the fused attention costs more than that of its parts
    clip.set_attn_implementation("eager")
    clip.text_model.requires_grad_(False)
    clip.text_projection.requires_grad_(False)
    # the first normalisation takes a patch's brightness away but for what stands out against an offset
    start = clip.vision_model.embeddings
    nn.init.normal_(start.patch_embedding.weight, std=0.15)
    start.position_embedding.weight.data += 0.5 * torch.randn(WIDTH)

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
    teacher, palettes = Teacher(icons, rows, of_names[name]), Palettes(pictures[: len(rows)])
    student = Student(clip).train()

    def loss(indices: Tensor, generator: Generator) -> Tensor:
        own = len(indices)
        others = torch.randint(len(rows), len(pictures), (OTHERS,), generator=generator)
        both = torch.cat([indices, others])
        cut, patches, of = collages(pictures, by_style, generator)
        pixels = torch.cat([augment(as_pixels(pictures[both]), generator), as_pixels(cut)])
        with torch.autocast("cpu", torch.bfloat16):
            seen = student(pixels)
        images, of_collages = seen.embeddings.split([len(both), COLLAGES])
        scale = clip.logit_scale.exp().clamp(max=100)
        scores = scale * images[:own]
        # of the axes that are the styles' the teacher knows nothing
        meant, known = (of[:, :-STYLE_AXES] for of in (images, teacher.names[both]))
        of_patches = palettes.of(as_pixels(patches.flatten(0, 1)))
        return (
            cross_entropy(scores @ of_names.T, kin[name[indices]])
            + 0.25 * cross_entropy(scores @ of_captions.T, indices)
            + cross_entropy(scores @ of_styles.T, style[indices])
            + 4 * cross_entropy(scale * of_collages @ of_styles.T, of)
            + 8 * (1 - cosine_similarity(seen.features[: len(both)], teacher.features[both])).mean()
            + 8 * (1 - cosine_similarity(meant, known)).mean()
            + missed(seen.palette, palettes.of(pixels))
            + missed(seen.patches[len(both) :].flatten(0, 1), of_patches)
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
