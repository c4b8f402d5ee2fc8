"""Whether pictures are what the embedded model was trained on: icons of 64 px on a plain background."""

from collections.abc import Iterable

import numpy as np
from PIL import Image

from sdcorrect.inputs.pictures import Picture
from sdcorrect.models import Model
from sdcorrect.settings import EMBEDDED

#: What may be given in the model's place.
ADVICE = "it is a small model for trying things out; for other pictures choose a checkpoint (--model)"
#: Of the model's own size, how many times larger or smaller a picture may be.
FAR = 2
#: Levels within which two pixels count as one colour: at the border, and side by side.
ALIKE, FLAT = 16, 4
#: Below both, a picture is plainly no icon: the share of its border in one colour, and that of pixels
#: like their neighbours. Packaged icons have 1.0 and 0.67 or more, six photographs up to 0.47 and 0.64.
PLAIN_BORDER, FLAT_AREA = 0.5, 0.65


def doubt_of(model: Model, pictures: Iterable[Picture]) -> str | None:
    """Why the first of `pictures` that is not for the embedded model is not, if `model` is that one."""
    if model.name != EMBEDDED:
        return None
    native = model.native_size
    for picture in pictures:
        if not native / FAR <= max(picture.image.size) <= native * FAR:
            size = "x".join(map(str, picture.image.size))
            return f"mini was trained at {native} px, and {picture.item.key} has {size} px: {ADVICE}"
        if not looks_like_icon(picture.image):
            return f"mini was trained on icons, and {picture.item.key} does not look like one: {ADVICE}"
    return None


def looks_like_icon(image: Image.Image) -> bool:
    """Whether a picture has a border of one colour, or flat areas, as icons do.

    Args:
        image: RGB, about as small as icons are.
    """
    pixels = np.asarray(image).astype(np.int16)
    border = np.concatenate([pixels[0], pixels[-1], pixels[1:-1, 0], pixels[1:-1, -1]])
    plain = (np.abs(border - np.median(border, axis=0)).max(axis=-1) <= ALIKE).mean()
    steps = [np.abs(np.diff(pixels, axis=axis)).max(axis=-1).ravel() <= FLAT for axis in (0, 1)]
    return bool(plain >= PLAIN_BORDER or np.concatenate(steps).mean() >= FLAT_AREA)
