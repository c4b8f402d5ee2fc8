"""The hints of a picture for ControlNets: computed from it, or ready-made."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from sdcorrect.config import Input
from sdcorrect.errors import PictureError, UsageError, printable
from sdcorrect.inputs.companions import find_companion, problem_of
from sdcorrect.inputs.items import Item
from sdcorrect.inputs.pictures import Picture, Sizing, fitted_alike, read_image
from sdcorrect.settings import CANNY, ControlNet

MAX_PIXELS: int = Input.model_fields["max_pixels"].default


def check_hints(controlnets: Sequence[ControlNet]) -> None:
    """Check that folders of hints exist.

    Raises:
        UsageError: a folder of hints is missing, cannot be listed or is empty.
    """
    for network in controlnets:
        if network.hint != CANNY and (problem := problem_of(Path(network.hint))):
            raise UsageError(
                f"controlnet {printable(network.path)}: hint {printable(network.hint)}: {problem}; "
                "give a folder of hints, or canny"
            )


def hint_files(item: Item, controlnets: Sequence[ControlNet]) -> list[Path]:
    """The ready-made hints of `item`.

    Raises:
        PictureError: one is missing, or there are several.
    """
    folders = [Path(network.hint) for network in controlnets if network.hint != CANNY]
    return [find_companion("hint", folder, item) for folder in folders]


def hints_of(
    picture: Picture, controlnets: Sequence[ControlNet], sizing: Sizing, max_pixels: int = MAX_PIXELS
) -> tuple[Image.Image, ...]:
    """A hint for each ControlNet, RGB at the size of the picture.

    Raises:
        PictureError: a ready-made hint is missing, cannot be read or has another shape.
    """
    try:
        return tuple(
            canny(picture.image, network.thresholds)
            if network.hint == CANNY
            else _ready_made(picture, Path(network.hint), sizing, max_pixels)
            for network in controlnets
        )
    except PictureError as error:
        raise PictureError(str(error), picture.sha256) from None


def _ready_made(picture: Picture, folder: Path, sizing: Sizing, max_pixels: int) -> Image.Image:
    file = find_companion("hint", folder, picture.item)
    try:
        image, _ = read_image(file, Input(path=file, max_pixels=max_pixels))
    except PictureError as error:
        raise PictureError(f"hint {printable(file)}: cannot be used: {error}") from None
    hint = fitted_alike(image, sizing.resize, picture.whole, picture.image.size)
    if hint is None:
        raise PictureError(f"hint {printable(file)}: does not have the shape of the picture")
    return hint


def canny(image: Image.Image, thresholds: tuple[int, int]) -> Image.Image:
    """The edges of an RGB image (Canny, 1986), white on black, as the Canny ControlNet expects them.

    Args:
        thresholds: of the gradient: edges start above the higher and continue above the lower.
    """
    import cv2  # slow to import, and few jobs need it

    edges = cv2.Canny(np.asarray(image), *thresholds)
    return Image.fromarray(edges).convert("RGB")
