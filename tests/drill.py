"""Real runs in processes of their own, to be killed; torch is imported once for all of them."""

import json
import multiprocessing
import os
import re
import resource
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

from diffusers.models.autoencoders.vae import Decoder
from PIL import Image
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook

from sdcorrect.cli import app

EXAMPLES = sorted((Path(__file__).parents[1] / "sdcorrect" / "assets" / "pictures").glob("*.png"))
QUICK = ("-p", "in 3d render style", "--steps", "2", "--strength", "1", "--set", "size=32")

servers = multiprocessing.get_context("forkserver")
servers.set_forkserver_preload(["sdcorrect.cli", "sdcorrect.batch.runner"])


def make_pictures(folder: Path, count: int, side: int = 48) -> Path:
    """So many pictures, no two alike."""
    folder.mkdir()
    for number in range(count):
        example = Image.open(EXAMPLES[number % len(EXAMPLES)]).convert("RGB").resize((side, side))
        example.rotate(number, fillcolor="white").save(folder / f"{number:04}.png", compress_level=1)
    return folder


class Drill:
    """Runs of one job on `folder` into `out`; reading a file of the name `blocked` never ends."""

    def __init__(self, folder: Path, out: Path, *arguments: str, blocked: str | None = None) -> None:
        self.out = out
        self.blocked = blocked
        self.name = out.name
        self.command = ["translate", str(folder), "-o", str(out), *QUICK, *arguments]

    @contextmanager
    def running(self) -> Iterator[ForkServerProcess]:
        process = servers.Process(
            target=_run,
            args=(self.command, self.blocked, str(self._log("out")), str(self._log("err"))),
        )
        process.start()
        try:
            yield process
        finally:
            if process.is_alive():
                os.kill(process.pid, signal.SIGKILL)
            process.join()

    def finish(self) -> int:
        """Run to the end; the exit code."""
        with self.running() as process:
            process.join(timeout=240)
        assert process.exitcode is not None
        return process.exitcode

    def _log(self, stream: str) -> Path:
        return self.out.with_name(f"{self.name}.{stream}")

    def messages(self) -> str:
        """What all runs have said so far."""
        return self._log("err").read_text()

    def decoded(self) -> int:
        """How many pictures all runs have brought to their end, whether recorded or lost."""
        return sum(self._noted("decoded"))

    def peak(self) -> int:
        """The most memory that any run has had, KiB."""
        return max(self._noted("peak"))

    def _noted(self, what: str) -> list[int]:
        notes = re.findall(rf"^{what} (\d+)$", self._log("out").read_text(), re.MULTILINE)
        return [int(number) for number in notes]

    def lines(self) -> list[bytes]:
        """Of the records, all that are whole."""
        files = sorted(self.out.glob("records/*.jsonl"))
        return [line for file in files for line in file.open("rb") if line.endswith(b"\n")]

    def recorded(self) -> list[tuple[str, str]]:
        """Picture and variant of each record."""
        records = [json.loads(line) for line in self.lines()]
        assert all(record["status"] == "done" for record in records), records
        return [(record["input"]["path"], record["variant"]) for record in records]

    def wait_for_lines(self, process: ForkServerProcess, count: int) -> None:
        while process.is_alive() and len(self.lines()) < count:
            time.sleep(0.005)

    def outputs(self) -> dict[str, bytes]:
        return {p.relative_to(self.out).as_posix(): p.read_bytes() for p in self.out.rglob("*.png")}


def _run(command: list[str], blocked: str | None, *logs: Path) -> None:
    for standard, log in enumerate(logs, 1):
        os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND), standard)
    sys.stdout, sys.stderr = (os.fdopen(n, "w", buffering=1) for n in (1, 2))
    register_module_forward_hook(_note_decoded)
    if blocked is not None:
        os.open = partial(_open_or_wait, os.open, blocked)
    try:
        app(command)
    finally:
        sys.stdout.write(f"peak {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss}\n")


def _open_or_wait(opened: Callable[..., int], blocked: str, file: Any, *words: Any, **more: Any) -> int:
    if os.path.basename(os.fsdecode(file)) == blocked:
        time.sleep(3600)  # as on a network's disk that does not answer
    return opened(file, *words, **more)


def _note_decoded(module: nn.Module, _arguments: object, pixels: Tensor) -> None:
    if isinstance(module, Decoder):
        sys.stdout.write(f"decoded {len(pixels)}\n")
