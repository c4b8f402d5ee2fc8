"""Progress of long commands: a bar in a terminal, and in a log a line every half minute."""

import io
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from threading import Event, Thread
from typing import Any, TypeVar

from tqdm import tqdm

from sdcorrect.cli.console import err, verbosity

T = TypeVar("T")

#: Seconds between two lines in a log, and between two checks whether one is due.
PATIENCE, TICK = 25.0, 0.5
BAR = "{desc} {percentage:3.0f}% |{bar}| {n_fmt}/{total_fmt} {unit}, {elapsed} elapsed, {remaining} left"
LINE = "{desc}: {n_fmt}/{total_fmt} {unit}, {elapsed} elapsed, {remaining} left"


class _Lines(io.StringIO):
    """A stream for a bar in a log: each state of the bar becomes a line."""

    def write(self, text: str) -> int:
        if line := text.strip():
            err.print(line)
        return len(text)


def bar(what: str, total: float, unit: str = "pictures", **options: Any) -> "tqdm[Any]":
    """A bar that estimates from the mean rate so far, since work comes in batches; a log keeps it."""
    logged = not err.is_terminal
    return tqdm(
        desc=what,
        total=total,
        unit=unit,
        file=_Lines() if logged else err.file,
        leave=logged,
        mininterval=PATIENCE if logged else 0.1,
        delay=PATIENCE if logged else 0,  # an earlier line would say nothing new
        miniters=0,
        smoothing=0,
        disable=verbosity.quiet,
        dynamic_ncols=True,
        **{"bar_format": LINE if logged else BAR, **options},
    )


def time_left(shown: "tqdm[Any]") -> str:
    """The time left at the mean rate so far, as a bar shows it."""
    state = shown.format_dict
    if not state["n"]:
        return "?"
    return str(tqdm.format_interval(state["elapsed"] * (state["total"] / state["n"] - 1)))


@contextmanager
def following(what: str, total: int) -> Iterator["tqdm[Any]"]:
    """A bar of pictures whose clock moves even while no picture is finished."""
    with bar(what, total) as shown:

        def show_time() -> None:
            if not shown.disable and (now := time.time()) - shown.last_print_t >= shown.mininterval:
                shown.last_print_t = now
                shown.refresh()

        with ticking(show_time):
            yield shown


def track(items: Iterable[T], what: str, total: int) -> Iterator[T]:
    """Yield `items` and show a bar of how many are done."""
    with following(what, total) as shown:
        for item in items:
            yield item
            shown.update()


@contextmanager
def ticking(call: Callable[[], None]) -> Iterator[Callable[[], None]]:
    """Within this context `call` runs twice a second, whatever the main thread is busy with.

    An exception in it, such as for a closed pipe, is raised in the main thread: at the end, and
    whenever it calls the function that is yielded.
    """
    ended = Event()
    raised: list[BaseException] = []

    def tick() -> None:
        try:
            while not ended.wait(TICK):
                call()
        except BaseException as error:  # SystemExit, when a pipe is closed
            raised.append(error)

    def check() -> None:
        if raised:
            raise raised[0]

    thread = Thread(target=tick, name="progress", daemon=True)
    thread.start()
    try:
        yield check
    finally:
        ended.set()
        thread.join()
    check()
