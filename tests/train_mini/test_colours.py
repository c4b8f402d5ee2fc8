"""What colours say of styles, alone and within the image tower."""

import clip_colours
import colours
import data
import lite
import pytest
import tokenizer
import torch
import towers
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d
from transformers import EfficientNetModel
from widen import with_colours

STYLES = len(data.STYLES)


@pytest.fixture
def known() -> colours.Colours:
    torch.manual_seed(0)
    made = colours.Colours(6 * torch.rand(lite.TENTS, 3))
    nn.init.normal_(made.styles.weight, std=1e-3)
    return made


def _of_pixels(known: colours.Colours, pixels: Tensor) -> Tensor:
    """The mean logits of (n, 3, 64, 64) as the tower sees them: (n, styles)."""
    means = avg_pool2d(towers.as_seen(pixels), 2)
    return known(3 * means.movedim(1, -1) + 3).mean((1, 2))


def test_a_tent_stands_over_its_colour_and_falls_with_the_distance() -> None:
    # at the ends of ramps, where they sum up to the distance exactly
    start = torch.tensor([[3.0, 0.75, 6.0]])
    known = colours.Colours(start.expand(lite.TENTS, -1))
    with torch.no_grad():
        known.styles.weight[:] = 1 / colours.GAIN / lite.TENTS
    steps = torch.tensor([[0.0, 0, 0], [0.75, 0, 0], [-0.75, 0, 0], [0, 0.75, 0], [0, 0.75, -0.75]])
    found = known(start + steps)
    far = 6 - 0.75 * colours.STEEP
    expected = torch.tensor([6, far, far, far, 0.0])[:, None].expand_as(found)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


def test_colours_are_counted_as_the_tower_sees_them() -> None:
    pictures = torch.zeros(2, 3, 64, 64, dtype=torch.uint8)
    pictures[0, :, :, :32] = torch.tensor([255, 128, 3])[:, None, None]
    pictures[1] = 255
    counts = colours.Counts(pictures)
    shares = counts.shares.to_dense()
    assert torch.allclose(shares.sum(1), torch.ones(2))
    # but for what bicubic makes of the edge
    assert shares[0].topk(2).values.tolist() == pytest.approx([0.5, 0.5], abs=0.04)
    most = counts.colours[shares[0].topk(2).indices]
    assert torch.allclose(most[most[:, 0].argsort()], torch.tensor([[0, 0, 0], [6, 3, 0.1]]), atol=0.1)
    assert torch.allclose(counts.colours[shares[1].argmax()], torch.tensor(6.0), atol=0.1)


def _tower(side: int) -> EfficientNetModel:
    """With four channels of its stem silent, as Lite0's are."""
    torch.manual_seed(1)
    tower = EfficientNetModel(lite.config(side)).eval()
    for part in tower.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight)
        if isinstance(part, nn.BatchNorm2d):
            nn.init.uniform_(part.weight, 1, 2)
            nn.init.normal_(part.bias)
    norm = tower.embeddings.batchnorm
    with torch.no_grad():
        norm.weight[[3, 5, 20, 31]], norm.bias[[3, 5, 20, 31]] = 0.1, -9
    return tower


def test_the_tower_sees_as_before_and_the_colours_too(known: colours.Colours) -> None:
    tower = _tower(towers.SEEN)
    top = torch.arange(100, 100 + 2 * STYLES).reshape(2, STYLES)
    wide, scale = with_colours(tower, known, top)
    pixels = 2 * torch.rand(3, 3, 1, 1) - 1 + 0.3 * torch.randn(3, 3, 64, 64)
    with torch.inference_mode():
        pixels = pixels.clamp(-1, 1)
        before, after = (one(pixel_values=towers.as_seen(pixels)).pooler_output for one in (tower, wide))
        expected = _of_pixels(known, pixels)
    left = torch.ones(lite.WIDTH, dtype=torch.bool)
    left[top.flatten()] = False
    assert before.std(0).mean() > 0.1
    torch.testing.assert_close(after[:, left], before[:, left], rtol=1e-3, atol=1e-3)
    assert expected.std() > 0.05
    torch.testing.assert_close(
        (after[:, top[0]] - after[:, top[1]]) / scale, expected, rtol=1e-3, atol=1e-3
    )


def test_what_colours_say_is_added_to_the_logits_of_styles(known: colours.Colours) -> None:
    torch.manual_seed(2)
    clip = towers.build(tokenizer.learned(["a cat", "a dog"], 530)).eval()
    clip.vision_model = _tower(towers.SEEN)
    styles = torch.linalg.qr(torch.randn(towers.PROJECTION, STYLES))[0].T
    pictures = (torch.randint(150, (4, 3, 1, 1)) + torch.randint(100, (4, 3, 64, 64))).to(torch.uint8)
    pixels = data.as_pixels(pictures)
    with torch.inference_mode():
        pooled = clip.vision_model(pixel_values=towers.as_seen(pixels)).pooler_output
        before = clip.visual_projection(pooled)
        clip_colours.tell(clip, known, styles, pictures)
        after = clip.visual_projection(
            clip.vision_model(pixel_values=towers.as_seen(pixels)).pooler_output
        )
        # both in CLIP's logits: of the tower but for what least told, of the colours
        factor = clip.logit_scale.exp() / before.norm(dim=1).mean()
        added = factor * (after - before) @ styles.T
        torch.testing.assert_close(added, _of_pixels(known, pixels), rtol=0.05, atol=0.05)
        assert clip.config.vision_config.out_channels == clip.vision_model.config.out_channels
