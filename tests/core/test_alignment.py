import pytest
import torch
from torch import Tensor

from sdcorrect.core.alignment import Alignment, Prompt, equalized, refined, replaced
from sdcorrect.errors import UsageError
from sdcorrect.models import Model

LENGTH = 10


def prompt(text: str, **split: int) -> Prompt:
    """A prompt of one token a word, or of as many as `split` says."""
    ids, positions = [0], []
    for word in text.split():
        first = len(ids)
        ids += [hash((word, i)) for i in range(split.get(word, 1))]
        positions.append(tuple(range(first, len(ids))))
    return Prompt(text, (*ids, 1), tuple(text.split()), tuple(positions))


def test_equal_prompts_align_each_token_with_itself() -> None:
    same = prompt("a cat in the snow")
    for take, known in (replaced(same, same, LENGTH), refined(same, same, LENGTH)):
        assert torch.equal(take, torch.eye(LENGTH))
        assert torch.equal(known, torch.ones(LENGTH))


def test_a_replaced_word_reads_the_word_in_its_place() -> None:
    take, known = replaced(
        prompt("a cat sits", cat=1), prompt("a hippopotamus sits", hippopotamus=2), LENGTH
    )
    assert take[:, 2].tolist() == take[:, 3].tolist() == [0, 0, 0.5, 0, 0, 0, 0, 0, 0, 0]
    assert take[1, 1] == 1
    assert known.all()


def test_a_word_of_as_many_tokens_is_read_token_by_token() -> None:
    take, _ = replaced(prompt("a tabby sits", tabby=2), prompt("a poodle sits", poodle=2), LENGTH)
    assert torch.equal(take, torch.eye(LENGTH))


def test_a_refined_prompt_reads_the_words_it_shares_and_its_own_are_new() -> None:
    take, known = refined(prompt("a cat in snow"), prompt("a fluffy cat in deep snow"), LENGTH)
    # start, a, fluffy, cat, in, deep, snow, end, padding
    assert known.tolist() == [1, 1, 0, 1, 1, 0, 1, 1, 1, 1]
    assert [int(take[:, j].argmax()) for j in (0, 1, 3, 4, 6, 7)] == [0, 1, 2, 3, 4, 5]
    assert not take[:, 2].any()


def reads(take: Tensor, tokens: int) -> list[list[int]]:
    """For each of the first target tokens the source tokens that it reads."""
    return [take[:, j].nonzero().flatten().tolist() for j in range(tokens)]


def test_the_replacements_of_the_public_notebook() -> None:
    source = prompt("A painting of a squirrel eating a burger", squirrel=2)
    lion = prompt("A painting of a lion eating a burger")
    take, _ = replaced(source, lion, 14)
    # start, A, painting, of, a, then lion, which reads both of squirrel's tokens
    assert reads(take, 6) == [[0], [1], [2], [3], [4], [5, 6]]
    assert take[5, 5] == take[6, 5] == 1
    # behind it tokens read by their own place, though the source's words stand one further on, and the
    # last place is read by none
    assert reads(take[:, 6:], 8) == [[6], [7], [8], [9], [10], [11], [12], []]
    back, _ = replaced(lion, source, 14)
    assert reads(back, 7) == [[0], [1], [2], [3], [4], [5], [5]]
    assert back[5, 5] == back[5, 6] == 0.5
    assert reads(back[:, 7:], 7) == [[7], [8], [9], [10], [11], [12], [13]]


def test_a_replacement_of_two_words_takes_those_between_them_along() -> None:
    source = prompt("A painting of a squirrel eating a burger", squirrel=2)
    target = prompt("A painting of a lion eating a lasagne", lasagne=2)
    take, _ = replaced(source, target, 14)
    # lion, eating, a, then the two tokens of lasagne
    assert reads(take[:, 5:], 5) == [[5, 6], [7], [8], [9], [9]]
    assert reads(take[:, 10:], 4) == [[10], [11], [12], [13]]


