"""The hints of a picture: made from it, or found ready-made."""

from collections.abc import Sequence
from functools import cache
from os.path import lexists
from pathlib import Path

import numpy as np
from PIL import Image

from sdcorrect.config import Input
from sdcorrect.errors import PictureError, UsageError, listed, printable
from sdcorrect.inputs.companions import companion_path
from sdcorrect.inputs.formats import MAGIC
from sdcorrect.inputs.names import SUFFIXES
from sdcorrect.inputs.pictures import Picture, Sizing, read_image
from sdcorrect.settings import CANNY, ControlNet

MAX_PIXELS: int = Input.model_fields["max_pixels"].default


def check_folders(controlnets: Sequence[ControlNet]) -> None:
    """Refuse hints that can be had from nowhere.

    Raises:
        UsageError: a folder of hints is not there, cannot be listed or is empty.
    """
    for network in controlnets:
        if network.hint != CANNY and (problem := _problem(Path(network.hint))):
            raise UsageError(
                f"controlnet {printable(network.path)}: hint {printable(network.hint)}: {problem}; "
                "give one of ready-made hints, or canny"
            )


def _problem(folder: Path) -> str | None:
    if not folder.is_dir():
        return "there is no such folder"
    try:
        return None if any(folder.iterdir()) else "the folder is empty"
    except OSError as error:
        return f"the folder cannot be listed: {error.strerror}"


def hints_of(
    picture: Picture, controlnets: Sequence[ControlNet], sizing: Sizing, max_pixels: int = MAX_PIXELS
) -> tuple[Image.Image, ...]:
    """A hint for each ControlNet, as large as the picture; read as pictures are.

    Raises:
        PictureError: a ready-made one is not there, cannot be read or has another shape.
    """
    return tuple(
        canny(picture.image, network.thresholds)
        if network.hint == CANNY
        else _ready_made(picture, Path(network.hint), sizing, max_pixels)
        for network in controlnets
    )


def _ready_made(
    picture: Picture, folder: Path, sizing: Sizing, max_pixels: int = MAX_PIXELS
) -> Image.Image:
    file = _find(folder, picture)
    try:
        image, _ = read_image(file, Input(path=file, max_pixels=max_pixels))
        hint = sizing.apply(image)
    except PictureError as error:
        raise PictureError(f"hint {printable(file)}: cannot be used: {error}", picture.sha256) from None
    if hint.size != picture.image.size:
        raise PictureError(f"hint {printable(file)}: has another shape than the picture", picture.sha256)
    return hint


def _find(folder: Path, picture: Picture) -> Path:
    """The file at the picture's relative path in `folder`, by any suffix; its own where it is there."""
    own = folder / companion_path(picture.item)
    stem = own.with_suffix("")
    suffixes = sorted({*_suffixes(), *map(str.upper, _suffixes())} - {own.suffix})
    # not whether it is a file: what else stands there is refused when it is read
    there = [file for file in (own, *(stem.with_name(stem.name + s) for s in suffixes)) if lexists(file)]
    if not there:
        raise PictureError(
            f"has no hint: there is no {printable(stem)}.png (or .jpg, ...)", picture.sha256
        )
    # where letter case does not count, one file has two of these names
    if own not in there and len({file.lstat().st_ino for file in there}) > 1:
        raise PictureError(
            f"has several hints, {listed([str(file) for file in there])}; keep one", picture.sha256
        )
    return there[0]


@cache
def _suffixes() -> set[str]:
    """Those of all formats that are opened."""
    known = Image.registered_extensions().items()
    return SUFFIXES | {suffix for suffix, format in known if format in MAGIC}


def canny(image: Image.Image, thresholds: tuple[int, int]) -> Image.Image:
    """The edges of an RGB image (Canny, 1986), white on black, as its ControlNet takes them.

    Args:
        thresholds: of the gradient: edges begin above the higher and go on above the lower.
    """
    import cv2  # which few jobs need, and whose import takes longer than all checks

    edges = cv2.Canny(np.asarray(image), *thresholds)
    return Image.fromarray(edges).convert("RGB")
