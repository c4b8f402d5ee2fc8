"""pytest -p on_device: the tests with every model on the device that SDCORRECT_TEST_DEVICE names.

Tests that hand a U-Net tensors of the CPU get its answer there: it computes on the device.
"""

import os
from typing import Any

import torch
from diffusers import UNet2DConditionModel

import sdcorrect.models.load as loading
from sdcorrect.models.machine import choose_device

DEVICE = torch.device(os.environ.get("SDCORRECT_TEST_DEVICE", "cuda"))


def _chosen(_device: str, dtype: str) -> tuple[torch.device, torch.dtype]:
    return choose_device(str(DEVICE), "float32" if dtype == "auto" else dtype)


def _there(module: Any, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
    if not isinstance(module, UNet2DConditionModel) or not args:
        return None
    home = module.conv_in.weight.device
    module.__dict__["asked_from"] = args[0].device
    return tuple(a.to(home) if isinstance(a, torch.Tensor) else a for a in args)


def _back(module: Any, _args: object, output: Any) -> tuple[torch.Tensor, ...] | None:
    asked_from = module.__dict__.pop("asked_from", None)
    if asked_from is None:
        return None
    if isinstance(output, tuple):  # diffusers' pipelines ask for it
        return tuple(one.to(asked_from) for one in output)
    output.sample = output.sample.to(asked_from)
    return None


loading.choose_device = _chosen
torch.nn.modules.module.register_module_forward_pre_hook(_there)
torch.nn.modules.module.register_module_forward_hook(_back)
