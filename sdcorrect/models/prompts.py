"""Prompts to embeddings: plain as diffusers reads them, or with weights and of any length by compel.

The weighted syntax is that of the web UIs (sdcorrect.core.syntax).
"""

import logging
import re
from typing import Any, NamedTuple

import torch
from diffusers import StableDiffusionXLPipeline
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from sdcorrect.core.syntax import check_networks, parse_weights, readings, unread
from sdcorrect.errors import UsageError
from sdcorrect.models.checkpoints import Pipeline

logger = logging.getLogger(__name__)


class Encoding(NamedTuple):
    """A prompt as the U-Net reads it."""

    embeddings: Tensor  #: (1, tokens, channels)
    pooled: Tensor | None = None  #: (1, channels), of the SDXL's second text encoder


def encode_plain(pipe: Pipeline, prompt: str, device: torch.device) -> Encoding:
    """`prompt` as diffusers reads it; warnings name what lies beyond the text encoder's limit, and what
    a web UI would have read as more than words.
    """
    _look_over(prompt, weighted=False)
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
    What follows BREAK is read anew.
    """
    _look_over(prompt, weighted=True)
    first = _Weighted(pipe, pipe.tokenizer, pipe.text_encoder, prompt)
    if not isinstance(pipe, StableDiffusionXLPipeline):
        return Encoding(first.embeddings(device))
    second = _Weighted(pipe, pipe.tokenizer_2, pipe.text_encoder_2, prompt)
    embeddings = torch.cat([first.embeddings(device), second.embeddings(device)], dim=-1)
    return _silenced(pipe, prompt, Encoding(embeddings, second.pooled(device)))


def count_chunks(pipe: Pipeline, prompt: str) -> int:
    """How many times the text encoder must read to see all of `prompt` in the weighted syntax."""
    return _Weighted(pipe, pipe.tokenizer, pipe.text_encoder, prompt).chunks()


class _Weighted:
    """A weighted prompt before one of the text encoders."""

    def __init__(
        self,
        pipe: Pipeline,
        tokenizer: PreTrainedTokenizerBase,
        text_encoder: Any,
        prompt: str,
    ) -> None:
        # which few jobs need, and which takes a quarter of a second
        from compel import EmbeddingsProvider, ReturnedEmbeddingsType, SplitLongTextMode

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
        #: the texts and their weights, from each BREAK to the next
        self.readings = [
            self._with_tokens([(pipe.maybe_convert_prompt(t, tokenizer), w) for t, w in pieces])
            for pieces in readings(parse_weights(prompt))
        ]

    def _with_tokens(self, pieces: list[tuple[str, float]]) -> tuple[list[str], list[float]]:
        tokens = self.compel.get_token_ids([t for t, _ in pieces], False) if pieces else []
        # compel has no place for a weight on nothing, as in "[ ]"
        pieces = [piece for piece, ids in zip(pieces, tokens, strict=True) if ids] or [("", 1.0)]
        return [text for text, _ in pieces], [weight for _, weight in pieces]

    def chunks(self) -> int:
        ids = [
            self.compel.get_token_ids_and_expand_weights(texts, weights, device="cpu")[0]
            for texts, weights in self.readings
        ]
        return sum(len(of_reading) for of_reading in ids) // self.compel.max_token_count

    def embeddings(self, device: torch.device) -> Tensor:
        """(1, tokens, channels)."""
        each = [
            self.compel.get_embeddings_for_weighted_prompt_fragments([texts], [weights], device=device)
            for texts, weights in self.readings
        ]
        return torch.cat(each, dim=1)

    def pooled(self, device: torch.device) -> Tensor:
        """(1, channels), of the first chunk, unweighted."""
        texts, _ = self.readings[0]
        return self.compel.get_pooled_embeddings(["".join(texts)], device=device)


def _look_over(prompt: str, *, weighted: bool) -> None:
    try:
        check_networks(prompt)
    except ValueError as error:
        raise UsageError(str(error)) from None
    for what, remedy in unread(prompt, weighted=weighted):
        logger.warning("%s in the prompt %r: %s", what, prompt, remedy)


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
