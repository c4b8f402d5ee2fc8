"""The colours of a picture made those of its source, by scikit-image."""

from importlib.util import find_spec

import numpy as np
from PIL import Image

from sdcorrect.errors import UsageError

#: Of 8 bits, what makes a level one of 16 bits, in which scikit-image cuts off less than a level.
FINER = 257


def check_matching() -> None:
    """Refuse to match colours where what does it is not installed.

    Raises:
        UsageError: it is not.
    """
    if find_spec("skimage") is None:
        raise UsageError(
            "match_colors needs scikit-image; get it with `pip install 'sdcorrect[evaluate]'`"
        )


def matched(picture: Image.Image, source: Image.Image) -> Image.Image:
    """`picture`, of which each channel has the histogram of that of `source`; both RGB.

    One that is black all over stays so: that is how a failure shows, and it is not to be hidden.
    """
    # which few jobs need, and which takes its time
    from skimage.exposure import match_histograms

    if picture.getbbox() is None:
        return picture
    fine = [np.asarray(image).astype(np.uint16) * FINER for image in (picture, source)]
    levels = match_histograms(*fine, channel_axis=-1) / FINER
    return Image.fromarray(np.round(levels).astype(np.uint8))
