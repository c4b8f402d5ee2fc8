"""Which colours a picture is of, exactly: each set has its own, and is best known by them.

A flat picture and a cartoon of one thing differ in little else. Their style is one word to learn from a
picture; these are many numbers, and the same for a picture that was never seen.
"""

import torch
from data import as_pixels
from torch import Tensor

#: Shades that a channel is counted in, and main axes of the counts that are kept.
SHADES, AXES = 16, 128


def counts(pixels: Tensor) -> Tensor:
    """Pixels (pictures, 3, height, width), from -1 to 1 -> (pictures, `SHADES`^3).

    Roots of how many there are of each colour, so that the ground does not outweigh the rest.
    """
    red, green, blue = ((pixels.clamp(-1, 1) + 1) * (SHADES / 2)).long().clamp(max=SHADES - 1).unbind(1)
    colours = ((red * SHADES + green) * SHADES + blue).flatten(1)
    found = torch.zeros(len(pixels), SHADES**3)
    return found.scatter_add_(1, colours, torch.ones(colours.shape)).sqrt()


class Palettes:
    """The main axes on which the colours of `pictures` (n, 3, 64, 64), uint8, differ; n >= `AXES`."""

    def __init__(self, pictures: Tensor) -> None:
        found = counts(as_pixels(pictures))
        _, values, axes = torch.pca_lowrank(found, AXES, niter=4)
        spread = values.square() / len(found)
        # an axis weighs by the root of its spread
        self.axes = axes / spread.clamp(min=1e-6) ** 0.25

    def of(self, pixels: Tensor) -> Tensor:
        """(pictures, 3, height, width), from -1 to 1 -> (pictures, `AXES`)."""
        return counts(pixels) @ self.axes


def missed(said: Tensor, true: Tensor) -> Tensor:
    """The part of `true`'s spread that `said` does not tell: 0 at best, 1 if it is always the same."""
    said, true = said - said.mean(0), true - true.mean(0)
    return (said - true).square().mean() / true.square().mean()
