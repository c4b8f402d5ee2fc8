"""Which colours each style is drawn in: each set has its own, and is best known by them.

A flat picture and a cartoon of one thing differ in little else. A tower that starts from photographs is
not made to tell shades exactly; this network is, and is small and simple enough to be set into the tower
(`widen.py`): it knows a pixel by its colour alone, and a picture as the mean of its pixels.
"""

import torch
from data import STYLES, as_pixels
from lite import RAMPS, TENTS
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, relu6
from towers import as_seen

#: How steep a tent is at first.
STEEP = 4.0
#: Of the last weights, so that one rate of learning suits all.
GAIN = 250.0
#: Shades of a channel that are told apart while pictures' colours are counted.
SHADES = 32


class Colours(nn.Module):
    """(..., 3) colours from 0 to 6, where ReLU6 ends -> (..., styles) logits.

    `start` (`TENTS`, 3) are the colours that the tents stand over at first.
    """

    def __init__(self, start: Tensor) -> None:
        super().__init__()
        self.tents = nn.Linear(3 * RAMPS, TENTS)
        self.styles = nn.Linear(TENTS, len(STYLES), bias=False)
        ends = torch.arange(RAMPS + 1) * (6 / RAMPS)
        # the distance to a colour, summed up over ramps that each rise by 6
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
    """How much of each of `pictures` (n, 3, 64, 64), uint8, is of which colour."""

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
    """The colour of each 2x2 pixels that the tower sees, as one number: (pictures, 4096)."""
    means = avg_pool2d(as_seen(as_pixels(pictures)), 2)
    red, green, blue = ((means + 1) * (SHADES / 2)).long().clamp(max=SHADES - 1).unbind(1)
    return ((red * SHADES + green) * SHADES + blue).flatten(1)
