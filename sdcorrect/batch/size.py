"""Find the largest batch that fits in memory, by trying."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from math import ceil, inf
from typing import Protocol

import torch

from sdcorrect.models.memory import (
    empty_cache,
    forget_peak,
    free_bytes,
    is_out_of_memory,
    peak_bytes,
    taken_bytes,
)
from sdcorrect.output.records import BatchSize
from sdcorrect.translate import Request, Translator

#: Larger batches are no faster: on a CPU core, mini takes 0.66 of the time per picture at 8 and at 32.
MOST_ON_THE_CPU, MOST = 8, 64
#: The share of free memory to use; fragmentation needs the rest.
SHARE = 0.9


class Memory(Protocol):
    """The memory that a run has."""

    budget: float  #: bytes that it may use, beyond those already in use

    def peak_of(self, run: Callable[[], None]) -> int:
        """The peak of bytes that `run` uses; 0 if unknown.

        Raises:
            MemoryError: memory ran out.
        """
        ...


@dataclass
class DeviceMemory:
    """The memory of `device`."""

    device: torch.device
    budget: float = field(init=False)
    _before: int = field(init=False)

    def __post_init__(self) -> None:
        free = free_bytes(self.device)
        self.budget = inf if free is None else SHARE * free
        self._before = taken_bytes(self.device) or 0

    def peak_of(self, run: Callable[[], None]) -> int:
        forget_peak(self.device)
        try:
            run()
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            raise MemoryError from None
        finally:
            peak = peak_bytes(self.device)
            empty_cache(self.device)
        return max(0, (peak or 0) - self._before)


def find_batch_size(translator: Translator, request: Request, pictures: int) -> BatchSize:
    """The largest batch of pictures like `request` that fits in memory, for all variants.

    Batches are always padded, so it is no larger than `pictures` need when spread evenly over batches.
    """
    brief, device = translator.brief(), translator.model.device
    names = tuple(brief.methods)

    def run(size: int) -> None:
        for _ in brief.translate([request] * size, variants=names):
            pass

    gaining = MOST_ON_THE_CPU if device.type == "cpu" else MOST
    most = min(pictures, gaining)
    takes = largest(run, most, DeviceMemory(device))
    batches = ceil(pictures / takes)
    return BatchSize(
        size=ceil(pictures / batches),
        takes=takes,
        bound="memory" if takes < most else "pictures" if most < gaining else "gain",
        pictures=pictures,
    )


def largest(run: Callable[[int], None], most: int, memory: Memory) -> int:
    """The largest size, from 1 to `most`, for which `run` has enough memory.

    Doubles the size while the last peaks suggest that it fits, then bisects between the largest that
    fitted and the smallest that did not.
    """
    fitting, failing = [(0, 0.0)], most + 1  # sizes that fitted, with their peaks
    while fitting[-1][0] < (size := _next_size(fitting, failing, most, memory.budget)):
        peak = _peak_at(size, run, memory)
        if peak <= memory.budget:
            fitting.append((size, peak))
        else:
            failing = size
    return max(1, fitting[-1][0])


def _next_size(fitting: Sequence[tuple[int, float]], failing: int, most: int, budget: float) -> int:
    """The size to try next; the last that fitted, if there is none left to try."""
    last, took = fitting[-1]
    if failing <= most:
        return (last + failing) // 2
    if last == 0:
        return 1
    before, took_before = fitting[-2]
    each = (took - took_before) / (last - before)
    doubled = min(2 * last, most)
    return min(doubled, last + int((budget - took) / each)) if each > 0 else doubled


def _peak_at(size: int, run: Callable[[int], None], memory: Memory) -> float:
    """The peak of bytes that a run uses; infinite if memory runs out."""
    try:
        return memory.peak_of(partial(run, size))
    except MemoryError:
        return inf
