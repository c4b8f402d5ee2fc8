"""Runs whose calls to the file system are counted, and fail at one of them.

Whatever a run does with its output folder goes through the functions replaced here: the operating
system is asked for no more than they ask for.
"""

import builtins
import errno
import fcntl
import io
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any, Literal

import sdcorrect.models
from sdcorrect.cli import app
from sdcorrect.models import load
from sdcorrect.settings import ModelSettings

Fault = Literal["SIGKILL", "ENOSPC", "EIO", "short write"]
#: Functions that take a path, or the descriptor of a file.
CALLS = (
    *((os, name) for name in ("open", "mkdir", "unlink", "replace", "fsync", "listdir", "scandir")),
    (fcntl, "flock"),
)
_LOCK = Lock()


@dataclass
class Faults:
    """Counts the calls that touch `out`, and lets that of number `at` fail."""

    out: str
    fault: Fault | None = None
    at: int = -1
    calls: list[str] = field(default_factory=list)

    def touch(self, call: str) -> bool:
        """Note one call; whether it is to write less than it was given."""
        with _LOCK:
            self.calls.append(call)
            strikes = len(self.calls) - 1 == self.at
        if not strikes:
            return False
        match self.fault:
            case "SIGKILL":
                os.kill(os.getpid(), signal.SIGKILL)
            case "ENOSPC" | "EIO":
                number = getattr(errno, self.fault)
                raise OSError(number, os.strerror(number))
        return self.fault == "short write"

    def is_of(self, file: Any) -> bool:
        if hasattr(file, "fileno"):
            file = file.fileno()
        if isinstance(file, int):
            file = os.readlink(f"/proc/self/fd/{file}")
        path = os.path.abspath(os.fsdecode(file))
        return path == self.out or path.startswith(f"{self.out}/")

    def install(self) -> None:
        for module, name in CALLS:
            setattr(module, name, self._counted(name, getattr(module, name)))
        opened = builtins.open
        faults = self

        class Raw(io.FileIO):
            """A file of the output folder."""

            def write(self, data: Any) -> int:
                view = memoryview(data)
                return super().write(view[: len(view) // 2] if faults.touch("write") else view)

            def readinto(self, buffer: Any) -> int:
                faults.touch("read")
                return super().readinto(buffer)

            def truncate(self, size: int | None = None) -> int:
                faults.touch("truncate")
                return super().truncate(size)

        def open_(
            file: Any, mode: str = "r", buffering: int = -1, *words: Any, opener: Any = None, **more: Any
        ) -> Any:
            if not self.is_of(file):
                return opened(file, mode, buffering, *words, opener=opener, **more)
            assert "b" in mode, "a text file among the outputs"
            raw = Raw(file, mode.replace("b", ""), opener=opener or os.open)
            if buffering == 0:
                return raw
            kind = io.BufferedRandom if "+" in mode else io.BufferedReader if "r" in mode else None
            return (kind or io.BufferedWriter)(raw)

        builtins.open = io.open = open_

    def _counted(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def counted(first: Any, *words: Any, **more: Any) -> Any:
            if self.is_of(first):
                self.touch(name)
            return call(first, *words, **more)

        return counted


def serve(jobs: list[tuple[list[str], Faults, str]], results: Any) -> None:
    """Run each command in a fork of its own that has the model already; put exit code and calls."""
    model = load(ModelSettings(device="cpu"))
    sdcorrect.models.load = lambda _: model
    for command, faults, log in jobs:
        pid = os.fork()
        if pid == 0:
            os._exit(_run(command, faults, log))
        _, status = os.waitpid(pid, 0)
        results.put((os.waitstatus_to_exitcode(status), log))


def _run(command: list[str], faults: Faults, log: str) -> int:
    for standard, name in enumerate(("out", "err"), 1):
        os.dup2(os.open(f"{log}.{name}", os.O_WRONLY | os.O_CREAT | os.O_APPEND), standard)
    sys.stdout, sys.stderr = (os.fdopen(n, "w", buffering=1) for n in (1, 2))
    faults.install()
    try:
        app(command)
    except SystemExit as end:
        return int(end.code or 0)
    finally:
        Path(f"{log}.calls").write_text("\n".join(faults.calls))
    return 0
