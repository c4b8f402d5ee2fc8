"""The progress of a run, counted in U-Net evaluations, so that it moves even within a picture."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

Variants = tuple[str, ...]


@dataclass
class Workload:
    """What a run has to do and has done itself; the work of earlier runs is not counted.

    `cost` gives the evaluations that variants take together, per picture.
    """

    covered: int  #: translations of the run: one for each picture and variant
    cost: Callable[[Variants], int]
    settled: int = 0  #: how many of those are done or have failed by now
    before: int = 0  #: how many of those an earlier run has settled, by its records
    evaluations: int = 0  #: evaluations that this run needs
    began: float | None = None  #: when the first batch went to the model, on the monotonic clock
    _missing: dict[str, Variants] = field(default_factory=dict)
    _finished: int = 0
    _running: float = 0.0

    def expect(self, key: str, missing: Variants, of: int) -> None:
        """Add a picture that lacks `missing` of its variants, by the records."""
        self._missing[key] = missing
        self.before += of - len(missing)
        self.evaluations += self.cost(missing)

    def look_again(self, key: str, missing: Variants) -> None:
        """Correct what a picture lacks, once it is read: nothing, if it cannot be translated."""
        self.evaluations += self.cost(missing) - self.cost(self._missing.pop(key))

    def begin(self) -> None:
        self.began = self.began or time.monotonic()

    def run(self, evaluations: float) -> None:
        """Set how many evaluations are done on the current pictures."""
        self._running = evaluations

    def finish(self, variants: Variants, variant: str) -> None:
        """Count a picture as done by `variant`, one of `variants`, at its planned cost."""
        place = variants.index(variant)
        self._finished += self.cost(variants[: place + 1]) - self.cost(variants[:place])
        self._running = 0.0

    @property
    def evaluated(self) -> int:
        return min(self._finished + round(self._running), self.evaluations)
