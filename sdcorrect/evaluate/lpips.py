"""LPIPS, with networks from torchvision; nothing is downloaded without being asked for."""

from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from sdcorrect.errors import UsageError

#: torchvision's names of the networks and their weights.
NETWORKS = {
    "alex": ("alexnet", "AlexNet_Weights"),
    "squeeze": ("squeezenet1_1", "SqueezeNet1_1_Weights"),
}


class Lpips:
    """Learned perceptual distance (Zhang et al. 2018) of two pictures, (1, 3, height, width) in [0, 1].

    Raises:
        UsageError: torchvision or the network's weights are missing on this machine.
    """

    def __init__(self, net: Literal["alex", "squeeze"], device: torch.device) -> None:
        _check_weights(net)
        from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

        self._distance = LearnedPerceptualImagePatchSimilarity(net, normalize=True).to(device)

    def __call__(self, output: Tensor, other: Tensor) -> float:
        return float(self._distance(output, other))


def _check_weights(net: str) -> None:
    try:
        from torchvision import models
    except ImportError:
        raise UsageError("metric lpips needs torchvision; run `pip install torchvision`") from None
    name, weights = NETWORKS[net]
    url: str = getattr(models, weights).DEFAULT.url
    if not (Path(torch.hub.get_dir()) / "checkpoints" / Path(url).name).is_file():
        fetch = f"from torchvision.models import {name}; {name}(weights='DEFAULT')"
        raise UsageError(
            f"metric lpips needs the weights of {name}, which are not on this machine; "
            f'download them with `python -c "{fetch}"`'
        )
