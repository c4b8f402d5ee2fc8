"""The loop: read ahead, batch by size, translate, save and record behind, survive errors."""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from functools import cache, partial

from sdcorrect.batch.attempts import Attempts
from sdcorrect.batch.jobfile import JobEntry, fingerprint_of
from sdcorrect.batch.pipeline import Behind, ahead, count_threads
from sdcorrect.batch.recorder import Recorder
from sdcorrect.batch.size import find_batch_size
from sdcorrect.batch.workload import Workload
from sdcorrect.config import Job
from sdcorrect.errors import PictureError, SdcorrectError, UsageError, counted, printable
from sdcorrect.inputs.beside import Beside
from sdcorrect.inputs.icons import doubt_of
from sdcorrect.inputs.items import Found, Item, find
from sdcorrect.inputs.pictures import Picture, Sizing, read_picture, sha256_of
from sdcorrect.models import Model
from sdcorrect.output.files import locked
from sdcorrect.output.folder import state_of
from sdcorrect.output.ledger import Known, Ledger
from sdcorrect.output.records import BatchSize, Failed, Record
from sdcorrect.output.shards import Shard
from sdcorrect.translate import Translator

#: How many batches' worth of pictures may wait for others of their size.
WAITING_BATCHES = 8

logger = logging.getLogger(__name__)


@dataclass
class Tally:
    """What this run did for one variant."""

    done: int = 0
    failed: int = 0
    filtered: int = 0  #: left out by the job's filters
    before: int = 0  #: done by an earlier run
    evaluations: int | None = None  #: U-Net evaluations per picture


@dataclass(frozen=True)
class _Prepared:
    """An item on its way to the model: with its picture, with an error, or with nothing left to do."""

    item: Item
    settled: dict[str, Known]  #: by variant, what an earlier run has finished or failed
    picture: Picture | None = None
    error: PictureError | None = None


