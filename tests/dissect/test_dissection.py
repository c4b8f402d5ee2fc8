"""What the decoder does in three conditions: the scores, the maps, the files, what is refused."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import Result
from PIL import Image
from scipy.spatial.distance import cosine, jensenshannon

from sdcorrect.core.observe import Observation, observe
from sdcorrect.dissect import measure
from sdcorrect.dissect.choose import choose_blocks, choose_timesteps, place_point
from sdcorrect.dissect.dissection import Dissection, Drawn, dissect
from sdcorrect.errors import PictureError, UsageError
from sdcorrect.inputs.pictures import Sizing
from sdcorrect.models import Model
from sdcorrect.recipes import Inject, Recipe, built_in
from sdcorrect.translate import Request, Translator

Run = Callable[..., Result]
BLOCKS = (3, 4, 5)


@pytest.fixture
def quick(sdcorrect: Run, tmp_path: Path) -> Run:
    """Dissect at the smallest size and in the fewest steps, into tmp_path/out."""

    def run(*arguments: object) -> Result:
        few = ("--steps", 2, "--strength", 1, "--size", 32, "-o", tmp_path / "out")
        return sdcorrect("dissect", "-p", "in 3d render style", *few, *arguments)

    return run


def translator_of(model: Model, recipe: Recipe, strength: float = 1.0) -> Translator:
    return Translator(model, [recipe], steps=4, strength=strength, guidance_scale=7.5)


@pytest.fixture(scope="module")
def dissection(model: Model) -> Dissection:
    """An icon at the model's own size, in four steps."""
    file = Path(__file__).parents[2] / "sdcorrect" / "assets" / "pictures" / "church.png"
    asked = Request(Image.open(file).convert("RGB").resize((64, 64)), 3, "in 3d render style")
    drawn = Drawn([751, 1], (0.9, 0.1))
    return dissect(translator_of(model, built_in("correct")), asked, BLOCKS, drawn)


def test_what_is_put_back_matches_the_inversion_exactly_and_nothing_else_does(
    dissection: Dissection,
) -> None:
    put_back = {("self-attention", 3), ("self-attention", 4), ("skip", 4), ("skip", 5)}
    assert dissection.timesteps == [751, 501, 251, 1]
    for condition, scores in dissection.scores.items():
        for tensor, by_block in scores.items():
            assert list(by_block) == list(BLOCKS)
            for block, over_steps in by_block.items():
                exact = condition == "correction" and (tensor, block) in put_back
                assert len(over_steps) == 4
                assert all((score == 0) == exact for score in over_steps), (condition, tensor, block)


def test_the_discrepancy_of_sdedit_grows_with_the_noise(
    model: Model, icon: Image.Image, dissection: Dissection
) -> None:
    asked = Request(icon, 3, "in 3d render style")
    weakest = dissect(translator_of(model, built_in("correct"), 0.25), asked, BLOCKS)
    assert weakest.timesteps == [1]
    for tensor, noisy in dissection.scores["sdedit"].items():
        clean = weakest.scores["sdedit"][tensor]
        first_steps = [[scores[0] for scores in of.values()] for of in (noisy, clean)]
        assert np.mean(first_steps[0]) > 1.5 * np.mean(first_steps[1]) > 0


def test_the_results_are_those_of_translate(model: Model, icon: Image.Image) -> None:
    recipes = [built_in("sdedit"), built_in("correct")]
    translator = Translator(model, recipes, steps=2, strength=1, guidance_scale=7.5)
    expected = translator([Request(icon, 7, "a", "b")], variants=["sdedit", "correct"])
    correction = Translator(model, recipes[1:], steps=2, strength=1, guidance_scale=7.5)
    results = dissect(correction, Request(icon, 7, "a", "b"), BLOCKS).results
    for condition, name in (("sdedit", "sdedit"), ("correction", "correct")):
        (picture,) = expected[name].pictures
        assert picture is not None
        assert results[condition].tobytes() == picture.tobytes()


def test_maps_have_the_inversions_colours_where_attention_is_put_back(dissection: Dissection) -> None:
    drawn = dissection.drawn
    assert drawn is not None
    assert set(drawn.maps) == {(c, t) for c in ("sdedit", "correction") for t in (751, 1)}
    for block in BLOCKS:
        inversion = drawn.inversion[block]
        assert inversion.attention.colours.shape == (8, 8, 3)
        assert 0 <= inversion.attention.colours.min() < inversion.attention.colours.max() <= 1
        assert len(np.unique(inversion.attention.clusters)) == 6
        assert inversion.from_point.sum() == pytest.approx(1, rel=1e-4)
        for condition, same in (("sdedit", False), ("correction", block in (3, 4))):
            maps = drawn.maps[condition, 751][block]
            close = np.allclose(maps.attention.colours, inversion.attention.colours, atol=1e-4)
            assert close == same
            assert np.allclose(maps.from_point, inversion.from_point, atol=1e-6) == same


