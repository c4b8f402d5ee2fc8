"""The metrics against their definitions."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from click.testing import Result
from PIL import Image
from scipy.stats import wilcoxon
from skimage.metrics import structural_similarity
from test_evaluate import figures, table
from torchmetrics.functional.image import structural_similarity_index_measure
from transformers import CLIPModel, VisionTextDualEncoderModel, ViTModel

from sdcorrect.evaluate.clip import Clip
from sdcorrect.evaluate.pixels import grey_ssim
from sdcorrect.evaluate.profiles import PROFILES, choose
from sdcorrect.evaluate.statistics import compare, mean_of
from sdcorrect.evaluate.structure import Structure, structure_distance
from sdcorrect.inputs.pie_bench import decode_mask

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("name", "kind"), [("clip", CLIPModel), ("convolutional", VisionTextDualEncoderModel)]
)
def test_clip_is_the_models_own(networks: Path, icon: Image.Image, name: str, kind: Any) -> None:
    clip = Clip(str(networks / name))
    model = kind.from_pretrained(networks / name, dtype=torch.float32).eval()
    texts = ["in 3d render style", "a church"]
    inputs = clip.tokenizer(texts, padding=True, return_tensors="pt")
    pixel_values = clip.processor(icon, return_tensors="pt").pixel_values
    expected = model(**inputs, pixel_values=pixel_values).logits_per_image / model.logit_scale.exp()
    torch.testing.assert_close(clip.images([icon]) @ clip.texts(texts).T, expected)


def test_clip_cuts_long_texts_and_counts_them(networks: Path) -> None:
    clip = Clip(str(networks / "clip"))
    long, longer = "a church on a hill " * 8, "a church on a hill " * 9
    torch.testing.assert_close(clip.texts([long]), clip.texts([longer]))
    assert clip.cut == 2


@pytest.mark.parametrize("raw", [False, True])
def test_structure_is_how_the_last_keys_resemble_each_other(
    networks: Path, icon: Image.Image, raw: bool
) -> None:
    structure = Structure(str(networks / "vit"), device=CPU, raw=raw)
    (found,) = structure.similarities([icon])
    model = ViTModel.from_pretrained(networks / "vit", add_pooling_layer=False)
    pixels = torch.from_numpy(np.array(icon)).permute(2, 0, 1)[None].float()
    small = torch.nn.functional.interpolate(pixels, 32, mode="bilinear", antialias=not raw)
    mean, deviation = (
        torch.tensor(v)[:, None, None] for v in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    )
    before = model((small / (1 if raw else 255) - mean) / deviation, output_hidden_states=True)
    layer = model.layers[-1]
    keys = layer.attention.k_proj(layer.layernorm_before(before.hidden_states[-2]))[0]
    expected = torch.nn.functional.cosine_similarity(keys[:, None], keys[None], dim=-1)
    assert found.shape == (17, 17)  # 4 x 4 patches and the class token
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_structure_of_pictures_of_any_shape_alone_or_together(networks: Path, icon: Image.Image) -> None:
    structure = Structure(str(networks / "clip"), device=CPU)
    wide = icon.resize((128, 64))
    one, other = structure.similarities([icon, wide])
    assert (one.shape, other.shape) == ((17, 17), (33, 33))
    torch.testing.assert_close(one, structure.similarities([icon])[0])
    mirrored = structure.similarities([icon.transpose(Image.Transpose.FLIP_LEFT_RIGHT)])[0]
    assert structure_distance(one, one) == 0 < structure_distance(one, mirrored)


def test_structure_of_a_convolutional_tower_is_that_of_its_last_map_of_8x8(
    networks: Path, icon: Image.Image
) -> None:
    structure = Structure(str(networks / "convolutional"), device=CPU)
    one, wide = structure.similarities([icon, icon.resize((128, 64))])
    assert (one.shape, wide.shape) == ((64, 64), (128, 128))
    assert one.min() < 0.9
    model = VisionTextDualEncoderModel.from_pretrained(networks / "convolutional").eval()
    # the tower sees the icon at its own 64 px
    pixels = Clip(str(networks / "convolutional")).processor(icon, return_tensors="pt").pixel_values
    maps = model.vision_model(pixels, output_hidden_states=True).hidden_states
    (fine,) = [part for part in maps if part.shape[-1] == 8]
    places = fine[0].flatten(1).T
    expected = torch.nn.functional.cosine_similarity(places[:, None], places[None], dim=-1)
    torch.testing.assert_close(one, expected, rtol=1e-4, atol=1e-5)


def test_the_papers_ssim_is_of_grey_bytes(icon: Image.Image) -> None:
    other = icon.rotate(5)
    greys = [cv2.cvtColor(np.array(image), cv2.COLOR_RGB2GRAY) for image in (icon, other)]
    assert grey_ssim(icon, other) == structural_similarity(*greys)
    assert grey_ssim(icon, icon) == 1


def test_pie_bench_masks_are_runs_and_a_border() -> None:
    mask = np.asarray(decode_mask([512 * 10 + 20, 5, 512 * 11 + 20, 5])) > 0
    inner = mask[1:-1, 1:-1]
    assert mask[0].all() and mask[-1].all() and mask[:, 0].all() and mask[:, -1].all()
    assert inner.sum() == 10 and mask[10:12, 20:25].all()


def test_pie_bench_blackens_what_it_does_not_look_at(
    folders: Any, networks: Path, evaluate: Callable[..., Result], tmp_path: Path
) -> None:
    """A mask over the left half, one over all, one over nothing."""
    masks = tmp_path / "masks"
    (masks / "sub").mkdir(parents=True)
    half = Image.new("L", (32, 32))
    half.paste(255, (0, 0, 16, 32))
    half.save(masks / "church.png")
    Image.new("L", (32, 32), 255).save(masks / "bicycle.png")
    Image.new("L", (128, 128)).save(masks / "sub" / "ghost.png")
    metrics = "ssim_unedited,ssim_edited,clip_text,clip_text_edited,clip_text_source,structure_distance"
    options = ("--metrics", metrics, "--masks", masks, "--structure", networks / "vit")
    result = evaluate("--profile", "pie-bench", *options)
    assert result.exit_code == 0, result.stderr
    rows = table(folders.out)
    output = np.array(Image.open(folders.out / "correct" / "church.png"))
    source = np.array(Image.open(folders.pictures / "church.png").resize((32, 32), 1))
    output[:, :16] = source[:, :16] = 0
    pair = (torch.from_numpy(p).permute(2, 0, 1)[None] / 255 for p in (output, source))
    expected = structural_similarity_index_measure(*pair, data_range=1.0)
    assert rows["correct", "church.png"]["ssim_unedited"] == pytest.approx(float(expected), rel=1e-4)
    assert np.isnan(rows["correct", "bicycle.png"]["ssim_unedited"])
    assert np.isnan(rows["correct", "sub/ghost.png"]["clip_text_edited"])
    edited = figures(folders.out)["variants"]["correct"]["metrics"]["clip_text_edited"]
    assert (edited["n"], edited["not_finite"]) == (2, 1)
    clip = Clip(str(networks / "clip"))
    flat = clip.texts(["in flat design style"])[0]
    cosine = float(clip.images([Image.open(folders.pictures / "church.png").resize((32, 32), 1)]) @ flat)
    assert rows["sdedit", "church.png"]["clip_text_source"] == pytest.approx(
        max(100 * cosine, 0), rel=1e-4
    )


def test_pie_bench_masks_of_its_own_file(
    folders: Any, evaluate: Callable[..., Result], tmp_path: Path
) -> None:
    """Run-length masks of 512 px on pictures translated at another size."""
    names = ("bicycle.jpg", "church.jpg", "sub/ghost.jpg")
    mapping = tmp_path / "mapping_file.json"
    mapping.write_text(
        json.dumps(
            {str(n): {"image_path": name, "mask": [0, 512 * 256]} for n, name in enumerate(names)}
        )
    )
    options = ("--metrics", "mse,mse_unedited,mse_edited", "--masks", mapping)
    result = evaluate("--profile", "pie-bench", *options)
    assert result.exit_code == 0, result.stderr
    for values in table(folders.out).values():
        assert values["mse_unedited"] > 0 < values["mse_edited"]
        assert values["mse"] == pytest.approx(values["mse_unedited"] + values["mse_edited"], rel=1e-3)


def test_profiles_choose_among_their_own_metrics() -> None:
    for profile in PROFILES.values():
        names = {metric.name for metric in profile.metrics}
        assert set(profile.chosen) <= names and len(names) == len(profile.metrics)
    chosen = choose(PROFILES["default"], ["ssim", "clip_text", "ssim"], truth=True, styles=False)
    assert [metric.name for metric in chosen] == ["ssim", "clip_text", "ssim_truth"]
    assert [
        metric.higher_is_better for metric in PROFILES["pie-bench"].metrics if metric.kind == "mse"
    ] == [False] * 3


def test_the_interval_covers_the_true_mean_about_as_often_as_it_says() -> None:
    random = np.random.default_rng(0)
    means = [mean_of(random.normal(3, 1, 40)) for _ in range(100)]
    covering = sum(mean.low < 3 < mean.high for mean in means)  # type: ignore[operator]
    assert 88 <= covering <= 99


def test_values_that_are_not_finite_do_not_count_and_are_counted() -> None:
    mean = mean_of(np.array([1.0, 3.0, np.inf, np.nan]))
    assert (mean.n, mean.mean, mean.not_finite) == (2, 2, 2)
    alone = mean_of(np.array([1.0]))
    assert (alone.mean, alone.low, alone.high) == (1, None, None)


def test_variants_are_compared_on_the_pictures_of_both() -> None:
    random = np.random.default_rng(1)
    base = {str(n): float(value) for n, value in enumerate(random.normal(size=30))}
    variant = {path: value + 0.3 + 0.1 * n for n, (path, value) in enumerate(base.items())}
    del variant["0"]
    variant["new"] = 99.0
    found = compare(variant, base, higher_is_better=True)
    differences = [variant[path] - base[path] for path in variant if path in base]
    assert found.n == 29 and found.better == 1
    assert found.difference == pytest.approx(np.mean(differences))
    assert found.p == wilcoxon(differences).pvalue < 0.01
    assert compare(variant, base, higher_is_better=False).better == 0
    assert compare(base, base, higher_is_better=True).p == 1
    assert compare({}, base, higher_is_better=True).p is None
