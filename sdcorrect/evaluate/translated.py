"""Find the translated pictures of an output folder by its records (imports no torch)."""

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from sdcorrect.config import Job
from sdcorrect.errors import PictureError, UsageError, counted, listed, printable
from sdcorrect.inputs.items import Item, find_items
from sdcorrect.inputs.names import SUFFIXES
from sdcorrect.output.folder import OutputFolder
from sdcorrect.output.records import Done, JobFile, Record
from sdcorrect.output.survey import Progress


@dataclass(frozen=True, slots=True)
class TranslatedPicture:
    """One picture and its outputs."""

    item: Item
    sha256: str | None  #: of the source, when it was translated
    size: tuple[int, int]  #: width and height of the outputs, px
    prompt: str
    outputs: Mapping[str, Path]  #: by variant
    seconds: Mapping[str, float]  #: by variant, as recorded
    unet_evaluations: Mapping[str, int]  #: by variant


@dataclass
class Translated:
    """The pictures of an output folder that are done, and the number of others."""

    job_file: JobFile
    job: Job
    progress: dict[str, Progress]  #: by variant
    entries: list[TranslatedPicture] = field(default_factory=list)
    failures: list[Record] = field(default_factory=list)
    gone: list[str] = field(default_factory=list)  #: recorded, but no longer among the inputs


def find_translated(out: Path) -> Translated:
    """Read the records of `out` and find their files.

    Raises:
        UsageError: the folder was not written by `sdcorrect translate`, its input is gone, it has no
            records, outputs without records, or records without outputs, or nothing is done.
    """
    folder = OutputFolder(out)
    job_file, records = folder.job(), folder.records()
    if not records:
        raise UsageError(
            f"{printable(out)}: has no records (records/*.jsonl), "
            "which say how each picture was made; run sdcorrect translate into it again"
        )
    variants = job_file.fingerprint.in_order(job_file.fingerprint.variants)
    _refuse_unrecorded(out, variants, records.values())
    found = Translated(job_file, job_file.job, {variant: Progress() for variant in variants})
    items = {item.key: item for item in find_items(job_file.job)}
    found.gone = sorted({key for key, _ in records} - items.keys())
    missing: list[str] = []
    for item in items.values():
        done: dict[str, Done] = {}
        for variant, progress in found.progress.items():
            standing = folder.standing(item, variant)
            progress.count(standing.state)
            if isinstance(standing.record, Done) and standing.state == "done":
                done[variant] = standing.record
            elif isinstance(standing.record, Done) and standing.state == "missing":
                missing.append(standing.record.output.path)
            elif standing.record and standing.state == "failed":
                found.failures.append(standing.record)
        if done:
            found.entries.append(_entry(folder, item, done))
    if missing:
        raise UsageError(
            f"{printable(out)}: {counted(len(missing), 'output')} in the records {in_brackets(missing)} "
            "missing; run sdcorrect translate again"
        )
    if not found.entries:
        totals = [f"{p.failed} failed, {p.remaining} to do" for p in found.progress.values()]
        raise UsageError(f"{printable(out)}: no picture is done ({totals[0]}); nothing to evaluate")
    return found


def _entry(folder: OutputFolder, item: Item, done: Mapping[str, Done]) -> TranslatedPicture:
    first = next(iter(done.values()))
    try:
        outputs = {variant: folder.picture(record) for variant, record in done.items()}
    except PictureError as error:
        raise UsageError(
            f"output of {printable(item.key)} in {printable(folder.path)}: {error}"
        ) from None
    return TranslatedPicture(
        item,
        first.input.sha256,
        first.size,
        first.prompt,
        outputs,
        {variant: record.seconds for variant, record in done.items()},
        {variant: record.unet_evaluations for variant, record in done.items()},
    )


def _refuse_unrecorded(out: Path, variants: Iterable[str], records: Iterable[Record]) -> None:
    recorded = {record.output.path for record in records if record.output}
    unrecorded = [
        f"{variant}/{path}"
        for variant in variants
        for path in _files_below(out / variant)
        if Path(path).suffix.lower() in SUFFIXES and f"{variant}/{path}" not in recorded
    ]
    if unrecorded:
        raise UsageError(
            f"{printable(out)}: {counted(len(unrecorded), 'output')} in it {in_brackets(unrecorded)} "
            "without a record; remove what sdcorrect translate did not make, or run it again"
        )


def _files_below(folder: Path) -> Iterator[str]:
    """The relative paths of the files in `folder`, without hidden ones and without following links."""
    if folder.is_symlink():
        return
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in files:
            if not name.startswith("."):
                yield os.path.relpath(os.path.join(place, name), folder)


def in_brackets(names: Iterable[str]) -> str:
    """The first few of `names` in brackets, followed by "is" or "are"."""
    every = sorted(names)
    return f"({listed(every)}) {'are' if len(every) > 1 else 'is'}"
