"""The pictures of an output folder with all their variants, from its records."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from sdcorrect.config import Job
from sdcorrect.errors import UsageError, listed, printable
from sdcorrect.inputs.items import Item, find_items
from sdcorrect.output.folder import OutputFolder, Standing, State, state_of
from sdcorrect.output.records import Done, Evaluations, Failed, JobFile, Record, Summary
from sdcorrect.output.survey import evaluations_of, seconds_of
from sdcorrect.report.scores import Scores, read_scores

#: The states' names, in the order of a table.
STATES: dict[State, str] = {
    "done": "done",
    "failed": "failed",
    "filtered": "left out",
    "missing": "missing",
    "remaining": "remaining",
}
#: The most pictures times variants that a browser can handle.
MAX_SIDES = 2_000_000


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
    source: Path | None  #: None if the job no longer covers it, or its input is gone
    outputs: dict[str, VariantOutput]  #: by variant

    @property
    def record(self) -> Record | None:
        """The record of one variant, preferably one with the picture's size."""
        records = [output.record for output in self.outputs.values() if output.record]
        return max(records, key=lambda record: record.size is not None, default=None)

    @property
    def seeds(self) -> tuple[int, ...]:
        """Those of its variants: one, but in a sweep over seeds."""
        records = [output.record for output in self.outputs.values() if output.record]
        return tuple(dict.fromkeys(r.seed for r in records if r.seed is not None))

    @property
    def sized(self) -> Done | Failed | None:
        """That record, if it has the picture's size."""
        return self.record if isinstance(self.record, Done | Failed) else None


@dataclass(frozen=True)
class Gallery:
    out: Path
    job_file: JobFile
    variants: tuple[str, ...]
    entries: tuple[GalleryPicture, ...]
    left_out: int  #: number of further pictures beyond the limit
    metrics: tuple[str, ...]
    seconds: dict[str, float]  #: by phase, over all shards
    evaluations: dict[str, Evaluations]  #: U-Net evaluations, by variant
    shards: tuple[Summary, ...]
    warnings: tuple[str, ...]

    @property
    def labels(self) -> tuple[str, ...]:
        """What the variants are called where there is little room."""
        return tuple(self.job_file.fingerprint.of_sweep(variant).label for variant in self.variants)


def read_gallery(out: Path, limit: int | None = None) -> Gallery:
    """Read the output folder, of all shards; only the first `limit` pictures.

    Raises:
        UsageError: the folder was not written by `sdcorrect translate`, has no records yet, or has an
            invalid `evaluation.csv`.
    """
    folder = OutputFolder(out)
    job_file, records = folder.job(), folder.records()
    if not records:
        raise UsageError(f"{printable(out)}: no picture is done yet; run its job first")
    scores = read_scores(out / "evaluation.csv")
    items, gone = _items(job_file.job)
    keys = list(dict.fromkeys([*items, *sorted(key for key, _ in records)]))
    names = [*(v.name for v in job_file.job.expanded), *sorted(variant for _, variant in records)]
    variants = tuple(job_file.fingerprint.in_order(names))
    if len(keys[:limit]) * len(variants) > MAX_SIDES:
        raise UsageError(
            f"{printable(out)}: {len(keys)} pictures in {len(variants)} variants are too many for a "
            "page; give --limit"
        )
    entries = tuple(_entry(folder, key, items.get(key), variants, scores) for key in keys[:limit])
    warnings = [*gone, *_check(scores, records), *_missing(entries)]
    summaries = folder.summaries()
    return Gallery(
        out=out,
        job_file=job_file,
        variants=variants,
        entries=entries,
        left_out=len(keys) - len(entries),
        metrics=scores.metrics,
        seconds=seconds_of(summaries),
        evaluations=evaluations_of(records.values()),
        shards=tuple(summaries),
        warnings=tuple(warnings),
    )


def _entry(
    folder: OutputFolder, key: str, item: Item | None, variants: Iterable[str], scores: Scores
) -> GalleryPicture:
    outputs = {}
    for variant in variants:
        found = folder.standing(item, variant) if item else _by_itself(folder, key, variant)
        record = None if found.state == "remaining" else found.record
        outputs[variant] = VariantOutput(found.state, record, scores.values.get((key, variant), ()))
    return GalleryPicture(key, item.source if item else None, outputs)


def _by_itself(folder: OutputFolder, key: str, variant: str) -> Standing:
    """The state, by its record, of a picture that the job no longer covers."""
    record = folder.records().get((key, variant))
    if record is None:
        return Standing("remaining")
    file = folder.path / record.output.path if record.output else folder.path
    return Standing(state_of(record, record.fingerprint, file), record)


def _missing(entries: Iterable[GalleryPicture]) -> list[str]:
    missing = [
        f"{variant}/{entry.key}"
        for entry in entries
        for variant, output in entry.outputs.items()
        if output.state == "missing"
    ]
    if not missing:
        return []
    return [f"{listed(missing)}: recorded, but the file is gone; run the job again"]


def _items(job: Job) -> tuple[dict[str, Item], list[str]]:
    """The job's pictures by key, and warnings."""
    try:
        return {item.key: item for item in find_items(job)}, []
    except UsageError as error:
        return {}, [f"{error}; only sources that an earlier report has copied are shown"]


def _check(scores: Scores, records: Mapping[tuple[str, str], Record]) -> list[str]:
    """Warnings about metrics that do not belong to these pictures."""
    foreign = [f"{variant}/{key}" for key, variant in scores.values if (key, variant) not in records]
    newer = [
        f"{record.variant}/{record.input.path}"
        for key, record in records.items()
        if key in scores.values and record.finished > scores.written
    ]
    told = []
    if foreign:
        told.append(f"evaluation.csv has rows without a picture here: {listed(foreign)}")
    if newer:
        told.append(f"evaluation.csv is older than {listed(newer)}; run sdcorrect evaluate again")
    return told
