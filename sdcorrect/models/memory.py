"""The memory of a device: what is free, what was taken at most, and when there was too little."""

import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import torch

#: What torch says where an allocation fails: on a device, on the CPU, in cuBLAS, in cuDNN, on XPUs.
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
#: Those that tell what tensors have taken at most.
COUNTING = {"cuda", "xpu"}
CGROUPS = Path("/sys/fs/cgroup")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory did not suffice; all but the CUDA allocator say so in words alone."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and any(words in str(error) for words in OUT_OF_MEMORY_WORDS)
    )


def empty_cache(device: torch.device) -> None:
    """Give back what no tensor holds any more; what the CPU frees is free."""
    if device.type in {*COUNTING, "mps"}:
        torch.get_device_module(device).empty_cache()


def forget_peak(device: torch.device) -> None:
    """Begin anew to look at what is taken at most."""
    if device.type in COUNTING:
        torch.get_device_module(device).reset_peak_memory_stats(device)
    elif device.type == "mps":
        empty_cache(device)  # what is cached is the peak
    elif device.type == "cpu" and sys.platform == "linux":
        # proc(5): resets the peak resident set size; where it cannot, the peak is the whole process's
        with suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")


def taken_bytes(device: torch.device) -> int | None:
    """What is taken now: by tensors, on the CPU by the whole process; None where nothing tells."""
    if device.type in COUNTING:
        return int(torch.get_device_module(device).memory_allocated(device))
    if device.type == "mps":
        return torch.mps.driver_allocated_memory()
    return _resident("VmRSS") if device.type == "cpu" else None


def peak_bytes(device: torch.device) -> int | None:
    """What was taken at most since `forget_peak`; None where nothing tells."""
    if device.type in COUNTING:
        return int(torch.get_device_module(device).max_memory_allocated(device))
    return _resident("VmHWM") if device.type == "cpu" else taken_bytes(device)


def free_bytes(device: torch.device) -> int | None:
    """What can be taken beside what is taken now; None where nothing tells."""
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
    """What containers and SLURM leave to this process, by version 2 of control groups."""
    yield sys.maxsize
    own = Path("/proc/self/cgroup").read_text().rpartition("0::/")[2].strip()
    for group in (CGROUPS / own, *(CGROUPS / own).parents):
        with suppress(OSError):  # the others are not limited
            limit = (group / "memory.max").read_text().strip()
            if limit != "max":
                yield int(limit) - int((group / "memory.current").read_text()) + _cached(group)


def _cached(group: Path) -> int:
    """Of what a control group has taken, the files that it can do without."""
    lines = (group / "memory.stat").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("inactive_file "))
