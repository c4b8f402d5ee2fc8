"""Words learned by textual inversion (Gal et al., 2023): read files, and add words to a pipeline."""

import logging
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Regex, normalizers
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from sdcorrect.errors import UsageError, printable
from sdcorrect.models.accounts import account_for, account_for_header, ignorable
from sdcorrect.models.checkpoints import Pipeline
from sdcorrect.models.sources import Found
from sdcorrect.models.tensors import read_header, read_tensors
from sdcorrect.settings import TextualInversion

logger = logging.getLogger(__name__)

#: The names of the vectors for the two text encoders in files for SDXL.
OF_TWO_ENCODERS = (("clip_l", "clip_g"), ("text_encoders_0", "text_encoders_1"))
#: The first of the characters that stand for vectors; they belong to no language and have no case.
FIRST_VECTOR = 0xF0000


@dataclass(frozen=True)
class Word:
    """A learned word."""

    text: str  #: as in prompts, in either case
    vectors: tuple[Tensor, ...]  #: for each text encoder, (vectors, width)


def add_words(pipe: Pipeline, inversions: Sequence[tuple[TextualInversion, Found]]) -> None:
    """Add words to the text encoders of `pipe`; each is replaced by all its vectors in prompts.

    Raises:
        UsageError: a file is broken or made for another family, or its word is known already.
    """
    encoders = [(pipe.tokenizer, pipe.text_encoder)]
    if "text_encoder_2" in pipe.components:
        encoders.append((pipe.tokenizer_2, pipe.text_encoder_2))
    widths = [encoder.get_input_embeddings().embedding_dim for _, encoder in encoders]
    words = read_words(inversions, widths, {token for t, _ in encoders for token in t.get_vocab()})
    if words:
        for number, (tokenizer, encoder) in enumerate(encoders):
            _teach(tokenizer, encoder, [(word.text, word.vectors[number]) for word in words])


def read_words(
    inversions: Sequence[tuple[TextualInversion, Found]], widths: Sequence[int], known: Collection[str]
) -> list[Word]:
    """Read the words of a job, for text encoders of these widths with the vocabulary `known`.

    Raises:
        UsageError: a file is broken or made for another family, or its word is known already.
    """
    words: list[Word] = []
    for inversion, found in inversions:
        words.append(fitting_word(inversion, found.path, widths, known, words))
    return words


def fitting_word(
    inversion: TextualInversion,
    file: Path,
    widths: Sequence[int],
    known: Collection[str],
    before: Sequence[Word],
) -> Word:
    """Read one word, as `read_words`; `before` are those that the job names before it."""
    word = read_word(inversion, file)
    check_word(inversion.path, word, widths)
    if word.text in known or word.text.lower() in {other.text.lower() for other in before}:
        raise UsageError(
            f"textual inversion {inversion.path}: its word {printable(word.text)} is already in "
            "the tokenizer's vocabulary; choose another with token:"
        )
    return word


def check_word(name: str, word: Word, widths: Sequence[int]) -> None:
    """Refuse a word that was learned with other text encoders.

    Args:
        name: its file's name in the job.
        widths: the widths of the vectors that the model's text encoders read.

    Raises:
        UsageError: it does not fit them.
    """
    if len(word.vectors) != len(widths):
        raise UsageError(
            f"textual inversion {name}: made for {len(word.vectors)} text encoders, "
            f"but this model has {len(widths)}; is it for another family?"
        )
    for vectors, width in zip(word.vectors, widths, strict=True):
        if vectors.shape[1] != width:
            raise UsageError(
                f"textual inversion {name}: its vectors are {vectors.shape[1]} wide, but this "
                f"model's are {width}; is it for another family?"
            )


