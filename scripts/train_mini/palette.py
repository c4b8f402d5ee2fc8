"""Tell an icon's style by its palette alone: a regression on the counts of its colours."""

import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor

#: Colours that fewer pictures have are nobody's palette.
SELDOM = 20
LEVELS = 16


def counts(pictures: Tensor) -> Tensor:
    """(pictures, 3, 64, 64), uint8 -> (pictures, 4096): the roots of how often each colour stands."""
    red, green, blue = (pictures // (256 // LEVELS)).long().flatten(2).unbind(1)
    colours = (red * LEVELS + green) * LEVELS + blue
    found = torch.zeros(len(pictures), LEVELS**3)
    return found.scatter_add_(1, colours, torch.ones(colours.shape)).sqrt()


class Palettes:
    """The palette of each style, learned from `pictures` of `style`.

    It generalises to icons that it never saw, for sets have few colours; the image tower, which could
    know its pictures by heart instead, learns its judgement of any picture.
    """

    def __init__(self, pictures: Tensor, style: Tensor) -> None:
        seen = counts(pictures)
        self.common = (seen > 0).sum(0) > SELDOM
        regression = LogisticRegression(C=0.02, max_iter=200).fit(
            seen[:, self.common].numpy(), style.numpy()
        )
        self.weights = torch.from_numpy(regression.coef_.T).float()
        self.offsets = torch.from_numpy(regression.intercept_).float()

    def judge(self, pixels: Tensor) -> Tensor:
        """(pictures, 3, 64, 64), from -1 to 1 -> (pictures, styles): how likely each style is."""
        seen = counts(((pixels + 1) * 127.5).round().to(torch.uint8))
        return (seen[:, self.common] @ self.weights + self.offsets).softmax(dim=1)


def recoloured(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """Each channel of each picture of (pictures, 3, 64, 64) made a little stronger or weaker."""
    strength = 1 + 0.1 * (2 * torch.rand(len(pixels), 3, 1, 1, generator=generator) - 1)
    return (1 - (1 - pixels) * strength).clamp(-1, 1)
