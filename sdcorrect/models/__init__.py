"""Stable Diffusion models: find and load any checkpoint, apply adapters to it, and run it."""

from sdcorrect.models.checkpoints import MINI
from sdcorrect.models.load import find, load
from sdcorrect.models.machine import choose_device, choose_devices, device_of, quiet_libraries
from sdcorrect.models.model import Model

__all__ = [
    "MINI",
    "Model",
    "choose_device",
    "choose_devices",
    "device_of",
    "find",
    "load",
    "quiet_libraries",
]
