"""Recognise styles by colour: each set has its own colours, and they identify it best.

A flat picture and a cartoon of the same thing differ in little else. A tower that starts from
photographs does not distinguish shades exactly. This network does, and it is small and simple enough to
be built into the tower (`widen.py`): it scores a pixel by its colour alone, and a picture by the mean.
"""

import torch
from data import STYLES, as_pixels
from lite import RAMPS, TENTS
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, relu6
from towers import as_seen

#: The initial slope of a tent.
STEEP = 4.0
#: Scale of the last weights, so that one learning rate suits all weights.
GAIN = 250.0
#: The number of shades per channel when colours are counted.
SHADES = 32


class Colours(nn.Module):
    """(..., 3) colours from 0 to 6, the range of ReLU6 -> (..., styles) logits.

    `start` (`TENTS`, 3) holds the initial centres of the tents.
    """

    def __init__(self, start: Tensor) -> None:
        super().__init__()
        self.tents = nn.Linear(3 * RAMPS, TENTS)
        self.styles = nn.Linear(TENTS, len(STYLES), bias=False)
        ends = torch.arange(RAMPS + 1) * (6 / RAMPS)
        # the distance to a colour, as a sum over ramps that each rise by 6
        rises = (ends - start[..., None]).abs().diff(dim=-1) / 6
        with torch.no_grad():
            self.tents.weight.copy_(-STEEP * rises.flatten(1))
            self.tents.bias.copy_(6 - STEEP * start.sum(1))
            self.styles.weight.zero_()

    def forward(self, colours: Tensor) -> Tensor:
        ramps = relu6(RAMPS * colours[..., None] - 6 * torch.arange(RAMPS)).flatten(-2)
        logits: Tensor = GAIN * self.styles(relu6(self.tents(ramps)))
        return logits


class Counts:
    """The share of each colour in each of `pictures` (n, 3, 64, 64), uint8."""

    def __init__(self, pictures: Tensor) -> None:
        codes = torch.cat([_codes(part) for part in torch.split(pictures, 256)])
        used, colour = torch.unique(codes, return_inverse=True)
        picture = torch.arange(len(codes))[:, None].expand_as(codes)
        share = torch.full((codes.numel(),), 1 / codes.shape[1])
        places = torch.stack([picture.flatten(), colour.flatten()])
        #: (pictures, colours), sparse: each row's sum is 1
        self.shares = torch.sparse_coo_tensor(
            places, share, (len(codes), len(used)), check_invariants=True
        ).coalesce()
        shades = torch.stack([used // SHADES**2, used // SHADES % SHADES, used % SHADES], dim=1)
        #: (colours, 3), from 0 to 6
        self.colours = (shades + 0.5) * (6 / SHADES)


def _codes(pictures: Tensor) -> Tensor:
    """The mean colour of each 2x2 pixels that the tower sees, as one number: (pictures, 4096)."""
    means = avg_pool2d(as_seen(as_pixels(pictures)), 2)
    red, green, blue = ((means + 1) * (SHADES / 2)).long().clamp(max=SHADES - 1).unbind(1)
    return ((red * SHADES + green) * SHADES + blue).flatten(1)