def test_a_word_that_stands_twice_is_replaced_only_where_it_differs() -> None:
    take, _ = replaced(prompt("a cat and a cat"), prompt("a cat and a hippo", hippo=2), LENGTH)
    assert reads(take, 7) == [[0], [1], [2], [3], [4], [5], [5]]


@pytest.mark.parametrize(
    ("source", "target", "expected"),
    [
        (
            "A painting of a squirrel eating a burger",
            "A neoclassical painting of a squirrel eating a burger",
            [0, 1, None, 2, 3, 4, 5, 6, 7, 8, 9],
        ),
        (
            "a photo of a house on a mountain",
            "a photo of a house on a mountain at winter",
            [0, 1, 2, 3, 4, 5, 6, 7, 8, None, None, 9],
        ),
        ("soup", "pea soup", [0, None, 1, 2]),
        (
            "a cat sitting next to a mirror",
            "a silver cat sculpture sitting next to a mirror",
            [0, 1, None, 2, None, 3, 4, 5, 6, 7, 8],
        ),
        # of two that could be it, it is the first
        ("a cat", "a cat cat", [0, 1, 2, None, 3]),
        ("a cat cat", "a cat", [0, 1, 2, 4]),
        # of two tokens in another order one alone can be kept
        ("red cat", "cat red", [0, 2, None, 3]),
    ],
)
def test_the_refinements_of_the_public_notebook(
    source: str, target: str, expected: list[int | None]
) -> None:
    take, known = refined(prompt(source), prompt(target), 14)
    assert reads(take, len(expected)) == [[] if place is None else [place] for place in expected]
    assert known[: len(expected)].tolist() == [place is not None for place in expected]
    assert known[len(expected) :].all()
    padding = list(range(len(expected), 14))
    assert reads(take[:, len(expected) :], len(padding)) == [[place] for place in padding]


def test_prompts_of_different_length_are_not_replaced_word_for_word() -> None:
    with pytest.raises(UsageError, match="'a cat' has 2 words, 'a big dog' has 3.*p2p-refine"):
        replaced(prompt("a cat"), prompt("a big dog"), LENGTH)


def test_the_equalizer_weighs_every_token_of_its_words() -> None:
    scale = equalized(prompt("a snowy, snowy hill", snowy=2), {"hill": 3, "snowy": 0.5}, LENGTH)
    assert scale.tolist() == [1, 1, 0.5, 0.5, 0.5, 3, 1, 1, 1, 1]
    as_it_stands = equalized(prompt("a snowy, snowy hill"), {"snowy,": 2}, LENGTH)
    assert as_it_stands.tolist() == [1, 1, 2, 1, 1, 1, 1, 1, 1, 1]


def test_a_word_that_the_prompt_lacks_is_named() -> None:
    with pytest.raises(UsageError, match="no word 'rain'; its words: a snowy hill"):
        equalized(prompt("a snowy hill,"), {"rain": 2}, LENGTH)


def test_edited_probabilities_are_the_sources_in_the_targets_places() -> None:
    alignment = Alignment.of(
        [prompt("a cat in snow")], [prompt("a fluffy cat in snow")], "refine", {"snow": 2}, LENGTH
    )
    source, own = torch.rand(2, 1, 4, 6, LENGTH)
    edited = alignment.edit(source, own)
    assert torch.equal(edited[..., 2], own[..., 2])
    assert torch.equal(edited[..., 3], source[..., 2])
    assert torch.equal(edited[..., 5], 2 * source[..., 4])


def test_words_are_found_among_the_tokens_of_a_real_tokenizer(model: Model) -> None:
    read = model.tokenize("a snowy-red bicycle, in 3d render style")
    assert read.words[1:3] == ("snowy-red", "bicycle,")
    assert sorted(place for word in read.positions for place in word) == list(
        range(1, len(read.tokens) - 1)
    )
    tokens = model.pipe.tokenizer.convert_ids_to_tokens([read.tokens[p] for p in read.positions[1]])
    assert "".join(tokens).replace("</w>", "") == "snowy-red"