def test_the_point_is_a_query_and_its_row_is_drawn(model: Model, icon: Image.Image) -> None:
    drawn = Drawn([1], (0.9, 0.1))
    seen: list[Observation] = []
    with observe(model.pipe.unet, (4,), seen.append):
        dissect(translator_of(model, built_in("correct"), 0.3), Request(icon, 3, ""), (4,), drawn)
    (whole,) = seen[0].self_attention[4][0].by_queries(64)
    row = 0 * 8 + 7  # 0.9 across and 0.1 down an 8 x 8 grid
    expected = whole[0, :, row].mean(dim=0).reshape(8, 8)
    np.testing.assert_allclose(drawn.inversion[4].from_point, expected, rtol=1e-5)


@pytest.mark.parametrize("chunk", [1 << 24, 4 * 64 * 10])
def test_scores_are_those_of_a_naive_reference(
    model: Model, monkeypatch: pytest.MonkeyPatch, chunk: int
) -> None:
    monkeypatch.setattr(measure, "CHUNK", chunk)
    seen: list[Observation] = []
    text = model.embed("").embeddings
    with observe(model.pipe.unet, (5,), seen.append):
        for seed in (0, 1):
            model.pipe.unet(model.noise([seed], (64, 64))[0], 1 + 500 * seed, text)
    ours, theirs = seen
    pairs = [
        (p, q)
        for head in range(4)
        for p, q in zip(
            next(ours.self_attention[5][0].by_queries(64))[0, head].double().numpy(),
            next(theirs.self_attention[5][0].by_queries(64))[0, head].double().numpy(),
            strict=True,
        )
    ]
    naive = np.mean([jensenshannon(p, q, base=2) ** 2 for p, q in pairs])
    scores = measure.discrepancies(ours, theirs)
    assert scores["self-attention"][5] == pytest.approx(naive, rel=1e-3)
    for tensor, a, b in (("skip", ours.skip, theirs.skip), ("resnet", ours.resnet, theirs.resnet)):
        positions = (x[5][0].flatten(1).T.numpy() for x in (a, b))
        assert scores[tensor][5] == pytest.approx(
            np.mean([cosine(*pair) for pair in zip(*positions, strict=True)]), rel=1e-3
        )


def test_the_divergence_is_0_of_equals_and_1_of_the_disjoint() -> None:
    p = torch.softmax(torch.randn(5, 64, generator=torch.Generator().manual_seed(0)) * 3, -1)
    assert torch.equal(measure.jensen_shannon(p, p.clone()), torch.zeros(5))
    apart = torch.eye(4)
    torch.testing.assert_close(measure.jensen_shannon(apart, apart.flip(0)), torch.ones(4))


def test_what_is_not_finite_is_told(model: Model) -> None:
    seen: list[Observation] = []
    with observe(model.pipe.unet, (4,), seen.append):
        model.pipe.unet(torch.full((1, 4, 8, 8), torch.nan), 301, model.embed("").embeddings)
    with pytest.raises(PictureError, match=r"block 4 is not finite at timestep 301.*float32"):
        measure.discrepancies(seen[0], seen[0])


def test_another_method_is_compared_with_itself_without_what_it_puts_back(
    model: Model, icon: Image.Image
) -> None:
    fast = translator_of(model, built_in("correct-fast"))
    scores = dissect(fast, Request(icon, 3, "in 3d render style"), (4,)).scores
    assert len(scores["sdedit"]["self-attention"][4]) == 5  # its solver's steps, not the job's
    assert scores["correction"]["self-attention"][4] == [0] * 5
    assert min(scores["sdedit"]["self-attention"][4]) > 0


def test_features_with_own_statistics_are_observed_as_they_are_used(
    model: Model, icon: Image.Image
) -> None:
    asked = Request(icon, 3, "in 3d render style")
    adain, paper = (
        dissect(translator_of(model, built_in(name)), asked, (4,)).scores["correction"]
        for name in ("correct-adain", "correct")
    )
    assert adain["self-attention"][4] == paper["self-attention"][4] == [0] * 4
    assert paper["skip"][4] == [0] * 4 and min(adain["skip"][4]) > 0
    sdedit = dissect(translator_of(model, built_in("correct-adain")), asked, (4,)).scores["sdedit"]
    assert np.mean(adain["skip"][4]) < np.mean(sdedit["skip"][4])


