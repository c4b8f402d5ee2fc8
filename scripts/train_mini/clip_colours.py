"""Add to the trained CLIP which colours each style is drawn in (`colours.py`)."""

import torch
from colours import SHADES, Colours, Counts
from data import STYLES, Icons, as_pixels, say
from diffusers import AutoencoderKL
from lite import TENTS
from torch import Generator, Tensor
from torch.nn.functional import cross_entropy
from towers import COLOURED, HeldOut, as_seen, embed_texts, save, through
from training import RUNS, Schedule, schedule_from_flags, train
from transformers import CLIPTokenizer, VisionTextDualEncoderModel
from widen import SIGNS, with_colours

SCHEDULE = Schedule(steps=1500, batch=3072, learning_rate=4e-3, warm_up=100, ema=0.99)


@torch.no_grad()
def tell(clip: VisionTextDualEncoderModel, colours: Colours, styles: Tensor, pictures: Tensor) -> None:
    """Add to each image embedding what its colours say about `styles` (styles, embedding width).

    The tower's logit of a style is a cosine times CLIP's scale; the colours' logit is added to it. The
    length of the embeddings is measured on `pictures` (n, 3, `IMAGE`, `IMAGE`), uint8.
    """
    seen = (
        clip.vision_model(pixel_values=as_seen(as_pixels(part))) for part in torch.split(pictures, 256)
    )
    pooled = torch.cat([each.pooler_output for each in seen])
    projection = clip.visual_projection.weight
    # the least informative features are replaced
    said = pooled.norm(dim=0) * projection.norm(dim=0)
    top = said.argsort()[: len(SIGNS) * len(styles)].reshape(len(SIGNS), len(styles))
    length = (pooled @ projection.T).norm(dim=1).mean()
    clip.vision_model, scale = with_colours(clip.vision_model, colours, top)
    clip.config.vision_config = clip.vision_model.config
    for units, sign in zip(top, SIGNS, strict=True):
        projection[:, units] = sign * styles.T * length / (clip.logit_scale.exp() * scale)


def main() -> None:
    torch.manual_seed(0)
    icons = Icons()
    vae = AutoencoderKL.from_pretrained(RUNS / "vae")
    rows = icons.rows(icons.trained_on)
    own = icons.tensor(rows)
    counts = Counts(torch.cat([own, through(vae, own)]))
    style = torch.tensor([list(STYLES).index(of) for _, of in rows]).repeat(2)
    # the tents start over colours that are drawn in proportion to the root of their area
    amount = torch.sparse.sum(counts.shares, 0).to_dense().sqrt()
    colours = Colours(counts.colours[torch.multinomial(amount, TENTS)])

    def loss(indices: Tensor, generator: Generator) -> Tensor:
        # a random colour within the shade
        shaken = torch.rand(counts.colours.shape, generator=generator) - 0.5
        of_colours = colours(counts.colours + shaken * 6 / SHADES)
        return cross_entropy(
            torch.sparse.mm(counts.shares.index_select(0, indices), of_colours), style[indices]
        )

    held = torch.cat([icons.tensor([(i, name) for i in icons.held_out]) for name in STYLES])
    truth = torch.arange(len(STYLES)).repeat_interleave(len(icons.held_out))
    tests = {"style accuracy": Counts(held), "style accuracy after the VAE": Counts(through(vae, held))}

    @torch.inference_mode()
    def figures() -> dict[str, float]:
        said = {what: torch.sparse.mm(of.shares, colours(of.colours)) for what, of in tests.items()}
        return {what: float((logits.argmax(1) == truth).float().mean()) for what, logits in said.items()}

    train("clip_colours", colours, schedule_from_flags(SCHEDULE), len(style), loss, figures)
    clip = VisionTextDualEncoderModel.from_pretrained(RUNS / "clip").eval()
    tokenizer = CLIPTokenizer.from_pretrained(RUNS / "clip")
    held_out = HeldOut(icons, tokenizer, vae)
    # equally many of every style: neighbours in `rows` have different styles
    tell(clip, colours, embed_texts(clip, held_out.style_texts), own[:: len(STYLES) + 1])
    told = (f"{name} {number:.4g}" for name, number in held_out.figures(clip).items())
    say(f"with colours: {', '.join(told)}")
    save(clip, tokenizer, COLOURED)


if __name__ == "__main__":
    main()
