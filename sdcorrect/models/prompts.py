"""Encode prompts: plain ones as diffusers does, or with weights and at any length with compel.

The weighted syntax is that of web UIs (sdcorrect.core.syntax).
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
    """An encoded prompt."""

    embeddings: Tensor  #: (1, tokens, channels)
    pooled: Tensor | None = None  #: (1, channels), from SDXL's second text encoder


def encode_plain(pipe: Pipeline, prompt: str, device: torch.device) -> Encoding:
    """Encode `prompt` as diffusers does; warn of words beyond the text encoder's limit, and of syntax
    that only web UIs would interpret.
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
    """Encode a `prompt` of any length in the weighted syntax, with its chunks one after the other.

    A token of weight w above 1 gets the embedding z0 + w (z - z0), where z0 is the empty prompt's; for a
    weight below 1, compel moves the prompt's embeddings towards those with these words masked. BREAK
    starts a new chunk.
    """
    _look_over(prompt, weighted=True)
    first = _Weighted(pipe, pipe.tokenizer, pipe.text_encoder, prompt)
    if not isinstance(pipe, StableDiffusionXLPipeline):
        return Encoding(first.embeddings(device))
    second = _Weighted(pipe, pipe.tokenizer_2, pipe.text_encoder_2, prompt)
    embeddings = torch.cat([first.embeddings(device), second.embeddings(device)], dim=-1)
    return _silenced(pipe, prompt, Encoding(embeddings, second.pooled(device)))


def count_chunks(pipe: Pipeline, prompt: str) -> int:
    """How many chunks the text encoder needs for `prompt` in the weighted syntax."""
    return _Weighted(pipe, pipe.tokenizer, pipe.text_encoder, prompt).chunks()


class _Weighted:
    """A weighted prompt, prepared for one of the text encoders."""

    def __init__(
        self, pipe: Pipeline, tokenizer: PreTrainedTokenizerBase, text_encoder: Any, prompt: str
    ) -> None:
        # takes a quarter of a second to import, and few jobs need it
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
        #: texts and weights, split at each BREAK
        self.readings = [
            self._with_tokens([(pipe.maybe_convert_prompt(t, tokenizer), w) for t, w in pieces])
            for pieces in readings(parse_weights(prompt))
        ]

    def _with_tokens(self, pieces: list[tuple[str, float]]) -> tuple[list[str], list[float]]:
        tokens = self.compel.get_token_ids([t for t, _ in pieces], False) if pieces else []
        # compel cannot weigh an empty text, as in "[ ]"
        pieces = [piece for piece, ids in zip(pieces, tokens, strict=True) if ids] or [("", 1.0)]
        return [text for text, _ in pieces], [weight for _, weight in pieces]

    def chunks(self) -> int:
        ids = [
            self.compel.get_token_ids_and_expand_weights(texts, weights, device="cpu")[0]
            for texts, weights in self.readings
        ]
        return sum(len(of_reading) for of_reading in ids) // self.compel.max_token_count

    def embeddings(self, device: torch.device) -> Tensor:
        """The embeddings, (1, tokens, channels)."""
        each = [
            self.compel.get_embeddings_for_weighted_prompt_fragments([texts], [weights], device=device)
            for texts, weights in self.readings
        ]
        return torch.cat(each, dim=1)

    def pooled(self, device: torch.device) -> Tensor:
        """The pooled embedding of the first chunk, unweighted, (1, channels)."""
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
    """`encoding`, or zeros for the empty prompt of an SDXL that was trained with zeros for it."""
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
            "the prompt has %d tokens, but the text encoder reads only %d; cut off: %r "
            "(prompt_syntax: weighted reads everything)",
            len(tokens),
            limit,
            _from_word_at(prompt, read.offset_mapping[limit][0]),
        )


def _from_word_at(prompt: str, place: int) -> str:
    """The rest of `prompt`, from the first letter of the word at `place`."""
    return prompt[len(re.sub(r"\S+$", "", prompt[:place])) :]
