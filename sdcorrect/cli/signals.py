"""Signals that ask a run to stop, and the exit codes they lead to."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from signal import Signals
from threading import Thread, Timer

from sdcorrect.cli.console import err, tell
from sdcorrect.errors import SdcorrectError

#: 142 makes the SLURM script requeue the task.
EXIT_CODES = {Signals.SIGTERM: 143, Signals.SIGINT: 130, Signals.SIGUSR1: 142}

GRACE = 20  #: seconds in which a run can stop cleanly; SLURM kills it after 30
PATIENCE = 1  #: seconds for threads that block in a read once all else has ended


class Stopped(SdcorrectError):
    """A signal asked the run to stop."""

    def __init__(self, received: Signals) -> None:
        super().__init__(
            f"stopped by {received.name}; finished pictures are saved, "
            "and the same command resumes from there"
        )
        self.exit_code = EXIT_CODES[received]


@dataclass
class Stop:
    """Remembers the first signal; the run checks it where it can stop cleanly."""

    received: Signals | None = None
    #: whether a run checks it; if not, the first signal already ends the process
    heeded: bool = False

    def check(self) -> None:
        """Raises Stopped if a signal has come."""
        if self.received is not None:
            raise Stopped(self.received)

    def receive(self, number: Signals) -> None:
        if self.received is not None or not self.heeded:
            _exit(number)
        self.received = number
        self.exit_within(GRACE, _give_up)

    def exit_within(self, seconds: float, ending: Callable[[Signals], None]) -> None:
        """End the process by then, even if it is blocked: the records are intact at any moment."""
        if self.received is not None:
            timer = Timer(seconds, ending, [self.received])
            timer.daemon = True
            timer.start()


def _give_up(number: Signals) -> None:
    tell("error", Stopped(number), "red")
    _exit(number)


def _exit(number: Signals) -> None:
    err.show_cursor()  # a spinner may have hidden it
    os._exit(EXIT_CODES[number])


@contextmanager
def stop_on_signals() -> Iterator[Stop]:
    """Within this context the first signal sets the yielded `Stop`, and a second one exits at once.

    Python runs signal handlers only between the main thread's bytecode instructions, and an evaluation
    of a large U-Net is a few instructions of many seconds. A thread woken by the C handler acts at once.
    """
    stop = Stop()
    receiving, sending = os.pipe()
    os.set_blocking(sending, False)

    def watch() -> None:
        while number := os.read(receiving, 1):
            if (received := Signals(number[0])) in EXIT_CODES:
                stop.receive(received)
        os.close(receiving)

    Thread(target=watch, name="signals", daemon=True).start()
    handlers = {number: signal.signal(number, lambda *_: None) for number in EXIT_CODES}
    woken_before = signal.set_wakeup_fd(sending, warn_on_full_buffer=False)
    try:
        yield stop
    finally:
        signal.set_wakeup_fd(woken_before)
        for number, handler in handlers.items():
            signal.signal(number, handler)
        os.close(sending)
        stop.exit_within(PATIENCE, _exit)
