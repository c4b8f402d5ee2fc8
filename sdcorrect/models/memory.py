"""The memory of a device: what is free, the peak in use, and whether it ran out."""

import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import torch

#: Messages of torch when an allocation fails: on a device, on the CPU, in cuBLAS, in cuDNN, on XPUs.
OUT_OF_MEMORY_WORDS = (
    "out of memory",
    "can't allocate memory",
    "not enough memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",
    "CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED",
    "unable to find an engine to execute this computation",
    "OUT_OF_DEVICE_MEMORY",
    "OUT_OF_HOST_MEMORY",
)
#: Devices that report the peak memory of tensors.
COUNTING = {"cuda", "xpu"}
CGROUPS = Path("/sys/fs/cgroup")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out; all except the CUDA allocator say so only in their message."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and any(words in str(error) for words in OUT_OF_MEMORY_WORDS)
    )


def empty_cache(device: torch.device) -> None:
    """Release cached memory that no tensor uses; the CPU caches none."""
    if device.type in {*COUNTING, "mps"}:
        torch.get_device_module(device).empty_cache()


def forget_peak(device: torch.device) -> None:
    """Reset the peak memory."""
    if device.type in COUNTING:
        torch.get_device_module(device).reset_peak_memory_stats(device)
    elif device.type == "mps":
        empty_cache(device)  # the cache is the peak
    elif device.type == "cpu" and sys.platform == "linux":
        # proc(5): resets the peak resident set size; if it cannot, the peak is that since the start
        with suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")


def taken_bytes(device: torch.device) -> int | None:
    """The bytes in use now, by tensors, or on the CPU by the process; None if unknown."""
    if device.type in COUNTING:
        return int(torch.get_device_module(device).memory_allocated(device))
    if device.type == "mps":
        return torch.mps.driver_allocated_memory()
    return _resident("VmRSS") if device.type == "cpu" else None


def peak_bytes(device: torch.device) -> int | None:
    """The peak of bytes in use since `forget_peak`; None if unknown."""
    if device.type in COUNTING:
        return int(torch.get_device_module(device).max_memory_allocated(device))
    return _resident("VmHWM") if device.type == "cpu" else taken_bytes(device)


def free_bytes(device: torch.device) -> int | None:
    """The bytes that can be used beyond those in use now; None if unknown."""
    empty_cache(device)
    if device.type in COUNTING:
        return int(torch.get_device_module(device).mem_get_info(device)[0])
    if device.type == "mps":
        return torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
    if device.type == "cpu" and sys.platform == "linux":
        return min(_kibibytes(Path("/proc/meminfo"), "MemAvailable"), *_left_of_limits())
    return None


def _resident(entry: str) -> int | None:
    if sys.platform != "linux":
        return None
    return _kibibytes(Path("/proc/self/status"), entry)


def _kibibytes(file: Path, entry: str) -> int:
    line = next(line for line in file.read_text().splitlines() if line.startswith(f"{entry}:"))
    return int(line.split()[1]) * 1024


def _left_of_limits() -> Iterator[int]:
    """The bytes that limits of containers and SLURM leave to this process, by control groups v2."""
    yield sys.maxsize
    own = Path("/proc/self/cgroup").read_text().rpartition("0::/")[2].strip()
    for group in (CGROUPS / own, *(CGROUPS / own).parents):
        with suppress(OSError):  # groups without these files have no limit
            limit = (group / "memory.max").read_text().strip()
            if limit != "max":
                yield int(limit) - int((group / "memory.current").read_text()) + _cached(group)


def _cached(group: Path) -> int:
    """The bytes of cached files in a control group, which can be dropped."""
    lines = (group / "memory.stat").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("inactive_file "))
