"""Run a job on several devices: one process for each, which takes one part of the pictures at a time."""

import logging
import signal
import time
from collections import deque
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import TYPE_CHECKING, Any

from sdcorrect.cli.console import log_as_lines, notice, tell
from sdcorrect.cli.signals import EXIT_CODES, GRACE, Stop
from sdcorrect.config import Job
from sdcorrect.errors import SdcorrectError, counted, one_line
from sdcorrect.libraries import lean_imports

if TYPE_CHECKING:
    from sdcorrect.batch.runner import Tally
    from sdcorrect.inputs.items import Found
    from sdcorrect.output.records import BatchSize, Record
    from sdcorrect.output.shards import Shard

#: More parts than devices, so that a slow device gets fewer; no part smaller than some whole batches.
PARTS_OF_A_DEVICE, BATCHES_OF_A_PART = 8, 4
LARGE = 64  #: the largest batch size for `auto`
PATIENCE = 0.2  #: seconds between two checks for a signal


@dataclass(frozen=True)
class Described:
    """The model, as every process has loaded it."""

    name: str
    device: str
    precision: str
    cost: int  #: U-Net evaluations per picture, all variants together


@dataclass
class _Sent:
    """What a process reports about the part that it is working on."""

    tally: "dict[str, Tally]"
    settled: int = 0
    before: int = 0
    evaluations: int = 0
    evaluated: int = 0
    wrote: bool = False
    gone: list[str] = field(default_factory=list)
    batch_size: int = 1
    found_batch_size: "BatchSize | None" = None
    is_last: bool = False
    record: "Record | None" = None


@dataclass(frozen=True)
class _Warned:
    """A warning from a process, shown once for all processes."""

    line: str


class Work:
    """Progress over all parts, with the attributes of `sdcorrect.batch.workload.Workload`."""

    def __init__(self, covered: int) -> None:
        self.covered = covered
        self.cost = 0  #: U-Net evaluations per picture, for parts that have not begun
        self.began: float | None = None
        self.parts: dict[Shard, _Sent] = {}
        self.waiting: dict[Shard, int] = {}  #: pictures in each part

    @property
    def settled(self) -> int:
        return sum(sent.settled for sent in self.parts.values())

    @property
    def before(self) -> int:
        return sum(sent.before for sent in self.parts.values())

    @property
    def to_do(self) -> int:
        return self.covered - self.before

    @property
    def evaluations(self) -> int:
        known = sum(sent.evaluations for sent in self.parts.values())
        return known + self.cost * sum(n for p, n in self.waiting.items() if p not in self.parts)

    @property
    def evaluated(self) -> int:
        return sum(sent.evaluated for sent in self.parts.values())


@dataclass
class _Worker:
    """A worker process, as its parent sees it."""

    device: str
    process: BaseProcess
    connection: "Connection[Any, Any]"
    part: "Shard | None" = None
    ready: bool = False


