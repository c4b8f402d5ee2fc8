"""Signals that ask a run to stop, and what they make it exit with."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from signal import Signals
from threading import Thread, Timer

from sdcorrect.cli.console import err, tell
from sdcorrect.errors import SdcorrectError

#: 142 is what asks the SLURM script to requeue the task.
EXIT_CODES = {Signals.SIGTERM: 143, Signals.SIGINT: 130, Signals.SIGUSR1: 142}

GRACE = 20  #: seconds that a run has to stop in good order; SLURM kills what takes over 30
PATIENCE = 1  #: seconds that threads which are blocked in a read have once all else has ended


class Stopped(SdcorrectError):
    """A signal asked for it."""

    def __init__(self, received: Signals) -> None:
        super().__init__(
            f"stopped by {received.name}; what is recorded is whole, "
            "and the same command goes on from there"
        )
        self.exit_code = EXIT_CODES[received]


@dataclass
class Stop:
    """What the first signal sets, for the run to heed where it can stop in good order."""

    received: Signals | None = None
    #: whether there is a run that heeds it; without one, the first signal ends the process too
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
        """End the process then, whatever it is blocked in: what is recorded is whole at any moment."""
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
    """Within this context the first signal sets the stop that it yields, and a second one exits at once.

    Python runs signal handlers between the main thread's instructions, and one evaluation of a large
    U-Net is a few instructions of many seconds. A thread that the C handler wakes waits for none.
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
