"""The loop: read ahead, batch by size, translate, save and record behind, survive."""

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from functools import partial

from sdcorrect.batch.attempts import Attempts
from sdcorrect.batch.files import locked
from sdcorrect.batch.hints import check_folders, hints_of
from sdcorrect.batch.inputs import Item, find_items
from sdcorrect.batch.jobfile import JobEntry, fingerprint_of
from sdcorrect.batch.ledger import Known, Ledger
from sdcorrect.batch.pictures import Picture, Sizing, read_picture
from sdcorrect.batch.pipeline import Behind, ahead
from sdcorrect.batch.records import Record
from sdcorrect.batch.results import Results
from sdcorrect.batch.shards import Shard
from sdcorrect.config import Job
from sdcorrect.errors import PictureError, SdcorrectError, printable
from sdcorrect.models import Model
from sdcorrect.translate import Translator

#: How many batches of pictures wait for others of their size before an unfilled one is translated.
WAITING_BATCHES = 8
<<<<<<< HEAD
=======
#: What the web UIs call the schedulers.
SAMPLERS = {"ddim": "DDIM", "dpm++": "DPM++ 2M", "unipc": "UniPC"}
OUT_OF_MEMORY = "out of memory with one picture at a time; choose a smaller size"

logger = logging.getLogger(__name__)
>>>>>>> parent of 5f645fc (Add the checkpoint's own safety checker, off by default; what it flags fails with that reason)


@dataclass
class Tally:
    """What this run did for one variant."""

    done: int = 0
    failed: int = 0
    filtered: int = 0  #: left out by the job's own filters
    before: int = 0  #: done by an earlier run
    evaluations: int | None = None  #: of the U-Net, a picture


@dataclass(frozen=True)
class _Prepared:
    """An item on its way to the model: its picture, or why there is none, or nothing left to do."""

    item: Item
    settled: dict[str, Known]  #: by variant, what an earlier run has done, or failed to do
    picture: Picture | None = None
    error: PictureError | None = None


class Run:
    """One shard of a job on one model. `items` are what it covers, `records()` works through them.

    `check` is called between U-Net evaluations and may raise, to stop the run in good order.

    Raises:
        UsageError: no pictures, or blocks that the model lacks.
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
    ) -> None:
        self.job = job
        self.model = model
        self.overwrite = overwrite
        self.retry_failed = retry_failed
        self.fail_fast = fail_fast
        self.check = check
        everything = find_items(job)
        check_folders(job.controlnets)
        self.items = [item for item in everything if shard.has(item.key)]
        self.sizing = Sizing(job.resize, job.size or model.native_size, model.multiple)
        self.translator = Translator(
            model,
            job.recipes,
            steps=job.steps,
            strength=job.strength,
            guidance_scale=job.guidance_scale,
            scheduler=job.scheduler,
            equalizer=job.equalizer,
            spill=job.spill,
        )
        for item in self.items:
            if item.problem is None:
                self.translator.check_prompts(item.prompt, item.source_prompt)
        self.tally = {recipe.name: Tally() for recipe in job.recipes}
        self.fingerprint = fingerprint_of(job, model, self.sizing.size)
        self.ledger = Ledger(job.output.path, shard)
        self.entry = JobEntry(
            job, shard, self.translator, self.fingerprint, self.ledger, len(everything)
        )
        self.attempts = Attempts(self.translator, batch_size=job.batch_size, job_seed=job.seed)
        self.results = Results(job, self.translator, self.fingerprint, self.ledger)

    def records(self) -> Iterator[Record | None]:
        """Do all that is not done: for each picture and variant its record, None where it was done.

        Raises:
            UsageError: the output folder has pictures of another job.
            SdcorrectError: another process is at work on this shard, the output folder cannot be
                written, or a picture has failed and the run was to fail fast.
        """
        began = time.perf_counter()
        with locked(self.ledger.temporary.with_suffix(".lock")), self._checked():
            self.entry.take_up(overwrite=self.overwrite)
            self.ledger.open(overwrite=self.overwrite)
            try:
                with ThreadPoolExecutor(1, "behind") as pool:
                    for record in self._work(Behind(pool)):
                        yield record
                        if record and record.status == "failed" and self.fail_fast:
                            raise SdcorrectError(
                                f"{printable(record.input.path)} ({record.variant}): {record.error}; "
                                "stopped at this first failure, as --fail-fast asks"
                            )
            finally:
                if self.results.any:
                    self.entry.close(time.perf_counter() - began)

    @contextmanager
    def _checked(self) -> Iterator[None]:
        hook = self.model.pipe.unet.register_forward_pre_hook(lambda *_: self.check())
        try:
            yield
        finally:
            hook.remove()

    def _work(self, behind: Behind[Record]) -> Iterator[Record | None]:
        batch_size = self.job.batch_size
        waiting: dict[tuple[tuple[int, int], int, tuple[str, ...]], list[Picture]] = {}
        with closing(ahead(self._prepare, self.items, depth=2 * batch_size)) as items:
            for prepared in items:
                self.check()
                yield from self._settled(prepared)
                missing = tuple(v for v in self.tally if v not in prepared.settled)
                if prepared.error:
                    for variant in missing:
                        behind.submit(
                            partial(self.results.refuse, prepared.item, variant, prepared.error)
                        )
                    waits = batch_size * len(self.tally)
                    yield from map(self._counted, behind.results(leave=waits))
                elif prepared.picture:
                    key = (prepared.picture.image.size, self._chunks(prepared.item), missing)
                    waiting.setdefault(key, []).append(prepared.picture)
                    if sum(map(len, waiting.values())) == WAITING_BATCHES * batch_size:
                        key = max(waiting, key=lambda key: len(waiting[key]))
                    elif len(waiting[key]) < batch_size:
                        continue
                    yield from self._translate(waiting.pop(key), key[-1], behind)
        for (*_, missing), rest in waiting.items():
            yield from self._translate(rest, missing, behind)
        yield from map(self._counted, behind.results())

    def _chunks(self, item: Item) -> int:
        return self.translator.count_chunks(item.prompt, item.negative_prompt, item.source_prompt)

    def _prepare(self, item: Item) -> _Prepared:
        """Read `item`, unless an earlier run has settled it in all variants."""
        known = {v: k for v in self.tally if (k := self.ledger.known(item.key, v))}
        settled = {}
        if any(self._settles(item, variant, k) for variant, k in known.items()):
            sha256 = _sha256(item)
            settled = {
                variant: k
                for variant, k in known.items()
                if k.sha256 == sha256 and self._settles(item, variant, k)
            }
        if len(settled) == len(self.tally):
            return _Prepared(item, settled)
        try:
            picture = read_picture(item, self.sizing, self.job.input)
            hints = hints_of(picture, self.job.controlnets, self.sizing)
            return _Prepared(item, settled, replace(picture, hints=hints))
        except PictureError as error:
            return _Prepared(item, settled, error=error)

    def _settles(self, item: Item, variant: str, known: Known) -> bool:
        """Whether nothing is left to do, if the picture's content is still what it was."""
        if known.fingerprint != self.fingerprint.mark(item, variant):
            return False
        if known.unfinished is None:
            return (self.job.output.path / variant / item.output).is_file()
        # what was not let through to the model costs little to look at again, with today's limits
        return known.unfinished.size is not None and not self.retry_failed

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
        """Translate `batch`; it is saved and recorded behind, while the batch before it is so by now."""
<<<<<<< HEAD
        for part in self.attempts(batch, variants):
            for picture, variant, result in part:
                behind.submit(partial(self.results.save, picture, variant, result))
            yield from map(self._counted, behind.results(leave=len(part)))
=======
        while batch:
            part = batch[: self.batch_size]
            results = self._attempt(part, variants, self.batch_size)
            if results is None and self.batch_size > 1:
                self._halve_batches()
                continue
            for variant in variants:
                for row, picture in enumerate(part):
                    result = results[variant][row] if results else _Result(problem=OUT_OF_MEMORY)
                    if result.problem and results:
                        result = self._retry_in_float32(picture, variant, result)
                    behind.submit(partial(self._save, picture, variant, result))
            batch = batch[len(part) :]
            yield from map(self._counted, behind.results(leave=len(part) * len(variants)))

    def _attempt(
        self, pictures: Sequence[Picture], variants: tuple[str, ...], batch_size: int
    ) -> dict[str, list["_Result"]] | None:
        """The results by variant, in the order of `pictures`; None where memory does not suffice."""
        # A batch is always full: kernels differ by its size, and a picture's bytes must not
        # depend on how many others happened to be left over with it.
        rows = [*pictures, *[pictures[-1]] * (batch_size - len(pictures))]
        began = time.perf_counter()
        try:
            translations = self.translator(
                [picture.image for picture in rows],
                variants=variants,
                seeds=[self._seed(picture.item, picture.sha256) for picture in rows],
                prompts=[picture.item.prompt for picture in rows],
                negative_prompts=[picture.item.negative_prompt for picture in rows],
                source_prompts=[picture.item.source_prompt for picture in rows],
                hints=[picture.hints for picture in rows],
            )
        except torch.OutOfMemoryError:
            return None
        seconds = (time.perf_counter() - began) / len(pictures) / len(variants)
        return {
            variant: [
                _Result(image, _problem(picture, image), translation.evaluations, seconds)
                for picture, image in zip(pictures, translation.pictures, strict=False)
            ]
            for variant, translation in translations.items()
        }

    def _halve_batches(self) -> None:
        before, self.batch_size = self.batch_size, self.batch_size // 2
        torch.cuda.empty_cache()
        logger.warning(
            "out of memory with %d pictures in a batch: going on with %d", before, self.batch_size
        )

    def _retry_in_float32(self, picture: Picture, variant: str, result: "_Result") -> "_Result":
        if self.model.dtype == torch.float32:
            return result
        logger.warning(
            "%s (%s): %s; once more in float32", printable(picture.item.key), variant, result.problem
        )
        with self.model.in_float32():
            again = self._attempt([picture], (variant,), 1)
        if again is None:
            return replace(result, problem=f"{result.problem}, and memory does not suffice for float32")
        (second,) = again[variant]
        return replace(
            second,
            evaluations=(result.evaluations or 0) + (second.evaluations or 0),
            seconds=result.seconds + second.seconds,
        )

    def _save(self, picture: Picture, variant: str, result: "_Result") -> Record:
        """Write the result, then record it; in the thread behind."""
        path = Path(variant) / picture.item.output
        record = self._record(
            picture.item,
            picture.sha256,
            variant,
            status="failed" if result.problem else "done",
            error=result.problem,
            output=None if result.problem else OutputFile(path=path.as_posix()),
            size=picture.image.size,
            unet_evaluations=result.evaluations,
            seconds=round(result.seconds, 4),
        )
        image = result.image
        if image and not result.problem:
            text = self._parameters(record) if self.job.output.embed_metadata else None
            write_atomically(
                self.job.output.path / path,
                lambda stream: save(image, stream, self.job.output.format, text),
                temporary=self.ledger.temporary,
            )
        return self._append(record)

    def _parameters(self, record: Record) -> str:
        method = self.translator.methods[record.variant]
        width, height = record.size or (0, 0)
        return parameters(
            record.prompt,
            record.negative_prompt,
            {
                "Steps": method.steps,
                "Sampler": SAMPLERS[method.recipe.scheduler or self.job.scheduler],
                "CFG scale": method.guidance_scale,
                "Seed": record.seed,
                "Size": f"{width}x{height}",
                "Model hash": self.model.identity[:10],
                "Model": Path(self.model.name).name,
                "Denoising strength": method.strength,
                "Method": record.variant,
                "Version": f"sdcorrect {__version__}",
            },
        )

    def _record(
        self,
        item: Item,
        sha256: str | None,
        variant: str,
        *,
        status: Status,
        error: str | None,
        **more: Any,
    ) -> Record:
        method = self.translator.methods[variant]
        return Record(
            input=InputFile(path=item.key, sha256=sha256),
            variant=variant,
            status=status,
            error=error,
            seed=self._seed(item, sha256) if sha256 else None,
            prompt=item.prompt,
            negative_prompt=method.negative_prompt_for(item.negative_prompt),
            source_prompt=item.source_prompt,
            effective_steps=method.effective_steps,
            fingerprint=self.fingerprint.mark(item, variant),
            finished=datetime.now(timezone.utc),
            **more,
        )

    def _append(self, record: Record) -> Record:
        self.ledger.append(record)
        self.has_recorded = True
        return record
>>>>>>> parent of 5f645fc (Add the checkpoint's own safety checker, off by default; what it flags fails with that reason)

    def _counted(self, record: Record) -> Record:
        tally = self.tally[record.variant]
        setattr(tally, record.status, getattr(tally, record.status) + 1)
        tally.evaluations = record.unet_evaluations or tally.evaluations
        return record

<<<<<<< HEAD
=======
    def _seed(self, item: Item, sha256: str) -> int:
        """The picture's own seed, of its content and the job's seed: no two share their noise."""
        if item.seed is not None:
            return item.seed
        digest = hashlib.sha256(f"{self.job.seed} {sha256}".encode()).digest()
        return int.from_bytes(digest[:4], "big")

    def _take_up_job(self) -> None:
        """Compare the folder's job with this one, and write it where it is new or has grown."""
        before = read_job(self.job.output.path)
        fingerprint = self.fingerprint
        if before and not self.overwrite:
            refuse_other_job(self.job.output.path, before.fingerprint, fingerprint)
        if before and before.fingerprint.settings == fingerprint.settings:
            variants = {**before.fingerprint.variants, **fingerprint.variants}
            fingerprint = fingerprint.model_copy(update={"variants": variants})
        content = self._job_file(fingerprint)
        told = {"job", "fingerprint", "num_shards", "pictures"}
        if before is None or before.model_dump(include=told) != content.model_dump(include=told):
            write_job(self.job.output.path, content, self.ledger.temporary)

    def _job_file(self, fingerprint: Fingerprint) -> JobFile:
        out = self.job.output.path
        return JobFile(
            sdcorrect=__version__,
            written=datetime.now(timezone.utc),
            job=absolute_paths(self.job),
            fingerprint=fingerprint,
            model=ModelInfo(name=self.model.name, identity=self.model.identity),
            num_shards=self.shard.count,
            pictures=self.pictures,
            effective_steps={
                name: method.effective_steps for name, method in self.translator.methods.items()
            },
            **_machine(self.model.device),
            **totals(latest_records(out).values(), read_summaries(out)),
        )

    def _close(self, seconds: float) -> None:
        """Write this shard's summary, and the whole of `job.json` where there is no other shard."""
        before = self.ledger.summary()
        spent = dict(before.seconds) if before else {}
        add_seconds(spent, {"total": seconds, **self.translator.seconds})
        machine = _machine(self.model.device)
        self.ledger.write_summary(
            Summary(shard=str(self.shard), host=platform.node(), seconds=spent, **machine)
        )
        if self.shard.count == 1:
            with locked(job_lock(self.job.output.path), wait=True):
                job_file = read_job(self.job.output.path)
                fingerprint = job_file.fingerprint if job_file else self.fingerprint
                write_job(self.job.output.path, self._job_file(fingerprint), self.ledger.temporary)


@dataclass(frozen=True)
class _Result:
    """What a recipe made of one picture."""

    image: Image.Image | None = None
    problem: str | None = None  #: why the image is not to be kept
    evaluations: int | None = None
    seconds: float = 0.0


def _problem(picture: Picture, image: Image.Image | None) -> str | None:
    """Why `image` cannot be what was asked for: where precision does not suffice, it is NaN or black."""
    if image is None:
        return "the result is not finite (NaN)"
    if image.getbbox() is None and picture.image.getbbox() is not None:
        return "the result is black all over"
    return None

>>>>>>> parent of 5f645fc (Add the checkpoint's own safety checker, off by default; what it flags fails with that reason)

def _sha256(item: Item) -> str | None:
    try:
        return hashlib.sha256(item.source.read_bytes()).hexdigest()
    except OSError:
        return None