def test_attention_is_dissected_at_every_level_and_timestep_of_the_inversion(
    model: Model, icon: Image.Image
) -> None:
    everywhere = Inject(tensor="self-attention", blocks=("encoder", "mid", "0+"))
    recipe = Recipe(name="wide", inversion="one-step", timestep=401, inject=(everywhere,))
    scores = dissect(translator_of(model, recipe), Request(icon, 3, ""), (3, 5, 8)).scores
    for block in (3, 5, 8):
        assert scores["correction"]["self-attention"][block] == [0] * 4
        assert min(scores["sdedit"]["self-attention"][block]) > 0


def test_a_window_ends_the_match(model: Model, icon: Image.Image) -> None:
    early = Inject(tensor="self-attention", blocks=("4",), window=(0, 0.5))
    recipe = Recipe(name="early", inversion="one-step", inject=(early,))
    scores = dissect(translator_of(model, recipe), Request(icon, 3, ""), (4,)).scores
    assert [score == 0 for score in scores["correction"]["self-attention"][4]] == [True] * 2 + [
        False
    ] * 2


def test_a_picture_becomes_a_figure_a_page_and_json(quick: Run, pictures: Path, tmp_path: Path) -> None:
    result = quick(pictures / "bicycle.png", "--point", "10,100", "--blocks", "4,second-attention.0")
    assert result.exit_code == 0, result.stderr
    out = tmp_path / "out"
    assert sorted(file.name for file in out.iterdir()) == [
        f"dissect.{s}" for s in ("html", "json", "png")
    ]
    content = json.loads((out / "dissect.json").read_text())
    assert content["timesteps"] == [501, 1]
    assert [block["block"] for block in content["blocks"]] == [4, 6]
    assert content["blocks"][0]["put_back"] == ["self-attention", "skip"]
    assert content["blocks"][0]["discrepancy"]["self-attention"]["correction"] == [0, 0]
    assert content["picture"]["path"] == "bicycle.png"
    with Image.open(pictures / "bicycle.png") as picture:
        expected = [10.5 / picture.width, 100.5 / picture.height]
    assert content["point"] == pytest.approx(expected)
    with Image.open(out / "dissect.png") as figure:
        assert figure.format == "PNG" and figure.width == 1600
    page = (out / "dissect.html").read_text()
    assert page.count("<img") == page.count("alt=") == 3 + 1 + 2 * 5 * (1 + 2 * 2)
    for attribute in ("src=", "srcset=", "href="):
        assert page.count(attribute) == page.count(f'{attribute}"data:')
    assert "0.000 *" in result.stdout and "* put back by correct" in result.stdout


def test_own_statistics_are_told_wherever_what_is_put_back_is(
    quick: Run, pictures: Path, tmp_path: Path
) -> None:
    method = (
        "{name: mine, inversion: one-step, timestep: 501, inject: [{tensor: skip, blocks: [4], "
        "statistics: own}, {tensor: self-attention, blocks: [4]}]}"
    )
    result = quick(pictures / "bicycle.png", "--set", f"method={method}", "--blocks", "4")
    assert result.exit_code == 0, result.stderr
    assert "0.000 *" in result.stdout and " ~" in result.stdout
    assert "* put back, ~ put back with own statistics by mine" in result.stdout
    content = json.loads((tmp_path / "out" / "dissect.json").read_text())
    assert content["settings"]["timestep"] == 501
    assert content["blocks"][0]["put_back"] == ["skip", "self-attention"]
    assert content["blocks"][0]["own_statistics"] == ["skip"]
    page = (tmp_path / "out" / "dissect.html").read_text()
    assert "skip with own statistics and self-attention put back by mine" in page
    assert page.count("put back with own statistics") == 1
    assert "inversion<br>t = 501" in page


def test_names_and_prompts_are_text_in_the_page(quick: Run, pictures: Path, tmp_path: Path) -> None:
    name = "<script>alert('a')<script>&\"$x^2$\udcff.jpg"
    (pictures / "church.jpg").rename(pictures / name)
    result = quick(pictures / name, "-p", "<b>bold</b>")
    assert result.exit_code == 0, result.stderr
    page = (tmp_path / "out" / "dissect.html").read_text()
    assert "<script" not in page and "<b>bold" not in page
    assert "&lt;script&gt;alert" in page and "&lt;b&gt;bold" in page


