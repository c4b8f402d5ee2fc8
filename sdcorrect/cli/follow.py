"""Show the progress of a run: a line that says what there is to do, then a bar, or lines in a log."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import ceil
from threading import Lock
from typing import TYPE_CHECKING, Any

from sdcorrect.cli.console import MOST_ALIKE, err, notice
from sdcorrect.cli.progress import bar, ticking, time_left
from sdcorrect.cli.talk import Events, facts_of
from sdcorrect.errors import counted, listed, printable

if TYPE_CHECKING:
    from tqdm import tqdm

    from sdcorrect.batch.runner import ShardRun
    from sdcorrect.cli.devices import DevicesRun
    from sdcorrect.output.records import Record

#: At most this many lines in a log: of more translations, only every second, third, ... has one.
MOST_LINES = 2000


def announcement(run: "ShardRun | DevicesRun") -> str:
    """The line that says what `run` is about to do."""
    model, variants, left = run.model, list(run.tally), run.work.to_do
    before = f", {run.work.before} done before" if run.work.before else ""
    times = f" by {len(variants)} variants" if len(variants) > 1 else ""
    return (
        f"{counted(len(run.items), 'picture')}{times} ({listed(variants)}): "
        f"{left} to translate{before}; "
        f"{printable(model.name)} on {model.device} in {model.precision}; "
        f"about {run.work.evaluations:,} U-Net evaluations"
    )


class Follower:
    """Shows the progress of `run` to people and to programs."""

    def __init__(self, run: "ShardRun | DevicesRun", events: Events) -> None:
        self._run, self._events = run, events
        self._looking = Lock()  # the ticker is a thread of its own
        self._bar: tqdm[Any] | None = None
        self._failures = 0
        self._check: Callable[[], None] = lambda: None

    @contextmanager
    def following(self) -> Iterator[None]:
        """Within this context the display updates by itself, even within a picture."""
        with ticking(self.look) as self._check:
            try:
                yield
                if self._bar is None:
                    self._begin()
            finally:
                if self._bar is not None:
                    self._bar.close()

    def look(self) -> None:
        """Update the bar, once the run has begun."""
        work = self._run.work
        if work.began is None:
            return
        with self._looking:
            if self._bar is None:
                self._begin()
                self._bar = bar("", work.evaluations, "U-Net evaluations")
            self._bar.total = work.evaluations
            self._bar.set_description_str(f"{work.settled}/{work.to_do} done", refresh=False)
            self._bar.update(work.evaluated - self._bar.n)

    def _begin(self) -> None:
        run, work = self._run, self._run.work
        notice(announcement(run), wrapped=True)
        if run.found_batch_size:
            notice(str(run.found_batch_size))
        self._events.tell(
            "started",
            pictures=len(run.items),
            variants=list(run.tally),
            to_translate=work.to_do,
            done_before=work.before,
            unet_evaluations=work.evaluations,
            batch_size=run.batch_size,
            model=run.model.name,
            device=str(run.model.device),
            dtype=run.model.precision,
        )

    def tell(self, record: "Record") -> None:
        """Report a translation that is done or has failed; in a log, as a line."""
        self._check()
        self.look()
        self._events.tell(record.status, **facts_of(record))
        if err.is_terminal or self._events.shown:
            return
        work, failed = self._run.work, record.status == "failed"
        self._failures += failed
        every = ceil(work.to_do / MOST_LINES)
        if self._failures <= MOST_ALIKE if failed else work.settled % every == 0:
            path = printable(record.input.path)
            left = f", {time_left(self._bar)} left" if self._bar is not None else ""
            notice(f"{work.settled}/{work.to_do} {record.status} {record.variant}/{path}{left}")