class ShardRun:
    """Runs one shard of a job on one model. `items` are its pictures; `records()` translates them.

    `check` is called before each U-Net evaluation and may raise, to stop the run cleanly. `warn` is
    called at most once, if the embedded model gets pictures that it was not trained for. `found` are all
    pictures of the job, if the caller has them already.

    Raises:
        UsageError: there are no pictures, none has prompts that can be used, or the model lacks a
            recipe's blocks.
    """

    def __init__(
        self,
        job: Job,
        model: Model,
        shard: Shard,
        *,
        overwrite: bool = False,
        retry_failed: bool = False,
        fail_fast: bool = False,
        check: Callable[[], None] = lambda: None,
        warn: Callable[[str], None] = logger.warning,
        found: Found | None = None,
    ) -> None:
        self.job = job
        self.model = model
        self.overwrite = overwrite
        self.retry_failed = retry_failed
        self.fail_fast = fail_fast
        self.check = check
        self._warn, self._has_warned = warn, False
        self.threads = count_threads()  #: threads that read pictures, and as many again that encode them
        everything = found or find(job)
        self.sizing = Sizing(job.resize, job.size or model.native_size, model.multiple)
        self.beside = Beside(job, self.sizing)
        self.translator = Translator.of_job(job, model, job.recipes)
        #: by picture and variant, why that recipe alone cannot work with the picture's prompts
        self.refused: dict[str, dict[str, str]] = {}
        self.items = [self._with_problem(item) for item in everything.part(shard.has)]
        if shard.count == 1:
            _check_any(self.items)
        self.tally = {name: Tally() for name in self.translator.methods}
        self.fingerprint = fingerprint_of(job, model, self.sizing.size)
        self.ledger = Ledger(job.output.path, shard)
        self.entry = JobEntry(job, shard, self.translator, self.fingerprint, self.ledger, everything)
        #: pictures per batch; with `auto` 1, until the first picture is read
        self.batch_size = 1 if job.batch_size == "auto" else job.batch_size
        self.found_batch_size: BatchSize | None = None  #: for `auto`
        self.attempts = Attempts(self.translator, batch_size=self.batch_size)
        self.recorder = Recorder(job, self.translator, self.fingerprint, self.ledger, everything.outputs)
        self.work = Workload(len(self.items) * len(self.tally), cache(self.translator.evaluations))

    def _with_problem(self, item: Item) -> Item:
        """`item`; prompts of its own that no recipe can work with are its problem.

        Raises:
            UsageError: a recipe cannot work with the job's.
        """
        words, job = (item.prompt, item.source_prompt, item.mask_words), self.job
        refused = {} if item.problem else self.translator.refusals(*words)
        for complaint in refused.values():
            if words == (job.prompt, job.source_prompt, job.mask_words):
                raise UsageError(complaint)
            if len(refused) == len(self.translator.methods):
                return replace(item, problem=complaint)
        if refused:
            self.refused[item.key] = refused
        return item

    def records(self) -> Iterator[Record | None]:
        """Translate what is not done; yield a record per picture and variant, None if done before.

        Raises:
            UsageError: the output folder has pictures of another job.
            SdcorrectError: another process is working on this shard, the output folder cannot be
                written, or a picture failed and `fail_fast` is set.
        """
        began = time.perf_counter()
        with locked(self.ledger.temporary.with_suffix(".lock")), self._checked():
            self.entry.take_up(overwrite=self.overwrite)
            self.ledger.open(overwrite=self.overwrite)
            self._expect()
            try:
                with Behind[Record](self.threads) as behind:
                    for record in self._work(behind):
                        yield record
                        if record and record.status == "failed" and self.fail_fast:
                            raise SdcorrectError(
                                f"{printable(record.input.path)} ({record.variant}): {record.error}; "
                                "stopped at the first failure because of --fail-fast"
                            )
            finally:
                if self.wrote:
                    self.entry.close(time.perf_counter() - began)

    @property
    def wrote(self) -> bool:
        """Whether anything was recorded."""
        return self.recorder.wrote

    def gone(self) -> list[str]:
        """Outputs of earlier runs whose source pictures the job no longer covers."""
        return self.ledger.gone({item.key for item in self.items})

    @contextmanager
    def _checked(self) -> Iterator[None]:
        hook = self.model.pipe.unet.register_forward_pre_hook(lambda *_: self._evaluating())
        try:
            yield
        finally:
            hook.remove()

    def _evaluating(self) -> None:
        self.work.run(self.attempts.evaluations)
        self.check()

    def _expect(self) -> None:
        """Estimate from the records what is left to do."""
        for item in self.items:
            missing = tuple(v for v in self.tally if not self._is_settled(item, v))
            before = len(self.tally) - len(missing)
            refused = self.tally if item.problem else self.refused.get(item.key, {})
            self.work.expect(item.key, tuple(v for v in missing if v not in refused), before)

    def _is_settled(self, item: Item, variant: str) -> bool:
        known = self.ledger.known(item.key, variant)
        return known is not None and self._settles(item, variant, known)

    def _work(self, behind: Behind[Record]) -> Iterator[Record | None]:
        waiting: dict[tuple[tuple[int, int], int, tuple[str, ...]], list[Picture]] = {}
        read = ahead(self._prepare, self.items, self._depth, self.check, self.threads)
        with closing(read) as items:
            for prepared in items:
                self.check()
                yield from self._settled(prepared)
                errors = self._errors(prepared)
                missing = tuple(v for v in self.tally if v not in {**prepared.settled, **errors})
                self.work.look_again(prepared.item.key, missing, len(prepared.settled))
                for variant, error in errors.items():
                    behind.submit(partial(self.recorder.record_failure, prepared.item, variant, error))
                if errors:
                    waits = self.batch_size * len(self.tally)
                    yield from map(self._counted, behind.results(leave=waits))
                if prepared.picture and missing:
                    self._warn_of(prepared.picture)
                    self._settle_batch_size(prepared.picture)
                    key = (prepared.picture.image.size, self._chunks(prepared.item), missing)
                    waiting.setdefault(key, []).append(prepared.picture)
                    if sum(map(len, waiting.values())) == WAITING_BATCHES * self.batch_size:
                        key = max(waiting, key=lambda key: len(waiting[key]))
                    elif len(waiting[key]) < self.batch_size:
                        continue
                    yield from self._translate(waiting.pop(key), key[-1], behind)
        for (*_, missing), rest in waiting.items():
            yield from self._translate(rest, missing, behind)
        yield from map(self._counted, behind.results())

    def _errors(self, prepared: _Prepared) -> dict[str, PictureError]:
        """What keeps variants from being translated."""
        if prepared.error:
            return {v: prepared.error for v in self.tally if v not in prepared.settled}
        sha256 = prepared.picture.sha256 if prepared.picture else None
        refused = self.refused.get(prepared.item.key, {}).items()
        return {v: PictureError(why, sha256) for v, why in refused if v not in prepared.settled}

    def _depth(self) -> int:
        """How many pictures are read ahead."""
        return max(2 * self.batch_size, self.threads)

    def _settle_batch_size(self, first: Picture) -> None:
        """Find the batch size for `auto`, with the `first` picture at the largest possible size."""
        if self.job.batch_size != "auto" or self.found_batch_size:
            return
        largest = self.sizing.largest(first)
        found = self.entry.batch_size(
            partial(find_batch_size, self.translator, self.attempts.request(largest))
        )
        self.found_batch_size, self.batch_size = found, found.size
        self.attempts.batch_size = found.size

    def _warn_of(self, picture: Picture) -> None:
        if not self._has_warned and (doubt := doubt_of(self.model, [picture])):
            self._has_warned = True
            self._warn(doubt)

    def _chunks(self, item: Item) -> int:
        return self.translator.count_chunks(item.prompt, item.negative_prompt, item.source_prompt)

    def _prepare(self, item: Item) -> _Prepared:
        """Read `item`, unless an earlier run has settled all its variants."""
        known = {v: k for v in self.tally if (k := self.ledger.known(item.key, v))}
        settled = {}
        if any(self._settles(item, variant, k) for variant, k in known.items()):
            sha256, companions = self._sha256(item), self.beside.sha256s(item)
            settled = {
                variant: k
                for variant, k in known.items()
                if k.is_of(sha256, companions) and self._settles(item, variant, k)
            }
        if len(settled) == len(self.tally):
            return _Prepared(item, settled)
        try:
            read = read_picture(item, self.sizing, self.job.input, self.job.output.keep)
            picture = self.beside.add_to(read)
            return _Prepared(item, settled, picture)
        except PictureError as error:
            return _Prepared(item, settled, error=error)

    def _sha256(self, item: Item) -> str | None:
        try:
            return sha256_of(item.source, self.job.input)
        except PictureError:
            return None

    def _settles(self, item: Item, variant: str, known: Known) -> bool:
        """Whether nothing is left to do, provided that the picture's content has not changed."""
        file = self.job.output.path / variant / item.output
        match state_of(known, self.fingerprint.mark(item, variant), file):
            case "done":
                return True
            case "failed" | "filtered":
                # a picture that never reached the model is cheap to check again, with today's limits
                return isinstance(known.unfinished, Failed) and not self.retry_failed
            case _:
                return False

    def _settled(self, prepared: _Prepared) -> Iterator[Record | None]:
        for variant, known in prepared.settled.items():
            if known.unfinished:
                self.tally[variant].failed += 1
            else:
                self.tally[variant].before += 1
            yield known.unfinished

    def _translate(
        self, batch: Sequence[Picture], variants: tuple[str, ...], behind: Behind[Record]
    ) -> Iterator[Record]:
        """Translate `batch`; yields records of the batch before it, while this one is saved behind."""
        self.work.begin()
        for part in self.attempts(batch, variants):
            for picture, variant, result in part:
                self.work.finish(variants, variant)
                what = picture, variant, result
                behind.submit_in_parts(
                    partial(self.recorder.encode, *what), partial(self.recorder.save, *what)
                )
            yield from map(self._counted, behind.results(leave=len(part)))

    def _counted(self, record: Record) -> Record:
        self.work.settled += 1
        tally = self.tally[record.variant]
        setattr(tally, record.status, getattr(tally, record.status) + 1)
        tally.evaluations = record.unet_evaluations or tally.evaluations
        return record


def _check_any(items: Sequence[Item]) -> None:
    """Raises UsageError if every one of a job's pictures has a problem."""
    if items and all(item.problem for item in items):
        first = f"{printable(items[0].key)}: {items[0].problem}"
        one = len(items) == 1
        raise UsageError(
            first if one else f"none of {counted(len(items), 'picture')} can be translated; {first}"
        )
