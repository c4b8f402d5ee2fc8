"""Every recipe within a mask: what is outside is the source to the bit, what is inside is the edit."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import Result
from PIL import Image
from test_translate import small

from sdcorrect.errors import UsageError
from sdcorrect.masking import Masking
from sdcorrect.models import Model
from sdcorrect.recipes import BUILT_IN, Recipe
from sdcorrect.translate import Request, Translation, Translator

NOTHING, EVERYTHING = Image.new("L", (32, 32), 0), Image.new("L", (32, 32), 255)
#: They name blocks that mini lacks, weigh words, or are for other models.
LEFT_OUT = {"correct-attention-5-7", "correct-attention-7-9", "p2p-reweight", "turboedit"}
SLOW = [pytest.param(n, marks=pytest.mark.slow) for n in BUILT_IN if n not in {"correct", *LEFT_OUT}]


@pytest.fixture
def image(icon: Image.Image) -> Image.Image:
    return icon.resize((32, 32))


def run(
    model: Model,
    image: Image.Image,
    recipe: Recipe,
    mask: Image.Image | None = None,
    masking: Masking | None = None,
    **asked: Any,
) -> Translation:
    job = {"steps": 4, "strength": 0.75, "guidance_scale": 5.0, "masking": masking or Masking()}
    prompts = "a church in 3d render style", "", "a church in flat design style"
    request = Request(image, 0, *prompts, mask=mask, **asked)
    return Translator(model, [recipe], **job)([request], variants=[recipe.name])[recipe.name]


def pixels(translation: Translation) -> np.ndarray:
    (picture,) = translation.pictures
    assert picture is not None
    return np.asarray(picture).astype(int)


@pytest.mark.parametrize("name", ["correct", *SLOW])
def test_a_mask_of_nothing_everything_and_a_half(model: Model, image: Image.Image, name: str) -> None:
    recipe, source = small(name), np.asarray(image).astype(int)
    free = run(model, image, recipe)
    assert free.edited == [None]
    nothing, everything = (run(model, image, recipe, mask) for mask in (NOTHING, EVERYTHING))
    np.testing.assert_array_equal(pixels(nothing), source)
    np.testing.assert_array_equal(pixels(everything), pixels(free))
    assert nothing.edited == [0] and everything.edited == [1]
    left = NOTHING.copy()
    left.paste(255, (0, 0, 16, 32))
    half = run(model, image, recipe, left)
    np.testing.assert_array_equal(pixels(half)[:, 16:], source[:, 16:])
    assert abs(pixels(half)[:, :16] - source[:, :16]).max() > 20
    assert half.edited == [0.5] and half.evaluations == free.evaluations


def test_an_inverted_mask_and_a_feather(model: Model, image: Image.Image) -> None:
    left = NOTHING.copy()
    left.paste(255, (0, 0, 16, 32))
    right = EVERYTHING.copy()
    right.paste(0, (0, 0, 16, 32))
    recipe, source = small("correct"), np.asarray(image).astype(int)
    inverted = run(model, image, recipe, left, Masking(inverted=True))
    np.testing.assert_array_equal(pixels(inverted), pixels(run(model, image, recipe, right)))
    feathered = run(model, image, recipe, left, Masking(feather=8))
    np.testing.assert_array_equal(pixels(feathered)[:, 16:], source[:, 16:])
    sharp = abs(pixels(run(model, image, recipe, left)) - source).sum(axis=(0, 2))
    soft = abs(pixels(feathered) - source).sum(axis=(0, 2))
    assert soft[12:16].sum() < 0.6 * sharp[12:16].sum()
    assert feathered.edited == [0.5]


def test_each_of_a_batch_has_its_own_mask(model: Model, image: Image.Image) -> None:
    recipe = small("correct")
    job = Translator(model, [recipe], steps=4, strength=0.75, guidance_scale=5.0)
    requests = [Request(image, 0, "x", mask=mask) for mask in (NOTHING, EVERYTHING)]
    made = job(requests, variants=[recipe.name])[recipe.name]
    assert made.edited == [0, 1]
    first, second = made.pictures
    assert first is not None and second is not None
    assert first.tobytes() == image.tobytes() != second.tobytes()


def test_words_tell_the_mask_in_one_evaluation_more(model: Model, icon: Image.Image) -> None:
    page = Image.new("RGB", (64, 64), "white")
    page.paste(icon.resize((30, 30)), (1, 17))
    recipe = small("correct")
    free = run(model, page, recipe)
    told = run(model, page, recipe, mask_words="church")
    assert told.evaluations == free.evaluations + 1
    (share,) = told.edited
    assert share is not None and 0.02 < share < 0.6
    changed = abs(pixels(told) - np.asarray(page)).max(axis=-1) > 0
    assert changed.mean() <= share
    assert changed[:, :32].sum() > 4 * changed[:, 32:].sum()
    more = run(model, page, recipe, masking=Masking(threshold=0.2), mask_words="church")
    assert (more.edited[0] or 0) > share


def test_words_that_tell_no_mask(model: Model) -> None:
    translator = Translator(model, [small("sdedit")], steps=4, strength=0.75, guidance_scale=5.0)
    translator.check_prompts("a dog", "a cat, black", "cat black")
    for words, prompt, source_prompt, reason in [
        ("dog", "a dog", "a cat", "mask_words: the prompt 'a cat' has no word 'dog'; its words: a cat"),
        ("cat", "a dog", None, "mask_words: the prompt 'a dog' has no word 'cat'"),
        ("end", "very " * 40 + "end", None, "comes after the 24 tokens of .* that the model reads"),
    ]:
        with pytest.raises(UsageError, match=reason):
            translator.check_prompts(prompt, source_prompt, words)


def test_outside_is_the_source_as_it_was_inverted(model: Model, image: Image.Image) -> None:
    """With nothing to edit, the target goes back along the latents that the inversion passed."""
    seen: list[torch.Tensor] = []
    hook = model.pipe.unet.register_forward_pre_hook(lambda _, args: seen.append(args[0][-1]))
    run(model, image, small("ddim"), NOTHING)
    hook.remove()
    inverted, sampled = seen[:4], seen[4:]
    for there, back in zip(inverted[1:], reversed(sampled[1:]), strict=True):
        torch.testing.assert_close(there, back)


def test_a_folder_of_masks_from_the_command_line(
    translate: Callable[..., Result], pictures: Path, tmp_path: Path
) -> None:
    masks = tmp_path / "masks"
    (masks / "sub").mkdir(parents=True)
    for name in ("bicycle.png", "church.png", "sub/ghost.jpg"):
        Image.new("L", (64, 64), 255).save(masks / name)
    out = tmp_path / "out"
    command = (pictures, "-o", out, "--mask", masks, "--method", "sdedit")
    result = translate(*command)
    assert result.exit_code == 0, result.stderr
    records = (out / "records" / "0-of-1.jsonl").read_text()
    assert records.count('"edited": 1.0') == 3
    before = {file.name: file.read_bytes() for file in out.rglob("*.png")}
    # a mask that is changed in place: its picture alone is done anew
    Image.new("L", (64, 64), 0).save(masks / "bicycle.png")
    result = translate(*command)
    assert result.exit_code == 0, result.stderr
    after = {file.name: file.read_bytes() for file in out.rglob("*.png")}
    assert {name for name in after if after[name] != before[name]} == {"bicycle.png"}
    source = Image.open(pictures / "bicycle.png").resize((32, 32), Image.Resampling.LANCZOS)
    assert Image.open(out / "sdedit" / "bicycle.png").tobytes() == source.tobytes()
    assert "nothing to do" in translate(*command).stdout
    (masks / "church.png").unlink()
    result = translate(*command)
    assert result.exit_code == 3 and "church.jpg (sdedit): has no mask" in result.stderr
