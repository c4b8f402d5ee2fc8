"""Metrics that compare the pixels of two pictures."""

import cv2
import numpy as np
import torch
from PIL import Image
from skimage.metrics import structural_similarity
from torch import Tensor
from torchmetrics.functional import mean_squared_error
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure


def to_tensor(image: Image.Image, device: torch.device) -> Tensor:
    """`image` as RGB, (1, 3, height, width) in [0, 1]."""
    samples = torch.from_numpy(np.array(image.convert("RGB"))).to(device)
    return samples.permute(2, 0, 1)[None].float() / 255


def ssim(output: Tensor, other: Tensor) -> float:
    """Structural similarity of two (1, 3, height, width) in [0, 1]; Wang et al. 2004."""
    value = structural_similarity_index_measure(output, other, data_range=1.0)
    assert isinstance(value, Tensor)
    return float(value)


def psnr(output: Tensor, other: Tensor) -> float:
    """Peak signal-to-noise ratio in dB of two (1, 3, height, width) in [0, 1]; infinite if equal."""
    return float(peak_signal_noise_ratio(output, other, data_range=1.0))


def mse(output: Tensor, other: Tensor) -> float:
    return float(mean_squared_error(output.contiguous(), other.contiguous()))


def grey_ssim(output: Image.Image, other: Image.Image) -> float:
    """SSIM of two pictures in 8-bit grey, as the code of Yuan et al. 2025 computes it."""
    resized = cv2.resize(np.asarray(output), other.size)
    grey = (cv2.cvtColor(np.asarray(image), cv2.COLOR_RGB2GRAY) for image in (resized, other))
    return float(structural_similarity(*grey))
