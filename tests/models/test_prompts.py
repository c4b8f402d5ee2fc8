"""Prompts: plain ones as diffusers reads them, weighted ones of any length."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoints import FAMILIES, Family
from click.testing import Result
from hypothesis import example, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from sdcorrect.core.syntax import check_networks, parse_weights, readings, unread
from sdcorrect.errors import UsageError
from sdcorrect.models import Model, load
from sdcorrect.models.prompts import encode_plain, encode_weighted
from sdcorrect.recipes import BUILT_IN
from sdcorrect.settings import ModelSettings
from sdcorrect.translate import Translator

Where = Callable[[Family, str], Path]
CPU = torch.device("cpu")
PHRASE = "a red basketball beside a violin,"
LONG = " ".join([PHRASE] * 6)


def width_of(model: Model) -> int:
    width: int = model.pipe.text_encoder.config.hidden_size
    return width


@pytest.fixture(scope="module")
def weighted() -> Model:
    return load(ModelSettings(prompt_syntax="weighted", device="cpu"))


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("a cat", [("a cat", 1)]),
        ("a (cat)", [("a ", 1), ("cat", 1.1)]),
        ("((cat))", [("cat", 1.1 * 1.1)]),
        ("[cat]", [("cat", 1 / 1.1)]),
        ("a (red cat:1.4) here", [("a ", 1), ("red cat", 1.4), (" here", 1)]),
        ("(a (b:2) c:0.5)", [("a ", 0.5), ("b", 1), (" c", 0.5)]),
        (r"a \(cat\)", [("a (cat)", 1)]),
        ("time: 12:30", [("time: 12:30", 1)]),
        ("a (cat", [("a ", 1), ("cat", 1.1)]),
        ("a cat) [x)", [("a cat) ", 1), ("x)", 1 / 1.1)]),
        ("(cat:0)", [("cat", 0)]),
        ("a (bird:-0.5)", [("a ", 1), ("bird", -0.5)]),
        ("(cat:1.)", [("cat", 1)]),
        ("(cat:+1.2)", [("cat", 1.2)]),
        ("(cat: .8 )", [("cat", 0.8)]),
        ("(cat:.)", [("cat:.", 1.1)]),
        ("(cat:-)", [("cat:-", 1.1)]),
        ("", []),
    ],
)
def test_weights_are_those_of_the_web_uis(prompt: str, expected: list[tuple[str, float]]) -> None:
    pieces = parse_weights(prompt)
    assert [text for text, _ in pieces] == [text for text, _ in expected]
    assert [weight for _, weight in pieces] == pytest.approx([weight for _, weight in expected])


@example(prompt="[ ] a")
@example(prompt="BREAK (bird:-0.5) BREAK BREAK b")
@given(prompt=st.text(alphabet="ab ,:.01()[]\\!", max_size=60))
@settings(max_examples=60, deadline=None)
def test_any_text_is_a_prompt(weighted: Model, prompt: str) -> None:
    embeddings = encode_weighted(weighted.pipe, prompt, CPU).embeddings
    assert embeddings.shape == (1, 24 * weighted.count_chunks(prompt), width_of(weighted))
    assert embeddings.isfinite().all()


@given(st.text(alphabet="ab ,.;!", max_size=30))
def test_text_without_syntax_is_itself(prompt: str) -> None:
    assert parse_weights(prompt) == ([(prompt, 1.0)] if prompt else [])


@pytest.mark.parametrize("prompt", ["", "a cat", "a red basketball, beside a violin"])
@pytest.mark.parametrize("family", FAMILIES)
def test_without_weights_both_syntaxes_are_diffusers_own(
    checkpoint: Where, family: Family, prompt: str
) -> None:
    pipe = load(ModelSettings(model=str(checkpoint(family, "folder")), device="cpu")).pipe
    plain, weighted = encode_plain(pipe, prompt, CPU), encode_weighted(pipe, prompt, CPU)
    torch.testing.assert_close(weighted.embeddings, plain.embeddings, rtol=1e-5, atol=1e-6)
    if family == "sdxl":
        torch.testing.assert_close(weighted.pooled, plain.pooled, rtol=1e-5, atol=1e-6)
        assert weighted.embeddings.shape == (1, 24, 32 + 48)
        assert (weighted.embeddings.abs().sum() == 0) == (prompt == "")
    else:
        assert torch.equal(plain.embeddings, pipe.encode_prompt(prompt, CPU, 1, False)[0])


def test_a_weight_moves_its_words_away_from_the_empty_prompt(weighted: Model) -> None:
    plain, empty = weighted.embed("red cat").embeddings, weighted.embed("").embeddings
    place = len(weighted.pipe.tokenizer("red cat").input_ids) - 2
    heavy = weighted.embed("red (cat:1.5)").embeddings
    assert torch.equal(heavy[:, :place], plain[:, :place])
    torch.testing.assert_close(heavy[:, place], empty[:, place] + 1.5 * (plain - empty)[:, place])
    assert torch.equal(heavy[:, place + 1 :], plain[:, place + 1 :])


def test_words_of_little_weight_are_hidden_from_the_others(weighted: Model) -> None:
    tokenizer, plain = weighted.pipe.tokenizer, weighted.embed("red cat").embeddings
    tokens = tokenizer("red cat", padding="max_length", return_tensors="pt").input_ids
    place = len(tokenizer("red cat").input_ids) - 2
    seen = torch.ones_like(tokens)
    seen[:, place] = 0
    hidden = weighted.pipe.text_encoder(tokens, attention_mask=seen)[0]
    none, half = (weighted.embed(f"red (cat:{weight})").embeddings for weight in ("0", "0.5"))
    torch.testing.assert_close(none[:, place + 1 :], hidden[:, place + 1 :], atol=1e-3, rtol=1e-3)
    halfway = plain[:, place + 1 :].lerp(hidden[:, place + 1 :], 0.5)
    torch.testing.assert_close(half[:, place + 1 :], halfway, atol=1e-4, rtol=1e-4)


def test_a_long_prompt_is_read_in_chunks_that_part_no_phrase(weighted: Model) -> None:
    phrase = len(weighted.pipe.tokenizer(PHRASE, add_special_tokens=False).input_ids)
    together = 22 // phrase
    assert together * phrase < 22
    chunks = weighted.count_chunks(LONG)
    assert chunks == 6 // together
    embeddings = weighted.embed(LONG).embeddings
    expected = weighted.embed(" ".join([PHRASE] * together)).embeddings
    torch.testing.assert_close(embeddings, expected.repeat(1, chunks, 1))


def test_a_shorter_text_is_filled_up_with_the_empty_prompt(weighted: Model) -> None:
    filled = weighted.embed("a cat", 3).embeddings
    assert torch.equal(filled[:, :24], weighted.embed("a cat").embeddings)
    assert torch.equal(filled[:, 24:48], weighted.embed("").embeddings)
    assert torch.equal(filled[:, 48:], weighted.embed("").embeddings)
    assert weighted.embed("", 2).embeddings.shape == (1, 48, width_of(weighted))


def test_a_plain_prompt_over_the_limit_names_what_is_cut(caplog: pytest.LogCaptureFixture) -> None:
    plain = load(ModelSettings(device="cpu"))
    plain.embed(LONG)
    assert "the text encoder reads only 22; cut off:" in caplog.text
    assert "prompt_syntax: weighted" in caplog.text
    assert plain.count_chunks(LONG) == 1


def test_a_learned_word_of_several_vectors_is_expanded(tmp_path: Path) -> None:
    width = width_of(load(ModelSettings(device="cpu")))
    save_file({"<inked>": torch.ones(2, width)}, tmp_path / "learned_embeds.safetensors")
    common: dict[str, Any] = {"textual_inversions": [str(tmp_path)], "device": "cpu"}
    plain = load(ModelSettings(**common)).embed("an <inked> cat").embeddings
    weighted = load(ModelSettings(prompt_syntax="weighted", **common)).embed("an <inked> cat").embeddings
    torch.testing.assert_close(weighted, plain, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_texts_of_another_length_in_the_batch_change_no_picture(
    sdcorrect: Callable[..., Result], pictures: Path, tmp_path: Path
) -> None:
    rows = {"bicycle.png": "a (red:1.3) bicycle", "church.jpg": LONG, "sub/ghost.png": "a ghost"}

    def run(out: str, *names: str) -> dict[str, bytes]:
        listed = [json.dumps({"path": name, "prompt": rows[name]}) for name in names]
        (pictures / f"{out}.jsonl").write_text("\n".join(listed))
        quick = ("--steps", 2, "--strength", 1, "--batch-size", 2)
        settings = ("--set", "size=32", "--set", "prompt_syntax=weighted")
        result = sdcorrect(
            "translate", pictures / f"{out}.jsonl", "-o", tmp_path / out, *quick, *settings
        )
        assert result.exit_code == 0, result.output
        return {file.name: file.read_bytes() for file in (tmp_path / out).rglob("*.png")}

    together = run("together", *rows)
    assert len(together) == 3
    for name in rows:
        ((file, alone),) = run(Path(name).stem, name).items()
        assert together[file] == alone


def test_a_negative_weight_puts_a_word_on_the_other_side_of_the_empty_prompt(weighted: Model) -> None:
    empty, hidden = weighted.embed("").embeddings, weighted.embed("red (cat:0)").embeddings
    negative = weighted.embed("red (cat:-1.5)").embeddings
    place = len(weighted.pipe.tokenizer("red cat").input_ids) - 2
    assert negative.isfinite().all()
    torch.testing.assert_close(negative[:, place + 1 :], hidden[:, place + 1 :], atol=1e-3, rtol=1e-3)
    tokens = weighted.pipe.tokenizer("red cat", padding="max_length", return_tensors="pt").input_ids
    seen = torch.ones_like(tokens)
    seen[:, place] = 0
    masked = weighted.pipe.text_encoder(tokens, attention_mask=seen)[0]
    expected = empty[:, place] - 1.5 * (masked - empty)[:, place]
    torch.testing.assert_close(negative[:, place], expected, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("a cat", [["a cat"]]),
        ("a cat BREAK a dog", [["a cat"], ["a dog"]]),
        ("a catBREAK BREAKFAST, break", [["a catBREAK BREAKFAST, break"]]),
        ("BREAK a", [[], ["a"]]),
        ("a BREAK BREAK b BREAK", [["a"], [], ["b"]]),
        ("(a BREAK b:1.3) c", [["a"], ["b", " c"]]),
        ("", [[]]),
    ],
)
def test_break_begins_a_new_reading(prompt: str, expected: list[list[str]]) -> None:
    found = readings(parse_weights(prompt))
    assert [[text for text, _ in reading] for reading in found] == expected
    if prompt.startswith("("):
        assert found == [[("a", 1.3)], [("b", 1.3), (" c", 1.0)]]


@pytest.mark.parametrize("family", FAMILIES)
def test_what_break_parts_is_read_by_itself(checkpoint: Where, family: Family) -> None:
    folder = str(checkpoint(family, "folder"))
    model = load(ModelSettings(model=folder, prompt_syntax="weighted", device="cpu"))
    prompts = ("a (red:1.3) cat", "a dog", f"{LONG} and")
    parted = model.embed(" BREAK ".join(prompts), 9)
    alone = [model.embed(prompt) for prompt in prompts]
    assert model.count_chunks(" BREAK ".join(prompts)) == 2 + model.count_chunks(LONG)
    expected = torch.cat([each.embeddings for each in alone], dim=1)
    assert torch.equal(parted.embeddings[:, : expected.shape[1]], expected)
    assert parted.embeddings.shape[1] == 9 * 24
    if family == "sdxl":
        assert torch.equal(parted.pooled, alone[0].pooled)


PLAIN_ONLY = ["a (bird:1.5)", "a (bird:-0.5)", "((bird))", "a [bird]", r"saber \(fate\)", "a BREAK b"]
ANYWHERE = ["a cat AND a dog", "a [cat:dog:0.5]", "a [cat|dog]"]


@pytest.mark.parametrize("prompt", PLAIN_ONLY + ANYWHERE)
@pytest.mark.parametrize("syntax", ["plain", "weighted"])
def test_what_is_read_otherwise_than_by_web_uis_is_told(
    model: Model, weighted: Model, caplog: pytest.LogCaptureFixture, prompt: str, syntax: str
) -> None:
    (model if syntax == "plain" else weighted)._encode(prompt, 1)
    told = [r.getMessage() for r in caplog.records if r.name == "sdcorrect.models.prompts"]
    if prompt in ANYWHERE:
        assert any("write them out" in line or "write a single prompt" in line for line in told)
    else:
        assert ["set prompt_syntax: weighted" in line for line in told] == [True] * (syntax == "plain")


@pytest.mark.parametrize("prompt", ["", "a cat, and a dog", "BREAKFAST IN A SANDBOX", "12:30, a/b"])
def test_of_words_alone_nothing_is_told(prompt: str) -> None:
    assert not list(unread(prompt, weighted=False))


@pytest.mark.parametrize("syntax", ["plain", "weighted"])
@pytest.mark.parametrize(
    ("prompt", "remedy"),
    [
        ("a cat <lora:ink:0.8>", "`loras: [{path: ink.safetensors, weight: 0.8}]`"),
        ("<lora:ink>, a cat", "`loras: [{path: ink.safetensors, weight: 1}]`"),
        ("a <LyCO:some style:0.5:0.2>", "path: some style.safetensors, weight: 0.5"),
        ("a <hypernet:x:1>", "hypernetworks are not supported"),
    ],
)
def test_a_lora_in_a_prompt_is_refused_and_told_where_it_belongs(
    model: Model, weighted: Model, prompt: str, remedy: str, syntax: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(remedy)):
        check_networks(prompt)
    with pytest.raises(UsageError, match=re.escape(remedy)):
        (model if syntax == "plain" else weighted).embed(prompt)
    check_networks("a <lora> cat, 3 < 4 and lora:ink:0.8")


def test_a_lora_in_any_prompt_of_a_job_is_told_before_it_begins(
    translate: Callable[..., Result], pictures: Path, tmp_path: Path
) -> None:
    listed = tmp_path / "listed.jsonl"
    listed.write_text(json.dumps({"path": "pictures/bicycle.png", "prompt": "a <lora:ink:0.8>"}))
    (pictures / "bicycle.txt").write_text("a bicycle <lora:ink:0.8>")
    (tmp_path / "job.yaml").write_text("prompt: a\nnegative_prompt: ugly <lora:ink:0.8>\n")
    for arguments in (
        (pictures, "-p", "a <lora:ink:0.8>"),
        (pictures, "-c", tmp_path / "job.yaml"),
        (listed,),
        (pictures, "-p", "{caption}", "--limit", 1, "--set", "input.recursive=false"),
    ):
        result = translate(*arguments, "-o", tmp_path / "out")
        assert result.exit_code == 2, arguments
        assert "loras: [{path: ink.safetensors, weight: 0.8}]" in result.stderr
        assert len(result.stderr.strip().splitlines()) == 1
        assert not (tmp_path / "out").exists()


REPLACING = """
source_prompt: a cat
method:
  name: replace
  inversion: full
  inversion_steps: 2
  inversion_prompt: source
  start: inverted
  inject: [{tensor: cross-attention, blocks: [0+], branches: cond}]
  words: replace
