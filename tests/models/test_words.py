"""A learned word is read as all of its vectors, in whichever file and however it is written."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoints import Family, tiny
from safetensors.torch import save_file
from torch import Tensor, nn

from sdcorrect.errors import UsageError
from sdcorrect.models import Model, load
from sdcorrect.settings import ModelSettings

Where = Callable[[Family, str], Path]
VECTORS = torch.randn(5, 32, generator=torch.Generator().manual_seed(1))
OTHER = torch.randn(5, 48, generator=torch.Generator().manual_seed(2))


def load_with(checkpoint: Where, *files: Path, family: Family = "sd1", **settings: Any) -> Model:
    settings |= {"textual_inversions": [str(file) for file in files], "device": "cpu"}
    return load(ModelSettings(model=str(checkpoint(family, "folder")), **settings))


def complaint(checkpoint: Where, *files: Path, **settings: Any) -> str:
    with pytest.raises(UsageError) as error:
        load_with(checkpoint, *files, **settings)
    assert "\n" not in str(error.value)
    return str(error.value)


def encoded_by_hand(family: Family, part: str, pieces: list[str | Tensor]) -> tuple[Any, int]:
    """What a text encoder says of words and vectors one after the other, and where they end."""
    pipe = tiny(family)
    tokenizer = pipe.components["tokenizer_2" if part == "text_encoder_2" else "tokenizer"]
    encoder = pipe.components[part]
    embeddings = encoder.get_input_embeddings()
    ids, rows = [tokenizer.bos_token_id], [embeddings.weight]
    for piece in pieces:
        if isinstance(piece, str):
            ids += tokenizer(piece, add_special_tokens=False).input_ids
        else:
            begin = sum(map(len, rows))
            ids += range(begin, begin + len(piece))
            rows.append(piece)
    embeddings.weight = nn.Parameter(torch.cat(rows))
    end = len(ids)
    length = tokenizer.model_max_length
    ids += [tokenizer.eos_token_id] + [tokenizer.pad_token_id] * (length - end - 1)
    return encoder(torch.tensor([ids]), output_hidden_states=True), end


@pytest.mark.parametrize("syntax", ["plain", "weighted"])
@pytest.mark.parametrize(
    "prompt",
    ["a cat, EasyNegative dog", "a cat, easynegative dog", "a cat,EASYNEGATIVE dog"],
)
def test_a_word_with_capitals_is_read_whole(
    checkpoint: Where, tmp_path: Path, prompt: str, syntax: Any
) -> None:
    file = tmp_path / "EasyNegative.safetensors"
    save_file({"emb_params": VECTORS.half(), "step": torch.tensor(7)}, file)
    model = load_with(checkpoint, file, prompt_syntax=syntax)
    expected, _ = encoded_by_hand("sd1", "text_encoder", ["a cat,", VECTORS.half().float(), "dog"])
    torch.testing.assert_close(model.embed(prompt).embeddings, expected.last_hidden_state)


def test_a_word_is_read_where_it_stands_alone(checkpoint: Where, tmp_path: Path) -> None:
    words = {"ink": VECTORS[:1], "ink_2": VECTORS[1:3], "by bad artist -neg": VECTORS[3:]}
    for name, vectors in words.items():
        torch.save({name: vectors}, tmp_path / f"{len(name)}.bin")
    model = load_with(checkpoint, *sorted(tmp_path.glob("*.bin")))

    def same(prompt: str, pieces: list[str | Tensor]) -> None:
        expected, _ = encoded_by_hand("sd1", "text_encoder", pieces)
        torch.testing.assert_close(model.embed(prompt).embeddings, expected.last_hidden_state)

    same("inks of pink ink", ["inks of pink", VECTORS[:1]])
    same("(ink_2) ink", ["(", VECTORS[1:3], ")", VECTORS[:1]])
    same("a cat By bad artist -Neg.", ["a cat", VECTORS[3:], "."])
    plain = load_with(checkpoint)
    assert torch.equal(model.embed("a cat").embeddings, plain.embed("a cat").embeddings)


def test_the_pooled_text_is_read_at_the_end_of_a_prompt_with_a_learned_word(
    checkpoint: Where, tmp_path: Path
) -> None:
    file = tmp_path / "Ink.safetensors"
    save_file({"clip_l": VECTORS, "clip_g": OTHER}, file)
    pieces: list[str | Tensor] = ["a cat of", OTHER, "in a wood"]
    expected, end = encoded_by_hand("sdxl", "text_encoder_2", pieces)
    encoder = tiny("sdxl").text_encoder_2
    assert encoder.config.eos_token_id == 2  # as published
    state = encoder.text_model.final_layer_norm(expected.hidden_states[-1])[:, end]
    for syntax in ("plain", "weighted"):
        model = load_with(checkpoint, file, family="sdxl", prompt_syntax=syntax)
        encoding = model.embed("a cat of Ink in a wood")
        torch.testing.assert_close(encoding.pooled, encoder.text_projection(state))
        torch.testing.assert_close(encoding.embeddings[..., 32:], expected.hidden_states[-2])


def test_each_token_of_a_learned_word_is_that_words(checkpoint: Where, tmp_path: Path) -> None:
    torch.save({"<Ink>": VECTORS[:3]}, tmp_path / "a.pt")
    read = load_with(checkpoint, tmp_path / "a.pt").tokenize("a <Ink> dog")
    assert read.words == ("a", "<Ink>", "dog")
    assert [len(positions) for positions in read.positions] == [1, 3, 1]


def original(name: str, word: str, vectors: Tensor, **more: Any) -> dict[str, Any]:
    held = nn.ParameterDict({word: nn.Parameter(vectors)})
    return {"string_to_token": {word: torch.tensor(265)}, "string_to_param": held, "name": name} | more


@pytest.mark.parametrize("word", ["*", "@", "my thing"])
def test_the_original_layout_is_read(checkpoint: Where, tmp_path: Path, word: str) -> None:
    content = original("Ink", word, VECTORS, step=4999, sd_checkpoint="1a2b", sd_checkpoint_name=None)
    torch.save(content, tmp_path / "a.pt")
    model = load_with(checkpoint, tmp_path / "a.pt")
    ids = model.pipe.tokenizer("ink", add_special_tokens=False).input_ids
    assert torch.equal(model.pipe.text_encoder.get_input_embeddings().weight[ids], VECTORS)
    torch.save(content, tmp_path / "a.pt", _use_new_zipfile_serialization=False)
    assert "contains whole modules, as torch before 1.6 wrote them" in complaint(
        checkpoint, tmp_path / "a.pt"
    )


def test_a_parameter_dict_of_an_old_torch_is_read(checkpoint: Where, tmp_path: Path) -> None:
    content = original("Ink", "*", VECTORS)
    del content["string_to_param"].__dict__["_keys"]
    torch.save(content, tmp_path / "a.pt")
    model = load_with(checkpoint, tmp_path / "a.pt")
    assert len(model.pipe.tokenizer("ink", add_special_tokens=False).input_ids) == 5


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (
            original("Ink", "*", VECTORS, novelty=VECTORS),
            "1 tensor in it would not be used, such as novelty",
        ),
        ({"emb_params": VECTORS, "clip_h": OTHER}, "1 tensor in it would not be used, such as clip_h"),
        (
            {"string_to_param": {"*": VECTORS, "@": VECTORS}},
            "contains 2 tensors (*, @); expected one word",
        ),
        ({"clip_l": VECTORS, "clip_g": OTHER[:2]}, "has 5 and 2 vectors for the two text encoders"),
        ({"clip_l": VECTORS, "clip_g": OTHER}, "made for 2 text encoders, but this model has 1"),
        ({"Ink": VECTORS[None]}, "contains no vectors of a word but Tensor of shape (1, 5, 32)"),
        ({"Ink": "*"}, "contains no vectors of a word but str"),
    ],
    ids=lambda value: re.sub(r"\W+", " ", value) if isinstance(value, str) else "",
)
def test_what_is_no_word_or_more_than_one_is_told(
    checkpoint: Where, tmp_path: Path, content: dict[str, Any], expected: str
) -> None:
    torch.save(content, tmp_path / "a.pt")
    assert expected in complaint(checkpoint, tmp_path / "a.pt")


def test_words_that_differ_in_capitals_alone_are_one(checkpoint: Where, tmp_path: Path) -> None:
    for name in ("Ink", "INK"):
        torch.save({name: VECTORS}, tmp_path / f"{name}.pt")
    assert (
        "its word INK is already in the tokenizer's vocabulary; choose another with token:"
        in complaint(checkpoint, tmp_path / "Ink.pt", tmp_path / "INK.pt")
    )
