"""What ControlNets are shown of a picture."""

import cv2
import numpy as np
from PIL import Image


def canny(image: Image.Image, thresholds: tuple[int, int]) -> Image.Image:
    """The edges of an RGB image (Canny, 1986), white on black, as its ControlNet takes them.

    Args:
        thresholds: of the gradient: edges begin above the higher and go on above the lower.
    """
    edges = cv2.Canny(np.asarray(image), *thresholds)
    return Image.fromarray(edges).convert("RGB")