"""


def test_words_that_are_wrong_for_one_picture_fail_that_picture_alone(
    translate: Callable[..., Result], pictures: Path, tmp_path: Path
) -> None:
    own: tuple[dict[str, str], ...] = (
        {"prompt": "a dog"},
        {"prompt": "a dog <lora:ink:0.8>"},
        {"prompt": "a dog", "negative_prompt": "<lyco:ink>"},
        {"prompt": "a dog by the sea"},
        {"prompt": "{caption}"},
    )
    rows = [{"path": "pictures/bicycle.png", "output": str(n), **words} for n, words in enumerate(own)]
    listed, job = tmp_path / "listed.jsonl", tmp_path / "job.yaml"
    listed.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (pictures / "bicycle.txt").write_text("<lora:oil:1>")
    job.write_text(REPLACING)
    result = translate(listed, "-c", job, "-o", tmp_path / "out")
    failed = [line for line in result.stderr.splitlines() if line.startswith("failed: ")]
    assert result.exit_code == 3 and len(failed) == 4, result.stderr
    for line, reason in zip(failed, ("path: ink.saf", "weight: 1}", "has 5", "path: oil"), strict=True):
        assert reason in line
    assert [file.name for file in (tmp_path / "out" / "replace").iterdir()] == ["0.png"]


def test_methods_that_align_words_refuse_weighted_prompts(weighted: Model) -> None:
    translator = Translator(weighted, [BUILT_IN["p2p"]], steps=2, strength=1, guidance_scale=5)
    with pytest.raises(UsageError, match="recipe p2p aligns the words of two plain prompts"):
        translator.check_prompts("a cat", "a dog")
