"""The image tower's beginning: the classifier's weights, in their places."""

from itertools import groupby

import lite
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import pad, relu6
from transformers import EfficientNetModel

#: Kernel, width and stride of each stage of EfficientNet-Lite0 (Tan and Le 2019, table 1).
STAGES = [(3, 16, 1), (3, 24, 2), (5, 40, 2), (3, 80, 2), (5, 112, 1), (5, 192, 2), (3, 320, 1)]


def _same(pixels: Tensor, kernel: int, stride: int) -> Tensor:
    """Padded as TensorFlow does it, more at the end."""
    missing = max(kernel - stride, 0)
    before = missing // 2
    return pad(pixels, (before, missing - before, before, missing - before))


class Block(nn.Module):
    def __init__(self, inner: int, width: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        self.kernel, self.stride, self.skips = kernel, stride, stride == 1 and inner == width
        wide = inner * expansion
        if expansion > 1:
            self._expand_conv = nn.Conv2d(inner, wide, 1, bias=False)
            self._bn0 = nn.BatchNorm2d(wide, eps=1e-3)
        self._depthwise_conv = nn.Conv2d(wide, wide, kernel, stride, groups=wide, bias=False)
        self._bn1 = nn.BatchNorm2d(wide, eps=1e-3)
        self._project_conv = nn.Conv2d(wide, width, 1, bias=False)
        self._bn2 = nn.BatchNorm2d(width, eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        y = relu6(self._bn0(self._expand_conv(x))) if hasattr(self, "_expand_conv") else x
        y = relu6(self._bn1(self._depthwise_conv(_same(y, self.kernel, self.stride))))
        y = self._bn2(self._project_conv(y))
        return x + y if self.skips else y


class Lite0(nn.Module):
    """As the package has it, by its names."""

    def __init__(self) -> None:
        super().__init__()
        self._conv_stem = nn.Conv2d(3, 32, 3, 2, bias=False)
        self._bn0 = nn.BatchNorm2d(32, eps=1e-3)
        blocks, inner = [], 32
        self.stages = []
        for stage, ((kernel, width, stride), count) in enumerate(zip(STAGES, lite.LITE0, strict=True)):
            for place in range(count):
                blocks.append(Block(inner, width, kernel, 1 if place else stride, 6 if stage else 1))
                self.stages.append(stage)
                inner = width
        self._blocks = nn.ModuleList(blocks)
        self._conv_head = nn.Conv2d(320, lite.WIDTH, 1, bias=False)
        self._bn1 = nn.BatchNorm2d(lite.WIDTH, eps=1e-3)
        self._fc = nn.Linear(lite.WIDTH, 1000)

    def features(self, pixels: Tensor, kept: tuple[int, ...]) -> Tensor:
        x = relu6(self._bn0(self._conv_stem(_same(pixels, 3, 2))))
        for stage, blocks in groupby(zip(self._blocks, self.stages, strict=True), lambda pair: pair[1]):
            for block, _ in list(blocks)[: kept[stage]]:
                x = block(x)
        return relu6(self._bn1(self._conv_head(x))).mean((2, 3))


@pytest.mark.parametrize("kept", [lite.LITE0, lite.KEPT])
def test_the_tower_starts_as_the_classifier(
    kept: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lite, "KEPT", kept)
    torch.manual_seed(0)
    classifier, tower = Lite0().eval(), EfficientNetModel(lite.config(64)).eval()
    for part in classifier.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.uniform_(part.weight, 1, 3)
            nn.init.normal_(part.bias, std=0.5)
            nn.init.normal_(part.running_mean, std=0.1)
    lite.start_from(classifier, tower)
    pixels = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        expected, found = classifier.features(pixels, kept), tower(pixels).pooler_output
    assert expected.std() > 0.1
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
