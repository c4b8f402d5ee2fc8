"""Train mini's text tower: the embedding of a caption combines the meanings of its name and its style.

A sentence encoder gives the meaning of names (`words.py`); each style has its own axis. The U-Net then
learns to draw from these embeddings, and `clip_images.py` to match pictures with them.
"""

import torch
from data import STYLES, Icons, more_icons
from torch import Generator, Tensor
from torch.nn.functional import normalize, pad
from towers import PROJECTION, STYLE_AXES, build, embed_texts, save, tokens_of
from training import RUNS, Schedule, schedule_from_flags, train
from transformers import CLIPTokenizer
from words import general_words, meanings, meanings_of_names, on_axes

SCHEDULE = Schedule(steps=2400, batch=192, learning_rate=1e-3, weight_decay=0.02, ema=0.998)


def captions(name: str) -> list[str]:
    """The captions of `name`, alone and in each style."""
    return [f"a {name}", *(f"a {name} in {style}" for style in STYLES.values())]


def targets(name: Tensor | None, style: Tensor | None) -> Tensor:
    """(texts, `PROJECTION`), of unit length; name (texts, 120) and style (texts, 8) weigh the same."""
    parts = []
    if name is not None:
        parts.append(pad(name, (0, STYLE_AXES)))
    if style is not None:
        parts.append(pad(style, (PROJECTION - STYLE_AXES, 0)))
    return normalize(torch.stack(parts).sum(0), dim=-1)


def main() -> None:
    torch.manual_seed(0)
    icons = Icons()
    tokenizer = CLIPTokenizer.from_pretrained(RUNS / "tokenizer")
    clip = build(tokenizer).train()
    # on the CPU the gradient of fused attention is slower than that of its parts
    clip.text_model.set_attn_implementation("eager")
    clip.vision_model.requires_grad_(False)
    clip.visual_projection.requires_grad_(False)

    own = [icons.caption(index) for index in range(len(icons.names))]
    others = sorted(set(more_icons().names) - set(own))
    words = general_words()
    known = torch.cat([meanings_of_names([*own, *others]), meanings(words)])
    meaning = on_axes(known, PROJECTION - STYLE_AXES, len(own))
    of_style = torch.eye(STYLE_AXES)[: len(STYLES)]
    # each name: alone, then in each style
    of_captions = torch.stack(
        [targets(meaning, None), *(targets(meaning, s.expand(len(meaning), -1)) for s in of_style)], 1
    )
    ids = torch.stack([tokens_of(tokenizer, captions(name)) for name in [*own, *others]])
    of_words = tokens_of(tokenizer, words)
    in_style = tokens_of(tokenizer, [f"in {style}" for style in STYLES.values()])
    parts = (SCHEDULE.batch // 2, SCHEDULE.batch // 4, SCHEDULE.batch // 4)

    def loss(_: Tensor, generator: Generator) -> Tensor:
        def some(count: int, start: int, end: int) -> Tensor:
            return torch.randint(start, end, (count,), generator=generator)

        named = torch.cat([some(parts[0], 0, len(own)), some(parts[1], len(own), len(ids))])
        # half of the names alone
        way = (some(len(named), 0, 2 * len(STYLES)) - len(STYLES) + 1).clamp(min=0)
        word = some(parts[2], 0, len(words))
        texts = torch.cat([ids[named, way], of_words[word], in_style])
        wanted = torch.cat(
            [of_captions[named, way], of_captions[len(ids) + word, 0], targets(None, of_style)]
        )
        with torch.autocast("cpu", torch.bfloat16):
            read = embed_texts(clip, texts)
        return (1 - (read * wanted).sum(1)).mean()

    held_out = torch.tensor(icons.held_out)

    @torch.inference_mode()
    def figures() -> dict[str, float]:
        clip.eval()
        names = torch.cat([embed_texts(clip, part) for part in torch.split(ids[: len(own), 0], 256)])
        styled = torch.cat([embed_texts(clip, part) for part in torch.split(ids[: len(own), 2], 256)])
        clip.train()
        alike = (names * of_captions[: len(own), 0]).sum(1)
        return {
            "cosine of names": float(alike.mean()),
            "of held-out names": float(alike[held_out].mean()),
            "in a style": float((styled * of_captions[: len(own), 2]).sum(1).mean()),
        }

    train("clip_text", clip, schedule_from_flags(SCHEDULE), len(ids), loss, figures)
    save(clip, tokenizer)


if __name__ == "__main__":
    main()
