"""Give a picture the colours of its source, by scikit-image."""

from importlib.util import find_spec

import numpy as np
from PIL import Image

from sdcorrect.errors import UsageError

#: Scales 8-bit levels to 16 bits, so that what scikit-image cuts off is less than an 8-bit level.
FINER = 257


def check_matching() -> None:
    """Raises UsageError if scikit-image, which matches the colours, is not installed."""
    if find_spec("skimage") is None:
        raise UsageError(
            "match_colors needs scikit-image; get it with `pip install 'sdcorrect[evaluate]'`"
        )


def matched(picture: Image.Image, source: Image.Image) -> Image.Image:
    """`picture` with the histogram of each channel matched to that of `source`; both RGB.

    A picture that is all black stays so, because that is how a failure shows.
    """
    # slow to import, and few jobs need it
    from skimage.exposure import match_histograms

    if picture.getbbox() is None:
        return picture
    fine = [np.asarray(image).astype(np.uint16) * FINER for image in (picture, source)]
    levels = match_histograms(*fine, channel_axis=-1) / FINER
    return Image.fromarray(np.round(levels).astype(np.uint8))
