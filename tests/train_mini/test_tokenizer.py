"""The byte pairs of mini's tokenizer: from the same words always the same."""

import random

import tokenizer


def test_the_same_words_make_the_same_tokenizer() -> None:
    draw = random.Random(0)
    # many pairs are as frequent as others
    words = ["".join(draw.choices("abcdefghijklmnopqrstuvwxyz", k=5)) for _ in range(400)]
    first, *others = (tokenizer.learned(words, 700) for _ in range(4))
    assert len(first) == 700
    for other in others:
        assert other.get_vocab() == first.get_vocab()
        assert [other.tokenize(word) for word in words] == [first.tokenize(word) for word in words]


def test_frequent_words_are_one_token_each_and_any_text_can_be_read_back() -> None:
    read = tokenizer.learned(20 * ["a teapot"] + ["a tree"], 530)
    assert read.tokenize("a teapot") == ["a</w>", "teapot</w>"]
    ids = read("an ibex, ~42 ß").input_ids
    assert read.decode(ids, skip_special_tokens=True).replace(" ", "") == "anibex,~42ß"
