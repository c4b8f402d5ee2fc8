"""What an output folder has to show: its pictures with all their variants, from its records."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sdcorrect.config import Job
from sdcorrect.errors import UsageError, listed, printable
from sdcorrect.inputs.items import find_items
from sdcorrect.output.ledger import latest_records, read_summaries
from sdcorrect.output.records import Evaluations, JobFile, Record, Summary
from sdcorrect.output.survey import job_of, totals
from sdcorrect.report.scores import Scores, read_scores

#: A record's status, or what a picture without a record, or without its file, is in.
State = Literal["done", "failed", "filtered", "missing", "remaining"]
#: What they are called, in the order of a table.
STATES: dict[State, str] = {
    "done": "done",
    "failed": "failed",
    "filtered": "left out",
    "missing": "missing",
    "remaining": "remaining",
}


@dataclass(frozen=True)
class VariantOutput:
    """One picture in one variant."""

    state: State
    record: Record | None = None
    scores: tuple[float | None, ...] = ()


@dataclass(frozen=True)
class GalleryPicture:
    """One picture of the job."""

    key: str
    source: Path | None  #: None where the job does not cover it any more, or its input is gone
    outputs: dict[str, VariantOutput]  #: by variant

    @property
    def record(self) -> Record | None:
        """That of one of its variants: of one that knows the picture's size, if any does."""
        records = [output.record for output in self.outputs.values() if output.record]
        return max(records, key=lambda record: record.size is not None, default=None)


@dataclass(frozen=True)
class Gallery:
    out: Path
    job_file: JobFile
    variants: tuple[str, ...]
    entries: tuple[GalleryPicture, ...]
    left_out: int  #: pictures after these, which a limit left out
    metrics: tuple[str, ...]
    seconds: dict[str, float]  #: by phase, over all shards
    evaluations: dict[str, Evaluations]  #: of the U-Net, by variant
    shards: tuple[Summary, ...]
    warnings: tuple[str, ...]


def read_gallery(out: Path, limit: int | None = None) -> Gallery:
    """Read what the output folder has, of all shards; of its pictures the first `limit`.

    Raises:
        UsageError: the folder is none of `sdcorrect translate`, has no records yet, or an
            `evaluation.csv` that is none.
    """
    job_file, job = job_of(out)
    records = latest_records(out)
    if not records:
        raise UsageError(f"{printable(out)}: no picture is done yet; run its job first")
    scores = read_scores(out / "evaluation.csv")
    warnings = _check(scores, records)
    sources, gone = _sources(job)
    keys = list(dict.fromkeys([*sources, *sorted(key for key, _ in records)]))
    names = [*(recipe.name for recipe in job.recipes), *sorted(variant for _, variant in records)]
    variants = tuple(dict.fromkeys(names))
    entries = tuple(
        GalleryPicture(
            key,
            sources.get(key),
            {
                variant: VariantOutput(
                    _state(out, records.get((key, variant))),
                    records.get((key, variant)),
                    scores.values.get((key, variant), ()),
                )
                for variant in variants
            },
        )
        for key in keys[:limit]
    )
    missing = [
        f"{variant}/{entry.key}"
        for entry in entries
        for variant, output in entry.outputs.items()
        if output.state == "missing"
    ]
    if missing:
        warnings.append(f"{listed(missing)}: recorded, and not on the disk any more; run the job again")
    sums = totals(records.values(), read_summaries(out))
    return Gallery(
        out=out,
        job_file=job_file,
        variants=variants,
        entries=entries,
        left_out=len(keys) - len(entries),
        metrics=scores.metrics,
        seconds=sums["seconds"],
        evaluations=sums["unet_evaluations"],
        shards=sums["shards"],
        warnings=(*gone, *warnings),
    )


def _state(out: Path, record: Record | None) -> State:
    if record is None:
        return "remaining"
    if record.output and not (out / record.output.path).is_file():
        return "missing"
    return record.status


def _sources(job: Job) -> tuple[dict[str, Path], list[str]]:
    """The job's sources by key, and what is to be told of them."""
    try:
        return {item.key: item.source for item in find_items(job)}, []
    except UsageError as error:
        return {}, [f"{error}; sources are shown where an earlier report has copied them"]


def _check(scores: Scores, records: Mapping[tuple[str, str], Record]) -> list[str]:
    """What is to be told of metrics that are of other pictures than these."""
    foreign = [f"{variant}/{key}" for key, variant in scores.values if (key, variant) not in records]
    newer = [
        f"{record.variant}/{record.input.path}"
        for key, record in records.items()
        if key in scores.values and record.finished > scores.written
    ]
    told = []
    if foreign:
        told.append(f"evaluation.csv has what is no picture here: {listed(foreign)}")
    if newer:
        told.append(f"evaluation.csv is older than {listed(newer)}; run sdcorrect evaluate again")
    return told
