"""Measure seconds on a device without making it wait."""

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch

Mark = float | torch.cuda.Event


@dataclass
class Clock:
    """Measures the seconds that named spans take on `device`.

    On CUDA a span lies between two events in the stream, and only reading its seconds waits for the
    device; on other accelerators both ends of a span wait.
    """

    device: torch.device
    _read: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    _unread: list["Span"] = field(default_factory=list)

    @contextmanager
    def span(self, name: str) -> Iterator["Span"]:
        """Measure the code inside under `name`; the span's seconds can be read afterwards."""
        span = Span(name, self.mark())
        yield span
        span.ended = self.mark()
        self._unread.append(span)

    def mark(self) -> Mark:
        """The moment at which the device has finished all work queued so far."""
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
        """The seconds measured so far, by name."""
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