@pytest.mark.slow
def test_the_table_of_a_long_name_fits_and_says_what_it_does_not_show(
    quick: Run, pictures: Path
) -> None:
    result = quick(pictures / "bicycle.png", "--method", "correct-wide", "--blocks", "4")
    assert result.exit_code == 0, result.stderr
    assert max(len(line) for line in result.stdout.splitlines() if line[0] in "┏┃└") <= 80
    assert re.search(r"block\b.*SDEdit", result.stdout) and re.search(r"^│ 4 ", result.stdout, re.M)
    assert "query (not shown) put back by correct-wide" in result.stdout


def test_a_folder_becomes_a_table_of_all_blocks(quick: Run, pictures: Path, tmp_path: Path) -> None:
    (pictures / "broken.png").write_bytes(b"no picture")
    result = quick(pictures)
    assert result.exit_code == 3
    assert "failed: broken.png: " in result.stderr
    content = json.loads((tmp_path / "out" / "dissect.json").read_text())
    assert [block["block"] for block in content["blocks"]] == [3, 4, 5, 6, 7, 8]
    assert [picture["path"] for picture in content["pictures"]] == [
        "bicycle.png",
        "church.jpg",
        "sub/ghost.png",
    ]
    assert [failed["path"] for failed in content["failed"]] == ["broken.png"]
    of_pictures = [p["discrepancy"]["3"]["self-attention"]["sdedit"] for p in content["pictures"]]
    mean = content["blocks"][0]["discrepancy"]["self-attention"]["sdedit"]
    assert mean == pytest.approx(np.mean(of_pictures)) and len(set(of_pictures)) == 3
    assert "mean over 3 pictures and 2 steps" in " ".join(result.stdout.split())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--point", "400,10"], "--point 400,10: lies outside the picture of 128x128 px"),
        (["--point", "0.5,1.5"], "--point 0.5,1.5: lies outside"),
        (["--point", "middle"], "--point middle: expected x,y in pixels"),
        (
            ["--blocks", "2"],
            "--blocks 2: block 2 of this U-Net has no self-attention; choose from blocks",
        ),
        (["--blocks", "mid"], "--blocks mid: mid is not in the decoder"),
        (["--blocks", "3-5"], "--blocks 3-5: '3-5' names no blocks; give a number"),
        (["--timesteps", "500"], "--timesteps: 500 is not among the 2 timesteps that are run"),
        (["--timesteps", "first"], "--timesteps first: expected whole numbers"),
        (["--method", "sdedit"], "recipe sdedit has no one-step inversion"),
        (["--method", "corect"], "did you mean correct?"),
        (["--set", "method={name: m, inversion: one-step, reuse_every: 2}"], "reuse_every"),
        (["--strength", "0.1"], "less than one step"),
    ],
)
def test_what_is_wrong_is_one_line(
    quick: Run, pictures: Path, tmp_path: Path, arguments: list[str], message: str
) -> None:
    result = quick(pictures / "bicycle.png", *arguments)
    assert result.exit_code == 2
    assert message in result.stderr and result.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_what_is_no_picture_is_one_line(quick: Run, pictures: Path, tmp_path: Path) -> None:
    broken = tmp_path / "only" / "broken.png"
    broken.parent.mkdir()
    broken.write_bytes(b"no picture")
    for arguments, message, lines in (
        ((broken,), "broken.png: not a picture that can be read", 1),
        ((tmp_path / "nowhere.png",), "there is no such folder or file", 1),
        ((broken.parent,), "no picture could be dissected; 1 failed", 2),
        ((pictures, "--point", "1,1"), "several pictures give only a table", 1),
    ):
        result = quick(*arguments)
        assert result.exit_code in (1, 2)
        assert message in result.stderr and result.stderr.count("\n") == lines


def test_the_point_is_of_the_whole_picture_however_it_is_fitted() -> None:
    whole = (300, 100)
    kept = {resize: Sizing(resize, 64, 32).kept(whole) for resize in ("fit", "crop", "none")}
    assert kept == {"fit": (300, 100), "crop": (100, 100), "none": (288, 96)}
    assert place_point("0.5,0.5", whole, kept["crop"]) == (0.5, 0.5)
    assert place_point("100,50", whole, kept["crop"]) == pytest.approx((0.005, 0.505))
    with pytest.raises(UsageError, match="the model sees the central 100x100"):
        place_point("99,50", whole, kept["crop"])


def test_steps_are_drawn_evenly_from_the_first_to_the_last(model: Model) -> None:
    assert choose_timesteps([], [801, 601, 401, 201, 1]) == [801, 401, 1]
    assert choose_timesteps([], [401, 1]) == [401, 1]
    assert choose_timesteps([], [1]) == [1]
    assert choose_timesteps([1, 401], [801, 401, 1]) == [401, 1]
    assert choose_blocks("5,first-attention.0", model.layout) == (3, 5)