class DevicesRun:
    """Runs one shard of `job` on several devices; has the interface of a `ShardRun`.

    When a process fails, its unfinished part goes to another.
    """

    def __init__(
        self, job: Job, devices: list[str], shard: "Shard", found: "Found", stop: Stop, **options: bool
    ) -> None:
        self.job, self.shard, self.stop, self.options = job, shard, stop, options
        self.items = [key for key in found.keys if shard.has(key)]
        self.devices = devices[: max(1, len(self.items))]
        if len(self.devices) < len(devices):
            idle = len(devices) - len(self.devices)
            pictures = counted(len(self.items), "picture")
            notice(f"{len(devices)} devices for {pictures}: {idle} idle")
        self.model = Described(job.model, " and ".join(self.devices), "", 0)
        self.work = Work(len(self.items) * len(job.expanded))
        self._has_warned = False
        parts = self._parts()
        self.work.waiting = {part: sum(map(part.has, self.items)) for part in parts}
        self._left = deque(part for part in parts if self.work.waiting[part])

    def _parts(self) -> "list[Shard]":
        from sdcorrect.output.records import MAX_SHARDS

        size = BATCHES_OF_A_PART * (LARGE if self.job.batch_size == "auto" else self.job.batch_size)
        wanted = min(PARTS_OF_A_DEVICE, -(-len(self.items) // (size * len(self.devices))))
        count = min(max(1, wanted) * len(self.devices), max(1, MAX_SHARDS // self.shard.count))
        return [self.shard.part(index, count) for index in range(count)]

    @cached_property
    def tally(self) -> "dict[str, Tally]":
        from sdcorrect.batch.runner import Tally

        return {variant.name: Tally() for variant in self.job.expanded}

    @property
    def wrote(self) -> bool:
        return any(sent.wrote for sent in self.work.parts.values())

    @property
    def batch_size(self) -> int:
        return max((sent.batch_size for sent in self.work.parts.values()), default=1)

    @property
    def found_batch_size(self) -> "BatchSize | None":
        found = (sent.found_batch_size for sent in self.work.parts.values())
        return next(filter(None, found), None)

    def gone(self) -> list[str]:
        return [output for sent in self.work.parts.values() for output in sent.gone]

    def records(self) -> "Iterator[Record | None]":
        """Records from all processes, as they arrive.

        Raises:
            SdcorrectError: an error that would end a run on one device, or no device is left.
        """
        told: set[tuple[str, str]] = set()
        with self._started() as workers:
            while workers:
                self.stop.check()
                for connection in wait([worker.connection for worker in workers], PATIENCE):
                    (worker,) = (w for w in workers if w.connection is connection)
                    record = self._heard(worker, workers)
                    if record is not None and (key := (record.input.path, record.variant)) not in told:
                        told.add(key)
                        yield record
        self._add_up()
        if self.shard.count == 1:
            from sdcorrect.output.survey import merge

            merge(self.job.output.path)

    @contextmanager
    def _started(self) -> "Iterator[list[_Worker]]":
        context = get_context("spawn")
        stopping = context.Event()
        workers = []
        for device in self.devices:
            ours, theirs = context.Pipe()
            job = self.job.model_copy(update={"device": device})
            levels = [logging.getLogger(name).level for name in ("", "sdcorrect")]
            arguments = (theirs, stopping, job, self.options, levels)
            process = context.Process(target=_serve, args=arguments, name=device)
            process.start()
            theirs.close()
            workers.append(_Worker(device, process, ours))
        everyone = [worker.process for worker in workers]
        try:
            yield workers
        finally:
            stopping.set()
            until = time.monotonic() + GRACE - 1
            for started in everyone:
                started.join(max(0, until - time.monotonic()))
                started.kill()

    def _heard(self, worker: _Worker, workers: list[_Worker]) -> "Record | None":
        try:
            heard = worker.connection.recv()
        except (EOFError, ConnectionError):
            worker.process.join()
            self._lose(worker, workers, f"its process ended with exit code {worker.process.exitcode}")
            return None
        match heard:
            case SdcorrectError():
                raise heard
            case str():
                self._lose(worker, workers, heard)
            case Described():
                self.model = replace(heard, device=self.model.device)
                self.work.cost, worker.ready = heard.cost, True
                self._give(worker, workers)
            case _Warned() if not self._has_warned:
                self._has_warned = True
                tell("warning", heard.line)
            case _Sent() if worker.part:
                self.work.began = self.work.began or time.monotonic()
                self.work.parts[worker.part] = heard
                if heard.is_last:
                    worker.part = None
                    self._give(worker, workers)
                return heard.record
        return None

    def _give(self, worker: _Worker, workers: list[_Worker]) -> None:
        """Send the next part; if none is left, the process waits in case another one fails."""
        if self._left:
            worker.part = self._left.popleft()
            worker.connection.send(worker.part)
        elif not any(other.part for other in workers):
            for other in workers:
                other.connection.send(None)
            workers.clear()

    def _lose(self, worker: _Worker, workers: list[_Worker], reason: str) -> None:
        workers.remove(worker)
        if not workers:
            raise SdcorrectError(f"device {worker.device} failed, and no other is left: {reason}")
        tell("warning", f"device {worker.device} failed; the others carry on: {reason}", "yellow")
        if worker.part:
            self._left.appendleft(worker.part)
            self.work.parts.pop(worker.part, None)
        for other in [other for other in workers if other.part is None and other.ready]:
            self._give(other, workers)

    def _add_up(self) -> None:
        for sent in self.work.parts.values():
            for variant, tally in sent.tally.items():
                total = self.tally[variant]
                for name in ("done", "failed", "filtered", "before"):
                    setattr(total, name, getattr(total, name) + getattr(tally, name))
                total.evaluations = tally.evaluations or total.evaluations


def _serve(
    connection: "Connection[Any, Any]",
    stopping: Any,
    job: Job,
    options: dict[str, bool],
    levels: list[int],
) -> None:
    """The process of one device: load the model, then translate each part that it is sent."""
    for number in EXIT_CODES:
        signal.signal(number, signal.SIG_IGN)  # the parent handles signals and stops all workers cleanly
    log_as_lines()
    for name, level in zip(("", "sdcorrect"), levels, strict=True):
        logging.getLogger(name).setLevel(level)

    def check() -> None:
        parent = parent_process()
        if stopping.is_set() or (parent and not parent.is_alive()):
            raise SystemExit

    with closing(connection):
        try:
            _serve_parts(connection, job, options, check)
        except SdcorrectError as error:
            connection.send(error)
        except Exception as error:
            connection.send(one_line(error))


def _serve_parts(
    connection: "Connection[Any, Any]", job: Job, options: dict[str, bool], check: Any
) -> None:
    with lean_imports():
        from sdcorrect.batch.runner import ShardRun
        from sdcorrect.inputs.items import find
        from sdcorrect.models import load, quiet_libraries
        from sdcorrect.translate import Translator

    quiet_libraries()
    model, found = load(job), find(job)
    translator = Translator.of_job(job, model, job.recipes)
    cost = translator.evaluations(tuple(translator.methods))
    connection.send(Described(model.name, str(model.device), model.precision, cost))

    def warn(line: str) -> None:
        connection.send(_Warned(line))

    while True:
        while not connection.poll(PATIENCE):
            check()
        part = connection.recv()
        if part is None:
            return
        run = ShardRun(job, model, part, check=check, warn=warn, found=found, **options)
        for record in run.records():
            connection.send(_sent(run, record))
        connection.send(_sent(run, None, is_last=True))


def _sent(run: Any, record: "Record | None", *, is_last: bool = False) -> _Sent:
    work = run.work
    counts = work.settled, work.before, work.evaluations, work.evaluated
    gone = run.gone() if is_last else []
    batches = run.batch_size, run.found_batch_size
    return _Sent(run.tally, *counts, run.wrote, gone, *batches, is_last, record)
