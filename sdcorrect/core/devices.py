"""Move tensors to the device without making it wait."""

import torch
from torch import Tensor


def send(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy a CPU `tensor` to `device`; to CUDA asynchronously, while host and kernels continue.

    The tensor is pinned first, because only pinned memory can be copied asynchronously.
    """
    if device.type != "cuda" or tensor.device.type != "cpu":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)
