"""Device, precision and memory: how a model is placed on this machine."""

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from diffusers import UNet2DConditionModel
from diffusers.utils import logging as diffusers_logging
from torch import nn
from transformers.utils import logging as transformers_logging

from sdcorrect.core.regions import compile_regions
from sdcorrect.errors import UsageError, one_line, printable
from sdcorrect.models.checkpoints import Pipeline
from sdcorrect.settings import ModelSettings, known_device

#: The accelerators that diffusers supports, by torch's names.
ACCELERATORS = {"cuda", "mps", "xpu"}
#: The channels of the deepest level from which convolving constant skips once pays on the CPU.
WIDE = 1024
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def quiet_libraries() -> None:
    """Keep the loading bars and notices of diffusers and transformers off the terminal."""
    for library in (diffusers_logging, transformers_logging):
        library.set_verbosity_error()
        library.disable_progress_bar()


def accelerator() -> str | None:
    """The kind of this machine's accelerator, or None if it has none that diffusers supports."""
    found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return found.type if found and found.type in ACCELERATORS else None


def device_of(local_rank: int) -> str:
    """The device for one of several processes on this machine, which may see all devices or only one."""
    kind = accelerator()
    return f"{kind}:{local_rank % torch.accelerator.device_count()}" if kind else "cpu"


def choose_devices(names: str) -> list[str]:
    """The devices meant by `all`, by numbers such as `0,1,2`, or by names such as `cuda:0,cpu`.

    Raises:
        UsageError: a device is missing, or numbers are given without an accelerator.
    """
    kind = accelerator()
    if names == "all":
        count = torch.accelerator.device_count() if kind else 0
        return [f"{kind}:{index}" for index in range(count)] or ["cpu"]
    devices = [name.strip() for name in names.split(",")]
    for index, name in enumerate(devices):
        if name.isdecimal():
            if kind is None:
                raise UsageError(
                    f"--devices {printable(names)}: this machine has no accelerator; give cpu"
                )
            devices[index] = f"{kind}:{name}"
        choose_device(devices[index], "auto")
    return devices


def name_of(dtype: torch.dtype) -> str:
    """float32, float16 or bfloat16, as a job names it."""
    return str(dtype).removeprefix("torch.")


def choose_device(device: str, dtype: str) -> tuple[torch.device, torch.dtype]:
    """The device and precision to use.

    `auto` is the accelerator, else the CPU; and float16 on CUDA and XPU, float32 on MPS and the CPU.

    Raises:
        UsageError: there is no such device, or this machine has none.
    """
    try:
        known_device(device)
    except ValueError as error:
        raise UsageError(str(error)) from None
    if device == "auto":
        device = accelerator() or "cpu"
    try:
        chosen = torch.device(device)
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise UsageError(
            f"device {device!r} cannot be used: {one_line(error)}; try --device cpu"
        ) from None
    if dtype == "auto":
        dtype = "float16" if chosen.type in {"cuda", "xpu"} else "float32"
    return chosen, DTYPES[dtype]


@contextmanager
def tf32(allowed: bool) -> Iterator[None]:
    """Within this context CUDA may or may not compute float32 in TF32, with a 10-bit mantissa."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    set_tf32(allowed, allowed)
    try:
        yield
    finally:
        set_tf32(*before)


def set_tf32(products: bool, convolutions: bool) -> None:
    """Allow TF32 for matrix products and for convolutions; torch's defaults for the two differ."""
    torch.backends.cuda.matmul.allow_tf32 = products
    torch.backends.cudnn.allow_tf32 = convolutions


def choose_vae_dtype(settings: ModelSettings, dtype: torch.dtype, force_upcast: bool) -> torch.dtype:
    """The VAE's precision; `auto` is the model's, or float32 if the VAE says that float16 overflows."""
    if settings.vae_dtype != "auto":
        return DTYPES[settings.vae_dtype]
    return torch.float32 if dtype == torch.float16 and force_upcast else dtype


def lays_channels_last(settings: ModelSettings, device: torch.device) -> bool:
    """Whether to use the channels-last layout; `auto` does on CUDA, where convolutions are faster."""
    return device.type == "cuda" if settings.channels_last == "auto" else settings.channels_last


def convolves_skips_once(
    asked: Literal["auto"] | bool, unet: UNet2DConditionModel, device: torch.device
) -> bool:
    """Whether to convolve constant skips once; `auto` does on the CPU, for a U-Net as wide as SD 1.5's.

    In a narrow one the additions take longer than the convolutions that they save.
    """
    if asked == "auto":
        return device.type == "cpu" and max(unet.config.block_out_channels) >= WIDE
    return asked


def remember_signatures(unet: UNet2DConditionModel) -> None:
    """Keep the signatures of the attention processors' calls.

    diffusers' attention asks for its processor's at every call, and takes longer to find it out than
    torch takes to launch a kernel.
    """
    for kind in {type(processor) for processor in unet.attn_processors.values()}:
        call: Any = kind.__call__
        call.__signature__ = inspect.signature(call)


def place_on_device(
    pipe: Pipeline, controlnets: nn.Module | None, settings: ModelSettings, device: torch.device
) -> None:
    """Move a loaded pipeline to `device`, with the memory settings of the job.

    Raises:
        UsageError: cpu_offload is set, but the model runs on the CPU anyway.
    """
    set_tf32(settings.tf32, settings.tf32)
    pipe.vae.to(choose_vae_dtype(settings, pipe.unet.dtype, pipe.vae.config.force_upcast))
    if lays_channels_last(settings, device):
        pipe.unet.to(memory_format=torch.channels_last)
        pipe.vae.to(memory_format=torch.channels_last)
    if settings.vae_slicing:
        pipe.vae.enable_slicing()
    if settings.vae_tiling:
        pipe.vae.enable_tiling()
    remember_signatures(pipe.unet)
    if settings.compile:
        compile_regions(pipe.unet, gates_only=device.type == "cpu")
    if controlnets is not None:
        controlnets.to(device)  # needed at every step, so never offloaded
    if not settings.cpu_offload:
        pipe.to(device)
    elif device.type == "cpu":
        raise UsageError("cpu_offload: the model runs on the CPU anyway; remove this setting")
    else:
        pipe.enable_model_cpu_offload(device=device)
