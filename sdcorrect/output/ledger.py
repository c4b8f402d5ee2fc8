"""What is done: an image is written whole or not at all, and its record comes after."""

import errno
import json
import logging
import os
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from sdcorrect.errors import UsageError, printable
from sdcorrect.output.files import write_atomically, writing
from sdcorrect.output.records import Fingerprint, JobFile, Record, Summary
from sdcorrect.output.shards import Shard

logger = logging.getLogger(__name__)


class Known(NamedTuple):
    """What a record says of one picture in one variant, as briefly as tens of thousands ask for."""

    sha256: str | None
    fingerprint: str
    finished: datetime
    unfinished: Record | None  #: the whole record, unless it is done


class Ledger:
    """The records of one shard, in an output folder that other shards may be writing to.

    Opened under the shard's lock. What other shards, or another division of the job, have recorded
    is known too.
    """

    def __init__(self, out: Path, shard: Shard) -> None:
        self.out = out
        self.shard = shard
        self.temporary = out / "records" / f"{shard}.tmp"
        self._file = out / "records" / f"{shard}.jsonl"
        self._known: dict[tuple[str, str], Known] = {}

    def open(self, *, overwrite: bool) -> None:
        """Take up the folder's records, or with `overwrite` begin anew: all of them where this is the
        only shard, else this shard's.

        Raises:
            SdcorrectError: the folder cannot be written.
        """
        with writing(self.out):
            self._file.parent.mkdir(parents=True, exist_ok=True)
            self.temporary.unlink(missing_ok=True)
            if overwrite:
                for name in ["*-of-*"] if self.shard.count == 1 else [str(self.shard)]:
                    for file in [*self._file.parent.glob(f"{name}.json*")]:
                        file.unlink(missing_ok=True)
                return
            _cut_torn_line(self._file)
        for record in read_records(self.out):
            self._learn(record)

    def known(self, key: str, variant: str) -> Known | None:
        return self._known.get((key, variant))

    def append(self, record: Record) -> None:
        """Add one record, on the disk before this returns, or not at all.

        Raises:
            SdcorrectError: the disk is full, or the folder cannot be written.
        """
        line = record.as_json()
        with writing(self._file), self._file.open("ab", buffering=0) as stream:
            whole = stream.seek(0, os.SEEK_END)
            try:
                if stream.write(line) < len(line):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                os.fsync(stream.fileno())
            except OSError:
                stream.truncate(whole)
                raise
        self._learn(record)

    def _learn(self, record: Record) -> None:
        key = (record.input.path, record.variant)
        before = self._known.get(key)
        if before is None or before.finished <= record.finished:
            self._known[key] = Known(
                record.input.sha256,
                record.fingerprint,
                record.finished,
                None if record.status == "done" else record,
            )

    def write_summary(self, summary: Summary) -> None:
        """Raises SdcorrectError where the folder cannot be written."""
        write_atomically(
            self._file.with_suffix(".json"),
            lambda stream: stream.write(summary.as_json(indent=2)),
            temporary=self.temporary,
        )

    def summary(self) -> Summary | None:
        """That of this shard's earlier runs."""
        return next((s for s in read_summaries(self.out) if s.shard == str(self.shard)), None)


def _cut_torn_line(file: Path) -> None:
    """Cut off a last line that a kill left without its end."""
    with file.open("a+b") as stream:
        stream.seek(0)
        content = stream.read()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            stream.truncate(whole)


def read_records(out: Path) -> Iterator[Record]:
    """All records of an output folder, of every shard.

    A last line without its end is one that is being written, or that a kill has torn: it is no record.
    """
    for file in sorted((out / "records").glob("*.jsonl")):
        with file.open("rb") as stream:
            for number, line in enumerate(stream, 1):
                if not line.endswith(b"\n"):
                    break
                try:
                    yield Record.model_validate(json.loads(line))
                except ValueError:
                    logger.warning(
                        "%s:%d: not a record: what it was of is done again", printable(file), number
                    )


def latest_records(out: Path) -> dict[tuple[str, str], Record]:
    """By picture and variant, the record that finished last."""
    latest: dict[tuple[str, str], Record] = {}
    for record in read_records(out):
        key = (record.input.path, record.variant)
        if key not in latest or latest[key].finished <= record.finished:
            latest[key] = record
    return latest


def read_summaries(out: Path) -> list[Summary]:
    files = sorted(f for f in (out / "records").glob("*.json") if Shard.parse(f.stem))
    return [Summary.model_validate_json(file.read_bytes()) for file in files]


def read_job(out: Path) -> JobFile | None:
    """What `job.json` says, None where there is none.

    Raises:
        UsageError: it cannot be read, or is none of this version's.
    """
    file = out / "job.json"
    try:
        return JobFile.model_validate(json.loads(file.read_bytes()))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(f"{printable(file)}: cannot be read: {reason}; choose another folder") from None


def write_job(out: Path, content: JobFile, temporary: Path) -> None:
    """Raises SdcorrectError where the folder cannot be written."""
    write_atomically(
        out / "job.json",
        lambda stream: stream.write(content.as_json(indent=2)),
        temporary=temporary,
    )


def refuse_other_job(out: Path, before: Fingerprint, now: Fingerprint) -> None:
    """Raises UsageError, naming what differs, where the folder has pictures of other settings."""
    differing = [
        f"{key} was {before.settings.get(key)!r} and is {value!r}"
        for key, value in now.settings.items()
        if before.settings.get(key) != value
    ]
    differing += [
        f"variant {name} had another recipe"
        for name, recipe in now.variants.items()
        if before.variants.get(name, recipe) != recipe
    ]
    if differing:
        raise UsageError(
            f"output {printable(out)} holds another job's pictures: {'; '.join(differing)}. "
            "Choose another folder, or redo it with --overwrite"
        )
