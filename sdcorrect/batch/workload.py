"""How far a run is, counted in U-Net evaluations: they move within a picture, too."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

Variants = tuple[str, ...]


@dataclass
class Workload:
    """What a run has to do and has done itself: what was done before counts for nothing.

    `cost` tells how many evaluations variants take together, a picture.
    """

    covered: int  #: translations of the run's pictures, one for each variant
    cost: Callable[[Variants], int]
    settled: int = 0  #: of those, what is done or has failed by now
    before: int = 0  #: of those, what an earlier run settled, as far as its records tell
    evaluations: int = 0  #: that this run takes
    began: float | None = None  #: when the first batch went to the model, on the monotonic clock
    _missing: dict[str, Variants] = field(default_factory=dict)
    _finished: int = 0
    _running: float = 0.0

    def expect(self, key: str, missing: Variants, of: int) -> None:
        """A picture lacks `missing` of its variants, as far as the records tell."""
        self._missing[key] = missing
        self.before += of - len(missing)
        self.evaluations += self.cost(missing)

    def look_again(self, key: str, missing: Variants) -> None:
        """The picture was read, and lacks these: none, where it cannot be translated."""
        self.evaluations += self.cost(missing) - self.cost(self._missing.pop(key))

    def begin(self) -> None:
        self.began = self.began or time.monotonic()

    def run(self, evaluations: float) -> None:
        """So many are done of the pictures in hand."""
        self._running = evaluations

    def finish(self, variants: Variants, variant: str) -> None:
        """A picture is through by `variant`, one of `variants`, whatever it took."""
        place = variants.index(variant)
        self._finished += self.cost(variants[: place + 1]) - self.cost(variants[:place])
        self._running = 0.0

    @property
    def evaluated(self) -> int:
        return min(self._finished + round(self._running), self.evaluations)
