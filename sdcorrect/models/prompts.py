"""Prompts to embeddings: plain as diffusers reads them, or with weights and of any length.

The weighted syntax is that of the web UIs: (words) weigh 1.1 times, [words] 1 / 1.1 times, (words:1.4)
1.4 times, nested ones their product; a backslash before a bracket means the bracket.
"""

import logging
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from diffusers import StableDiffusionXLPipeline
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from sdcorrect.models.checkpoints import Pipeline

EMPHASIS = 1.1
_CLOSING = {")": ("(", EMPHASIS), "]": ("[", 1 / EMPHASIS)}
_SYNTAX = re.compile(
    r"\\(?P<plain>[()\[\]\\])|:\s*(?P<weight>\d*\.?\d+)\s*\)|(?P<bracket>[()\[\]])|[^\\()\[\]:]+|.", re.S
)

logger = logging.getLogger(__name__)


class Encoding(NamedTuple):
    """A prompt as the U-Net reads it."""

    embeddings: Tensor  #: (1, tokens, channels)
    pooled: Tensor | None = None  #: (1, channels), of the SDXL's second text encoder


def encode_plain(pipe: Pipeline, prompt: str, device: torch.device) -> Encoding:
    """`prompt` as diffusers reads it; a warning names what lies beyond the text encoder's limit."""
    _warn_if_cut(pipe.tokenizer, pipe.maybe_convert_prompt(prompt, pipe.tokenizer))
    if not isinstance(pipe, StableDiffusionXLPipeline):
        return Encoding(pipe.encode_prompt(prompt, device, 1, False)[0])
    embeddings, _, pooled, _ = pipe.encode_prompt(
        prompt, device=device, num_images_per_prompt=1, do_classifier_free_guidance=False
    )
    return _silenced(pipe, prompt, Encoding(embeddings, pooled))


def encode_weighted(pipe: Pipeline, prompt: str, device: torch.device) -> Encoding:
    """`prompt` of any length in the weighted syntax, its chunks side by side.

    A token of weight w has the embedding z0 + w (z - z0), where z0 is that of the empty prompt.
    """
    if not isinstance(pipe, StableDiffusionXLPipeline):
        embeddings, _ = _through(pipe, pipe.tokenizer, pipe.text_encoder, prompt, device, hidden=None)
        return Encoding(embeddings)
    first, _ = _through(pipe, pipe.tokenizer, pipe.text_encoder, prompt, device, hidden=-2)
    second, pooled = _through(pipe, pipe.tokenizer_2, pipe.text_encoder_2, prompt, device, hidden=-2)
    return _silenced(pipe, prompt, Encoding(torch.cat([first, second], dim=-1), pooled))


def count_chunks(pipe: Pipeline, prompt: str) -> int:
    """How many times the text encoder must read to see all of `prompt` in the weighted syntax."""
    return len(_chunks(pipe, pipe.tokenizer, prompt))


def parse_weights(prompt: str) -> list[tuple[str, float]]:
    """The pieces of `prompt` and their weights. A bracket that is never closed reaches to the end.

    >>> parse_weights("a (red:1.5) [old] house")
    [('a ', 1.0), ('red', 1.5), (' ', 1.0), ('old', 0.9090909090909091), (' house', 1.0)]
    """
    pieces: list[tuple[str, float]] = []
    opened: list[tuple[str, int]] = []

    def close(bracket: str, factor: float) -> bool:
        if not opened or opened[-1][0] != bracket:
            return False
        _, first = opened.pop()
        pieces[first:] = [(text, weight * factor) for text, weight in pieces[first:]]
        return True

    for match in _SYNTAX.finditer(prompt):
        text = match["plain"] or match[0]
        opening, factor = _CLOSING.get(match["bracket"], ("", 1.0))
        if match["weight"]:
            opening, factor = "(", float(match["weight"])
        if match["bracket"] in ("(", "["):
            opened.append((text, len(pieces)))
        elif not close(opening, factor):
            pieces.append((text, 1.0))
    while opened:
        close(*_CLOSING[")" if opened[-1][0] == "(" else "]"])
    return _joined(pieces)


