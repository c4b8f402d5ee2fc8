"""To and from the device that computes, without making it wait."""

import torch
from torch import Tensor


def send(tensor: Tensor, device: torch.device) -> Tensor:
    """`tensor`, of the CPU, on `device`; on CUDA it goes while the host and the kernels go on.

    Only what lies in pages that the system cannot move is copied so.
    """
    if device.type != "cuda" or tensor.device.type != "cpu":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)
