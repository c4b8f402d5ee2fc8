"""Align the words of two prompts (Hertz et al., Prompt-to-Prompt, ICLR 2023).

Follows `seq_aligner` of the public implementation, so that the same prompts give the same results.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from string import punctuation

import torch
from torch import Tensor
from typing_extensions import Self

from sdcorrect.core.plan import Words, check_word_for_word
from sdcorrect.errors import UsageError


@dataclass(frozen=True)
class Prompt:
    """A prompt as the text encoder reads it."""

    text: str
    tokens: tuple[int, ...]  #: with start and end, without padding
    words: tuple[str, ...]  #: separated by spaces
    positions: tuple[
        tuple[int, ...], ...
    ]  #: for each word, the positions of its tokens; empty if it was cut off


@dataclass(frozen=True)
class Alignment:
    """How the target takes over the source's cross-attention, for a batch of pictures."""

    #: (batch, 1, source tokens, target tokens): the weight of each source token for each target token
    take: Tensor
    #: (batch, 1, 1, target tokens): 1 for tokens that take the source's attention, 0 for new ones
    known: Tensor
    #: (batch, 1, 1, target tokens): the equalizer
    scale: Tensor

    @classmethod
    def of(
        cls,
        sources: Sequence[Prompt],
        targets: Sequence[Prompt],
        words: Words,
        equalizer: Mapping[str, float],
        length: int,
    ) -> Self:
        """Align each of `sources` with its target; the encoder reads `length` tokens.

        Raises:
            UsageError: with `replace`, the numbers of words differ; or a word of the equalizer is not
                in a target.
        """
        pairs = list(zip(sources, targets, strict=True))
        aligned = [
            replaced(s, t, length) if words == "replace" else refined(s, t, length) for s, t in pairs
        ]
        take, known = (torch.stack(parts)[:, None] for parts in zip(*aligned, strict=True))
        scale = torch.stack([equalized(t, equalizer, length) for t in targets])
        return cls(take, known[..., None, :], scale[:, None, None])

    def to(self, device: torch.device, dtype: torch.dtype) -> "Alignment":
        parts = (self.take, self.known, self.scale)
        return Alignment(*(part.to(device, dtype) for part in parts))

    def edit(self, source: Tensor, own: Tensor) -> Tensor:
        """The target's probabilities (batch, heads, pixels, tokens), edited to follow the source's."""
        return (source @ self.take * self.known + own * (1 - self.known)) * self.scale


def replaced(source: Prompt, target: Prompt, length: int) -> tuple[Tensor, Tensor]:
    """Word for word: each word takes the attention of the word in the same place.

    Raises:
        UsageError: the prompts have different numbers of words.
    """
    check_word_for_word(source.text, target.text)
    swapped = [
        (theirs, ours)
        for theirs, ours, was, now in zip(
            source.positions, target.positions, source.words, target.words, strict=True
        )
        if was != now and theirs and ours
    ]
    take = torch.zeros(length, length)
    i = j = 0
    for theirs, ours in swapped:
        while i < theirs[0]:
            take[i, j] = 1
            i, j = i + 1, j + 1
        if len(theirs) == len(ours):
            take[list(theirs), list(ours)] = 1
        else:
            for position in theirs:
                take[position, list(ours)] = 1 / len(ours)
        i, j = theirs[-1] + 1, ours[-1] + 1
    # after the last replaced word, the public implementation aligns by position until a prompt ends
    for position in range(j, j + length - max(i, j)):
        take[position, position] = 1
    return take, torch.ones(length)


def refined(source: Prompt, target: Prompt, length: int) -> tuple[Tensor, Tensor]:
    """Align the tokens that both prompts have in the same order.

    Global alignment (Needleman-Wunsch) with gap 0, match 1, mismatch -1 never pairs different tokens.
    """
    ours, theirs = target.tokens, source.tokens
    score = [[0] * (len(ours) + 1) for _ in range(len(theirs) + 1)]
    for i, their in enumerate(theirs):
        for j, our in enumerate(ours):
            pair = score[i][j] + (1 if their == our else -1)
            score[i + 1][j + 1] = max(score[i + 1][j], score[i][j + 1], pair)
    take, known = torch.zeros(length, length), torch.zeros(length)
    i, j = len(theirs), len(ours)
    while i and j:
        if score[i][j] == score[i][j - 1]:
            j -= 1
        elif score[i][j] == score[i - 1][j]:
            i -= 1
        else:
            i, j = i - 1, j - 1
            take[i, j] = known[j] = 1
    padding = range(len(ours), length)
    take[padding, padding] = 1
    known[len(ours) :] = 1
    return take, known


def equalized(target: Prompt, equalizer: Mapping[str, float], length: int) -> Tensor:
    """The weight of each token of `target` (length,): that of its word in the equalizer, else 1.

    Words match with and without surrounding punctuation; the public implementation only splits at
    spaces.

    Raises:
        UsageError: a word of the equalizer is not in `target`.
    """
    scale = torch.ones(length)
    for word, factor in equalizer.items():
        scale[list(tokens_of(word, target, "equalizer"))] = factor
    return scale


def tokens_of(word: str, prompt: Prompt, setting: str) -> tuple[int, ...]:
    """The positions of the tokens of `word` in `prompt`, with or without punctuation around it.

    Args:
        setting: the setting that names the word, for messages.

    Raises:
        UsageError: the word is not in the prompt.
    """
    places = [
        place for place, name in enumerate(prompt.words) if word in (name, name.strip(punctuation))
    ]
    if not places:
        words = " ".join(name.strip(punctuation) for name in prompt.words)
        raise UsageError(
            f"{setting}: the prompt {prompt.text!r} has no word {word!r}; its words: {words}"
        )
    return tuple(token for place in places for token in prompt.positions[place])