def _joined(pieces: list[tuple[str, float]]) -> list[tuple[str, float]]:
    joined: list[tuple[str, float]] = []
    for text, weight in pieces:
        if joined and joined[-1][1] == weight:
            joined[-1] = (joined[-1][0] + text, weight)
        else:
            joined.append((text, weight))
    return joined


def _through(
    pipe: Pipeline,
    tokenizer: PreTrainedTokenizerBase,
    text_encoder: Any,
    prompt: str,
    device: torch.device,
    *,
    hidden: int | None,
) -> tuple[Tensor, Tensor]:
    """The weighted embeddings of one text encoder, and what it pools from the first chunk."""

    def read(ids: list[int]) -> tuple[Tensor, Tensor]:
        padding = [tokenizer.pad_token_id] * (tokenizer.model_max_length - 2 - len(ids))
        whole = [tokenizer.bos_token_id, *ids, tokenizer.eos_token_id, *padding]
        output = text_encoder(
            torch.tensor([whole], device=device), output_hidden_states=hidden is not None
        )
        return (output[0] if hidden is None else output.hidden_states[hidden]), output[0]

    empty, _ = read([])
    parts, pooled = [], []
    for chunk in _chunks(pipe, tokenizer, prompt):
        embeddings, pool = read([token for token, _ in chunk])
        weights = torch.ones(empty.shape[1], device=empty.device, dtype=empty.dtype)
        weights[1 : len(chunk) + 1] = torch.tensor([weight for _, weight in chunk])
        parts.append(
            torch.where(
                weights[:, None] == 1, embeddings, empty + weights[:, None] * (embeddings - empty)
            )
        )
        pooled.append(pool)
    return torch.cat(parts, dim=1), pooled[0]


def _chunks(
    pipe: Pipeline, tokenizer: PreTrainedTokenizerBase, prompt: str
) -> list[list[tuple[int, float]]]:
    """Tokens with their weights, in lengths that the text encoder reads, parted between words."""
    tokens = [
        (token, weight)
        for text, weight in parse_weights(prompt)
        for token in tokenizer(
            pipe.maybe_convert_prompt(text, tokenizer), add_special_tokens=False, verbose=False
        ).input_ids
    ]
    limit = tokenizer.model_max_length - 2  # the start and end tokens
    return list(_parted(tokenizer, tokens, limit)) or [[]]


def _parted(
    tokenizer: PreTrainedTokenizerBase, tokens: list[tuple[int, float]], limit: int
) -> Iterator[list[tuple[int, float]]]:
    while len(tokens) > limit:
        words = tokenizer.convert_ids_to_tokens([token for token, _ in tokens[:limit]])
        ends = [place for place, word in enumerate(words, 1) if word.endswith("</w>")]
        cut = ends[-1] if ends else limit
        yield tokens[:cut]
        tokens = tokens[cut:]
    if tokens:
        yield tokens


def _silenced(pipe: StableDiffusionXLPipeline, prompt: str, encoding: Encoding) -> Encoding:
    """The empty prompt of an SDXL that was trained with zeros in its place."""
    if prompt or not pipe.config.force_zeros_for_empty_prompt:
        return encoding
    assert encoding.pooled is not None
    return Encoding(torch.zeros_like(encoding.embeddings), torch.zeros_like(encoding.pooled))


def _warn_if_cut(tokenizer: PreTrainedTokenizerBase, prompt: str) -> None:
    limit = tokenizer.model_max_length - 2  # the start and end tokens
    tokens = tokenizer(prompt, add_special_tokens=False, verbose=False).input_ids
    if len(tokens) > limit:
        logger.warning(
            "the prompt has %d tokens and the text encoder reads %d; cut off: %r "
            "(prompt_syntax: weighted reads all)",
            len(tokens),
            limit,
            tokenizer.decode(tokens[limit:]),
        )
