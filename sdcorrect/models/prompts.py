"""Prompts to embeddings: plain as diffusers reads them, or with weights and of any length by compel.

The weighted syntax is that of the web UIs: (words) weigh 1.1 times, [words] 1 / 1.1 times, (words:1.4)
1.4 times, nested ones their product; a backslash before a bracket means the bracket.
"""

import logging
import re
from typing import Any, NamedTuple

import torch
from compel import EmbeddingsProvider, ReturnedEmbeddingsType, SplitLongTextMode
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

    A token of weight w above 1 has the embedding z0 + w (z - z0), where z0 is that of the empty prompt;
    below 1, compel draws the prompt's embeddings towards those that it has with these words masked.
    """
    first = _Weighted(pipe, pipe.tokenizer, pipe.text_encoder, prompt)
    if not isinstance(pipe, StableDiffusionXLPipeline):
        return Encoding(first.embeddings(device))
    second = _Weighted(pipe, pipe.tokenizer_2, pipe.text_encoder_2, prompt)
    embeddings = torch.cat([first.embeddings(device), second.embeddings(device)], dim=-1)
    return _silenced(pipe, prompt, Encoding(embeddings, second.pooled(device)))


def count_chunks(pipe: Pipeline, prompt: str) -> int:
    """How many times the text encoder must read to see all of `prompt` in the weighted syntax."""
    return _Weighted(pipe, pipe.tokenizer, pipe.text_encoder, prompt).chunks()


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


class _Weighted:
    """A weighted prompt before one of the text encoders."""

    def __init__(
        self,
        pipe: Pipeline,
        tokenizer: PreTrainedTokenizerBase,
        text_encoder: Any,
        prompt: str,
    ) -> None:
        xl = isinstance(pipe, StableDiffusionXLPipeline)
        self.compel = EmbeddingsProvider(
            tokenizer,
            text_encoder,
            truncate=False,
            returned_embeddings_type=ReturnedEmbeddingsType.PENULTIMATE_HIDDEN_STATES_NON_NORMALIZED
            if xl
            else ReturnedEmbeddingsType.LAST_HIDDEN_STATES_NORMALIZED,
            split_long_text_mode=SplitLongTextMode.PHRASES,
        )
        pieces = [
            (pipe.maybe_convert_prompt(text, tokenizer), weight)
            for text, weight in parse_weights(prompt)
        ]
        tokens = self.compel.get_token_ids([t for t, _ in pieces], False) if pieces else []
        # compel has no place for a weight on nothing, as in "[ ]"
        pieces = [piece for piece, ids in zip(pieces, tokens, strict=True) if ids] or [("", 1.0)]
        self.texts, self.weights = (list(column) for column in zip(*pieces, strict=True))

    def chunks(self) -> int:
        ids, *_ = self.compel.get_token_ids_and_expand_weights(self.texts, self.weights, device="cpu")
        return len(ids) // self.compel.max_token_count

    def embeddings(self, device: torch.device) -> Tensor:
        """(1, tokens, channels)."""
        return self.compel.get_embeddings_for_weighted_prompt_fragments(
            [self.texts], [self.weights], device=device
        )

    def pooled(self, device: torch.device) -> Tensor:
        """(1, channels), of the first chunk, unweighted."""
        return self.compel.get_pooled_embeddings(["".join(self.texts)], device=device)


def _silenced(pipe: StableDiffusionXLPipeline, prompt: str, encoding: Encoding) -> Encoding:
    """The empty prompt of an SDXL that was trained with zeros in its place."""
    if prompt or not pipe.config.force_zeros_for_empty_prompt:
        return encoding
    assert encoding.pooled is not None
    return Encoding(torch.zeros_like(encoding.embeddings), torch.zeros_like(encoding.pooled))


def _warn_if_cut(tokenizer: PreTrainedTokenizerBase, prompt: str) -> None:
    limit = tokenizer.model_max_length - 2  # the start and end tokens
    read = tokenizer(prompt, add_special_tokens=False, verbose=False, return_offsets_mapping=True)
    tokens = read.input_ids
    if len(tokens) > limit:
        logger.warning(
            "the prompt has %d tokens and the text encoder reads %d; cut off: %r "
            "(prompt_syntax: weighted reads all)",
            len(tokens),
            limit,
            _from_word_at(prompt, read.offset_mapping[limit][0]),
        )


def _from_word_at(prompt: str, place: int) -> str:
    """The rest of `prompt`, from the first letter of the word at `place`."""
    return prompt[len(re.sub(r"\S+$", "", prompt[:place])) :]
