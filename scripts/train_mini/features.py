"""Compute the features of two image classifiers for all icons, as targets for the image tower.

A regression on both together names more of the held-out icons than a regression on either.
"""

from typing import Any

import numpy as np
import torch
from data import ICONS, STYLES, Icons, Row, as_pixels, more_icons, say
from lite import classifiers
from torch import Tensor
from torch.nn.functional import interpolate, normalize

#: px at which the classifiers see an icon, and the number of principal axes of their features.
SIZE, AXES = 160, 256
#: Regularisation of the regression of names on features; with less it memorises the icons.
RIDGE = 3000.0


@torch.inference_mode()
def see(pictures: Tensor, networks: list[Any]) -> Tensor:
    """(pictures, 3, 64, 64), uint8 -> (pictures, 2560): the last features, averaged over the picture."""
    found = []
    for part in torch.split(pictures, 64):
        large = interpolate(as_pixels(part), size=SIZE, mode="bicubic")
        with torch.autocast("cpu", torch.bfloat16):
            seen = [network.extract_features(large).float().mean((2, 3)) for network in networks]
        found.append(torch.cat(seen, dim=1))
    return torch.cat(found)


class Teacher:
    """The targets for each of `rows`, then for each of the other icons.

    features: (pictures, `AXES`), the classifiers' features on their principal axes.
    names: (pictures, width of the embeddings), of unit length: the output of a ridge regression on the
        features, which was fitted to the embeddings of the names of `rows`.
    """

    def __init__(self, icons: Icons, rows: list[Row], of_names: Tensor) -> None:
        with np.load(ICONS / "features.npz") as stored:
            own = {style: torch.from_numpy(stored[style]).float() for style in STYLES}
            others = torch.from_numpy(stored["more"]).float()
        seen = torch.stack([own[style][concept] for concept, style in rows])
        mean, spread = seen.mean(0), seen.std(0)
        seen, others = (seen - mean) / spread, (others - mean) / spread
        alike = seen.T @ seen
        fitted = torch.linalg.solve(alike + RIDGE * torch.eye(len(alike)), seen.T @ of_names)
        variances, axes = torch.linalg.eigh(alike / len(seen))
        both = torch.cat([seen, others])
        self.names = normalize(both @ fitted, dim=-1)
        # an axis has the root of its deviation as its weight
        self.features = both @ (axes / variances.clamp(min=1e-6) ** 0.25)[:, -AXES:]


def main() -> None:
    icons, more, networks = Icons(), more_icons(), classifiers()
    stored: dict[str, Any] = {}
    for style, pictures in {**icons.pictures, "more": more.pictures}.items():
        stored[style] = see(torch.from_numpy(pictures).permute(0, 3, 1, 2), networks).half().numpy()
        say(f"{style}: {len(pictures)} seen")
    np.savez(ICONS / "features.npz", **stored)


if __name__ == "__main__":
    main()
