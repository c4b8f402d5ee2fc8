"""Go on training mini's CLIP: the image tower alone, against the text tower as it is.

Locked-text tuning, the mirror of LiT (Zhai et al., CVPR 2022): the U-Net already knows the text tower.
"""

import torch
from clip import (
    HeldOut,
    augment,
    embed_images,
    embed_texts,
    save,
    tokens_of,
)
from data import STYLES, Icons, as_pixels
from torch import Generator, Tensor
from torch.nn.functional import cross_entropy
from training import RUNS, Schedule, schedule_from_flags, train
from transformers import CLIPModel, CLIPTokenizer

SCHEDULE = Schedule(steps=2000, batch=128, learning_rate=1e-3, weight_decay=0.1, ema=0.998)
#: Names this much alike share an image: what is near to a donkey may be near to a giraffe.
KINSHIP = 0.07


def main() -> None:
    torch.manual_seed(0)
    icons = Icons()
    tokenizer = CLIPTokenizer.from_pretrained(RUNS / "clip")
    clip = CLIPModel.from_pretrained(RUNS / "clip").train()
    # on the CPU the gradient of the fused attention costs more than that of its parts
    clip.set_attn_implementation("eager")
    rows = icons.rows(icons.trained_on)
    pictures = icons.tensor(rows)
    name = torch.tensor([icons.trained_on.index(concept) for concept, _ in rows])
    style = torch.tensor([list(STYLES).index(name) for _, name in rows])

    def read(texts: list[str]) -> Tensor:
        with torch.no_grad():
            parts = torch.split(tokens_of(tokenizer, texts), 256)
            return torch.cat([embed_texts(clip, part) for part in parts])

    whole = read([f"a {icons.caption(concept)} in {STYLES[of]}" for concept, of in rows])
    names = read([f"a {icons.caption(concept)}" for concept in icons.trained_on])
    styles = read([f"in {words}" for words in STYLES.values()])
    kin = (names @ names.T / KINSHIP).softmax(dim=1)

    def loss(indices: Tensor, generator: Generator) -> Tensor:
        pixels = augment(as_pixels(pictures[indices]), generator)
        with torch.autocast("cpu", torch.bfloat16):
            images = embed_images(clip, pixels)
        images = clip.logit_scale.exp().clamp(max=100) * images
        return (
            cross_entropy(images @ whole.T, indices)
            + cross_entropy(images @ names.T, kin[name[indices]])
            + 3 * cross_entropy(images @ styles.T, style[indices])
        )

    clip.text_model.requires_grad_(False)
    clip.text_projection.requires_grad_(False)
    held_out = HeldOut(icons, tokenizer)
    train(
        "clip_images",
        clip,
        schedule_from_flags(SCHEDULE),
        len(rows),
        loss,
        lambda: held_out.figures(clip),
    )
    save(clip, tokenizer)


if __name__ == "__main__":
    main()
