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
    settled: int = 0  #: how many of those this run has done, or found to fail, by now
    before: int = 0  #: how many of those an earlier run has settled, by its records
    evaluations: int = 0  #: evaluations that this run needs
    began: float | None = None  #: when the first batch went to the model, on the monotonic clock
    _expected: dict[str, tuple[int, int]] = field(default_factory=dict)  #: evaluations; settled before
    _finished: int = 0
    _running: float = 0.0

    @property
    def to_do(self) -> int:
        """The translations that this run has to settle."""
        return self.covered - self.before

    def expect(self, key: str, missing: Variants, before: int) -> None:
        """Add a picture that lacks `missing` of its variants, by the records.

        Args:
            missing: none, if the picture cannot be translated.
            before: how many an earlier run has settled.
        """
        cost = self.cost(missing)
        self._expected[key] = cost, before
        self.before += before
        self.evaluations += cost

    def look_again(self, key: str, missing: Variants, before: int) -> None:
        """Correct what was expected of a picture, once it is read."""
        cost, expected = self._expected.pop(key)
        self.before += before - expected
        self.evaluations += self.cost(missing) - cost

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
