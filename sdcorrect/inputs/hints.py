"""The hints of a picture: made from it, or found ready-made."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from sdcorrect.errors import PictureError, UsageError, printable
from sdcorrect.inputs.names import SUFFIXES
from sdcorrect.inputs.pictures import Picture, Sizing
from sdcorrect.settings import CANNY, ControlNet


def check_folders(controlnets: Sequence[ControlNet]) -> None:
    """Refuse hints that can be had from nowhere.

    Raises:
        UsageError: a folder of hints is not there, cannot be listed or is empty.
    """
    for network in controlnets:
        if network.hint == CANNY:
            continue
        try:
            problem = "" if any(Path(network.hint).iterdir()) else "the folder is empty"
        except OSError as error:
            problem = f"there is no such folder ({error.strerror})"
        if problem:
            raise UsageError(
                f"controlnet {printable(network.path)}: hint {printable(network.hint)}: {problem}; "
                "give a folder of ready-made hints, or canny"
            )


def hints_of(
    picture: Picture, controlnets: Sequence[ControlNet], sizing: Sizing
) -> tuple[Image.Image, ...]:
    """A hint for each ControlNet, as large as the picture.

    Raises:
        PictureError: a ready-made one is not there, cannot be read or has another shape.
    """
    return tuple(
        canny(picture.image, network.thresholds)
        if network.hint == CANNY
        else _ready_made(picture, Path(network.hint), sizing)
        for network in controlnets
    )


def _ready_made(picture: Picture, folder: Path, sizing: Sizing) -> Image.Image:
    stem = folder / Path(picture.item.key).with_suffix("")
    beside = (stem.with_name(f"{stem.name}{suffix}") for suffix in sorted(SUFFIXES))
    file = next((file for file in beside if file.is_file()), None)
    if file is None:
        raise PictureError(f"has no hint: there is no {stem}.png (or .jpg, ...)", picture.sha256)
    try:
        with Image.open(file) as image:
            hint = sizing.apply(image.convert("RGB"))
    except (OSError, ValueError, PictureError) as error:
        raise PictureError(f"hint {file}: cannot be used: {error}", picture.sha256) from None
    if hint.size != picture.image.size:
        raise PictureError(f"hint {file}: has another shape than the picture", picture.sha256)
    return hint


def canny(image: Image.Image, thresholds: tuple[int, int]) -> Image.Image:
    """The edges of an RGB image (Canny, 1986), white on black, as its ControlNet takes them.

    Args:
        thresholds: of the gradient: edges begin above the higher and go on above the lower.
    """
    edges = cv2.Canny(np.asarray(image), *thresholds)
    return Image.fromarray(edges).convert("RGB")
