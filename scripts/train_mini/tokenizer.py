"""Make mini's tokenizer: CLIP's byte-pair encoding, learned from the names of icons and other words."""

import json
from collections.abc import Iterable

from data import STYLES, Icons, say
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from training import RUNS
from transformers import CLIPTokenizer
from words import vocabulary

SIZE, POSITIONS = 4096, 24
END_OF_WORD, SPECIAL = "</w>", ("<|startoftext|>", "<|endoftext|>")


def learned(texts: Iterable[str], size: int = SIZE) -> CLIPTokenizer:
    """Up to `size` tokens: the letters, each also as end of a word, and frequent parts of `texts`."""
    learner = Tokenizer(models.BPE(end_of_word_suffix=END_OF_WORD))
    learner.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    endings = [letter + END_OF_WORD for letter in alphabet]
    trainer = trainers.BpeTrainer(
        vocab_size=size - len(SPECIAL),
        initial_alphabet=alphabet,
        # first, to give them fixed ids; otherwise the order of equally frequent merges is random
        special_tokens=endings,
        end_of_word_suffix=END_OF_WORD,
        show_progress=False,
    )
    learner.train_from_iterator(texts, trainer)
    merges = [tuple(pair) for pair in json.loads(learner.to_str())["model"]["merges"]]
    tokens = dict.fromkeys(
        [*alphabet, *endings, *(first + second for first, second in merges), *SPECIAL]
    )
    return CLIPTokenizer(
        vocab={token: index for index, token in enumerate(tokens)},
        merges=merges,
        model_max_length=POSITIONS,
    )


def main() -> None:
    icons = Icons()
    names = [icons.caption(index) for index in range(len(icons.names))]
    often = 50 * [*names, *STYLES.values(), "a in"]
    tokenizer = learned([*often, *vocabulary(icons)])
    tokenizer.save_pretrained(RUNS / "tokenizer")
    split = tokenizer.tokenize("an eggplant in 3d render style")
    say(f"{len(tokenizer)} tokens; {split}")


if __name__ == "__main__":
    main()
