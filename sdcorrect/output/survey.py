"""How far a job is, from its output folder alone (imports no torch)."""

from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from sdcorrect.config import Job
from sdcorrect.errors import SdcorrectError, UsageError, listed, printable
from sdcorrect.inputs.items import find_items
from sdcorrect.output.files import locked
from sdcorrect.output.ledger import latest_records, read_job, read_summaries, write_job
from sdcorrect.output.records import Evaluations, JobFile, Record, Summary
from sdcorrect.output.shards import Shard


@dataclass
class Progress:
    """Pictures, each variant of one counting as one."""

    done: int = 0
    failed: int = 0
    filtered: int = 0  #: left out by the job's own filters
    remaining: int = 0


@dataclass
class Survey:
    """The job of an output folder against its records."""

    job: JobFile
    shards: dict[str, Progress]
    failures: list[Record] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)  #: as `variant/path`

    def total(self) -> Progress:
        sums = Counter[str]()
        for progress in self.shards.values():
            sums.update(asdict(progress))
        return Progress(**sums)


def survey(out: Path) -> Survey:
    """Compare what the folder's job covers with what its records say.

    Raises:
        UsageError: the folder is none of `sdcorrect translate`, or the job's input is gone.
    """
    job_file, job = job_of(out)
    shards = [Shard(index, job_file.num_shards) for index in range(job_file.num_shards)]
    found = Survey(job_file, {str(shard): Progress() for shard in shards})
    records = latest_records(out)
    for item in find_items(job):
        progress = found.shards[str(Shard.of(item.key, job_file.num_shards))]
        for recipe in job.recipes:
            record = records.get((item.key, recipe.name))
            if record is None or not _stands(record, out, job_file.fingerprint.mark(item, recipe.name)):
                progress.remaining += 1
                found.missing.append(f"{recipe.name}/{item.key}")
                continue
            setattr(progress, record.status, getattr(progress, record.status) + 1)
            if record.status == "failed":
                found.failures.append(record)
    return found


def job_of(out: Path) -> tuple[JobFile, Job]:
    """What `job.json` says, and its job as it is where the folder is now.

    Raises:
        UsageError: the folder is none of `sdcorrect translate`.
    """
    job_file = read_job(out)
    if job_file is None:
        raise UsageError(f"{printable(out)}: no job.json; give an output folder of sdcorrect translate")
    output = job_file.job.output.model_copy(update={"path": out})
    return job_file, job_file.job.model_copy(update={"output": output})


def _stands(record: Record, out: Path, mark: str) -> bool:
    """Whether `record` is of the job as it is, and its file is there."""
    return record.fingerprint == mark and (record.output is None or (out / record.output.path).is_file())


def merge(out: Path) -> Survey:
    """Join the records of all shards into `job.json`.

    Raises:
        SdcorrectError: pictures are missing, or the folder cannot be written.
        UsageError: the folder is none of `sdcorrect translate`, or the job's input is gone.
    """
    found = survey(out)
    if found.missing:
        unfinished = [name for name, progress in found.shards.items() if progress.remaining]
        raise SdcorrectError(
            f"{printable(out)}: {len(found.missing)} pictures are missing ({listed(found.missing)}), "
            f"of shards {', '.join(unfinished)}; run these again, then merge"
        )
    content = {**dict(found.job), **totals(latest_records(out).values(), read_summaries(out))}
    content["written"] = datetime.now(timezone.utc)
    with locked(job_lock(out), wait=True):
        write_job(out, JobFile.model_validate(content), out / "records" / "merge.tmp")
    return found


def job_lock(out: Path) -> Path:
    """Held while `job.json` is compared and replaced."""
    return out / "records" / "job.lock"


def totals(records: Iterable[Record], summaries: Collection[Summary]) -> dict[str, Any]:
    """The parts of `job.json` that say what came of the job."""
    counts: dict[str, dict[str, int]] = {}
    evaluations: dict[str, Evaluations] = {}
    for record in records:
        count = counts.setdefault(record.variant, {"done": 0, "failed": 0})
        count[record.status] = count.get(record.status, 0) + 1
        spent = record.unet_evaluations
        if spent is not None:
            before = evaluations.get(record.variant)
            total = spent + (before.total if before else 0)
            evaluations[record.variant] = Evaluations(per_picture=spent, total=total)
    seconds: dict[str, float] = {}
    for summary in summaries:
        add_seconds(seconds, summary.seconds)
    return {
        "counts": counts,
        "unet_evaluations": evaluations,
        "seconds": seconds,
        "shards": tuple(summaries),
    }


def add_seconds(to: dict[str, float], more: dict[str, float]) -> None:
    for phase, value in more.items():
        to[phase] = round(to.get(phase, 0.0) + value, 3)
