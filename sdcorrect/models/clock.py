"""Seconds on a device: what it takes, measured without making it wait."""

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch

Mark = float | torch.cuda.Event


@dataclass
class Clock:
    """The seconds that named spans took on `device`.

    On CUDA a span lies between two events among what the device was asked to do, and only who reads
    its seconds waits for them; on other accelerators its ends wait for the device.
    """

    device: torch.device
    _read: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    _unread: list["Span"] = field(default_factory=list)

    @contextmanager
    def span(self, name: str) -> Iterator["Span"]:
        """Measure what is done within, under `name`; its seconds are known after it."""
        span = Span(name, self.mark())
        yield span
        span.ended = self.mark()
        self._unread.append(span)

    def mark(self) -> Mark:
        """This moment, after all that the device was asked to do so far."""
        if self.device.type == "cuda":
            with torch.cuda.device(self.device):
                event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
                event.record()
            return event
        if self.device.type in ("mps", "xpu"):
            torch.accelerator.synchronize(self.device)
        return time.perf_counter()

    @property
    def seconds(self) -> dict[str, float]:
        """All that was measured, by name."""
        for span in self._unread:
            self._read[span.name] += span.seconds
        self._unread.clear()
        return dict(self._read)


@dataclass
class Span:
    """From one mark to the next."""

    name: str
    began: Mark
    ended: Mark | None = None

    @property
    def seconds(self) -> float:
        assert self.ended is not None, "read after the span"
        return _between(self.began, self.ended)


def _between(began: Mark, ended: Mark) -> float:
    if isinstance(began, torch.cuda.Event) and isinstance(ended, torch.cuda.Event):
        ended.synchronize()
        return began.elapsed_time(ended) / 1e3
    assert isinstance(began, float) and isinstance(ended, float)
    return ended - began
