"""The progress of a job, read from its output folder (imports no torch)."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from sdcorrect.errors import SdcorrectError, counted, listed, printable
from sdcorrect.inputs.items import Item, find_items
from sdcorrect.output.files import is_plain, locked
from sdcorrect.output.folder import OutputFolder, Standing, State
from sdcorrect.output.ledger import write_job
from sdcorrect.output.records import Evaluations, JobFile, Record, Summary
from sdcorrect.output.shards import Shard


@dataclass
class Progress:
    """Numbers of pictures by state; each picture counts once per variant."""

    done: int = 0
    failed: int = 0
    filtered: int = 0  #: left out by the job's filters
    remaining: int = 0

    def count(self, state: State) -> None:
        """Count one more; a picture whose file is missing counts as remaining."""
        name = "remaining" if state == "missing" else state
        setattr(self, name, getattr(self, name) + 1)


@dataclass
class Survey:
    """The job of an output folder, compared with its records."""

    job: JobFile
    shards: dict[str, Progress]
    totals: dict[str, Any]  #: the results in `job.json`
    done: list[Record] = field(default_factory=list)
    failures: list[Record] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)  #: as `variant/path`
    gone: list[str] = field(default_factory=list)  #: outputs of pictures that the job no longer covers
    #: variants of earlier commands that this job does not make
    earlier: dict[str, Progress] = field(default_factory=dict)

    def total(self) -> Progress:
        total = Progress()
        for progress in self.shards.values():
            for name, count in vars(progress).items():
                setattr(total, name, getattr(total, name) + count)
        return total


def survey(out: Path) -> Survey:
    """Compare the pictures that the folder's job covers with its records.

    Raises:
        UsageError: the folder was not written by `sdcorrect translate`, or the job's input is gone.
    """
    folder = OutputFolder(out)
    job_file = folder.job()
    shards = [str(Shard(index, job_file.num_shards)) for index in range(job_file.num_shards)]
    items = find_items(job_file.job)
    stand = standings(folder, items, job_file.fingerprint.variants)
    own = {variant.name for variant in job_file.job.expanded}
    found = Survey(
        job_file,
        {shard: Progress() for shard in shards},
        totals(stand, folder.summaries()),
        gone=gone_outputs(folder, items),
    )
    for item, variant, standing in stand:
        if variant not in own:
            found.earlier.setdefault(variant, Progress()).count(standing.state)
            continue
        found.shards[str(Shard.of(item.key, job_file.num_shards))].count(standing.state)
        if standing.state in {"missing", "remaining"}:
            found.missing.append(f"{variant}/{item.key}")
        elif standing.record and standing.state == "failed":
            found.failures.append(standing.record)
        elif standing.record and standing.state == "done":
            found.done.append(standing.record)
    return found


def standings(
    folder: OutputFolder, items: Iterable[Item], variants: Collection[str]
) -> list[tuple[Item, str, Standing]]:
    return [(item, variant, folder.standing(item, variant)) for item in items for variant in variants]


def gone_outputs(folder: OutputFolder, items: Iterable[Item]) -> list[str]:
    """The existing outputs, relative to `folder`, whose pictures are not among `items`."""
    keys = {item.key for item in items}
    return [
        record.output.path
        for (key, _), record in folder.records().items()
        if record.output and key not in keys and is_plain(folder.path / record.output.path)
    ]


def merge(out: Path) -> Survey:
    """Join the records of all shards into `job.json`.

    Raises:
        SdcorrectError: pictures are missing, or the folder cannot be written.
        UsageError: the folder was not written by `sdcorrect translate`, or the job's input is gone.
    """
    found = survey(out)
    if found.missing:
        unfinished = [name for name, progress in found.shards.items() if progress.remaining]
        missing = counted(len(found.missing), "picture is", "pictures are")
        raise SdcorrectError(
            f"{printable(out)}: {missing} missing ({listed(found.missing)}), "
            f"in shards {listed(unfinished)}; run these again, then merge"
        )
    content = {**dict(found.job), **found.totals, "written": datetime.now(timezone.utc)}
    with locked(job_lock(out), wait=True):
        write_job(out, JobFile.model_validate(content), out / "records" / "merge.tmp")
    return found


def job_lock(out: Path) -> Path:
    """The lock to hold while `job.json` is compared and replaced."""
    return out / "records" / "job.lock"


def totals(
    stand: Iterable[tuple[Item, str, Standing]], summaries: Collection[Summary]
) -> dict[str, Any]:
    """The results in `job.json`: counts, evaluations, seconds and summaries."""
    records = [
        standing.record
        for _, _, standing in stand
        if standing.record and standing.state not in {"missing", "remaining"}
    ]
    counts: dict[str, dict[str, int]] = {}
    for record in records:
        count = counts.setdefault(record.variant, {"done": 0, "failed": 0})
        count[record.status] = count.get(record.status, 0) + 1
    return {
        "counts": counts,
        "unet_evaluations": evaluations_of(records),
        "seconds": seconds_of(summaries),
        "shards": tuple(summaries),
    }


def evaluations_of(records: Iterable[Record]) -> dict[str, Evaluations]:
    """The U-Net evaluations by variant."""
    sums: dict[str, Evaluations] = {}
    for record in records:
        if (spent := record.unet_evaluations) is not None:
            before = sums.get(record.variant)
            total = spent + (before.total if before else 0)
            sums[record.variant] = Evaluations(per_picture=spent, total=total)
    return sums


def seconds_of(summaries: Iterable[Summary]) -> dict[str, float]:
    """The seconds of all shards together, by phase."""
    seconds: dict[str, float] = {}
    for summary in summaries:
        add_seconds(seconds, summary.seconds)
    return seconds


def add_seconds(to: dict[str, float], more: dict[str, float]) -> None:
    for phase, value in more.items():
        to[phase] = round(to.get(phase, 0.0) + value, 3)