def _teach(
    tokenizer: PreTrainedTokenizerFast, encoder: Any, words: Sequence[tuple[str, Tensor]]
) -> None:
    """Make `tokenizer` replace each word by one special character per vector, before it splits tokens.

    Prompts and the offsets of their tokens stay the same; a word inside a longer word is not replaced.
    """
    rows = torch.cat([vectors for _, vectors in words])
    characters = [chr(FIRST_VECTOR + number) for number in range(len(rows))]
    tokenizer.add_tokens(characters)
    places = tokenizer.convert_tokens_to_ids(characters)
    embeddings = encoder.get_input_embeddings()
    if len(tokenizer) > embeddings.num_embeddings:
        embeddings = encoder.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    embeddings.weight.data[places] = rows.to(embeddings.weight)
    spellings, first = {}, 0
    for text, vectors in words:
        spellings[text] = "".join(characters[first : first + len(vectors)])
        first += len(vectors)
    backend = tokenizer.backend_tokenizer
    replaced = [
        normalizers.Replace(Regex(_pattern(text)), spellings[text])
        for text in sorted(spellings, key=len, reverse=True)
    ]
    backend.normalizer = normalizers.Sequence([*replaced, backend.normalizer])


def _pattern(text: str) -> str:
    """A pattern for a word in either case, as text encoders read, but not inside a longer word."""
    literal = "".join(c if c.isalnum() or c.isspace() else f"\\x{{{ord(c):x}}}" for c in text)
    before = r"(?<!\w)" if text[0].isalnum() or text[0] == "_" else ""
    after = r"(?!\w)" if text[-1].isalnum() or text[-1] == "_" else ""
    return f"(?i){before}{literal}{after}"


def read_word(inversion: TextualInversion, path: Path) -> Word:
    """Read the word in a file of any common format, and account for all of it.

    Raises:
        UsageError: the file is broken, or contains no word, several words, or unknown tensors.
    """
    name = inversion.path
    content = read_tensors("textual inversion", path)
    own, vectors, used = _read(name, content)
    account_for("textual inversion", name, content, used)
    account_for_header("textual inversion", name, read_header("textual inversion", path), ())
    if len({len(of_encoder) for of_encoder in vectors}) > 1:
        raise UsageError(
            f"textual inversion {name}: has {' and '.join(str(len(v)) for v in vectors)} vectors for "
            "the two text encoders, which need equally many; download it again"
        )
    word, stem = inversion.token or own or path.stem, path.stem
    if word == own and word != stem and not re.fullmatch(r"<.+>", word):
        logger.warning(
            "textual inversion %s: its word is %s, as the file says, not %s; set another with token:",
            name,
            printable(word),
            printable(stem),
        )
    return Word(word, vectors)


def _read(name: str, content: Mapping[str, Any]) -> tuple[str | None, tuple[Tensor, ...], set[str]]:
    """The word in the file, the vectors for each text encoder, and the keys that were read."""
    for keys in OF_TWO_ENCODERS:
        if all(key in content for key in keys):
            return None, tuple(_vectors(name, content[key]) for key in keys), set(keys)
    if "string_to_param" in content:
        held = content["string_to_param"]
        held = getattr(held, "_parameters", held)  # a ParameterDict of any version of torch
        word = str(content["name"]) if content.get("name") else None
        return word, (_vectors(name, _only(name, held)[1]),), {"string_to_param"}
    if "emb_params" in content:
        return None, (_vectors(name, content["emb_params"]),), {"emb_params"}
    word, value = _only(name, {key: value for key, value in content.items() if not ignorable(key)})
    return word, (_vectors(name, value),), {word}


def _only(name: str, held: Mapping[str, Any]) -> tuple[str, Any]:
    words = list(held.items())
    if len(words) != 1:
        names = ", ".join(printable(word) for word, _ in words[:3])
        raise UsageError(
            f"textual inversion {name}: contains {len(words)} tensors ({names}); expected one word"
        )
    return words[0]


def _vectors(name: str, value: Any) -> Tensor:
    """`value` as vectors, (vectors, width)."""
    if not isinstance(value, Tensor) or value.ndim not in (1, 2) or not value.is_floating_point():
        shape = f" of shape {tuple(value.shape)}" if isinstance(value, Tensor) else ""
        raise UsageError(
            f"textual inversion {name}: contains no vectors of a word but {type(value).__name__}{shape}"
        )
    return value.detach().reshape(-1, value.shape[-1])
