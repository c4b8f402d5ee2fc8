"""The records of one shard: what is done. An image is written whole first, then its record."""

import errno
import os
from collections.abc import Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sdcorrect.errors import LONGEST, UsageError, listed, printable, shortened
from sdcorrect.output.files import is_plain, plain, write_atomically, writing
from sdcorrect.output.folder import OutputFolder
from sdcorrect.output.records import Fingerprint, JobFile, Record, Status, Summary
from sdcorrect.output.shards import Shard

#: Stands in a fingerprint for a list of strengths or seeds, which may grow.
SWEPT = "swept"
BLOCK = 1 << 20  #: bytes read at a time from the end of a file


@dataclass(frozen=True, slots=True)
class Known:
    """The part of a record that is kept in memory; short, for tens of thousands of pictures."""

    status: Status
    sha256: str | None
    companions: tuple[str, ...] | None
    fingerprint: str
    attempt: int
    output: str | None  #: relative to the output folder
    unfinished: Record | None  #: the whole record, unless it is done

    def is_of(self, sha256: str | None, companions: tuple[str, ...]) -> bool:
        """Whether the record is of this content of the picture and, if recorded, of its companions."""
        return self.sha256 == sha256 and self.companions in (None, companions)

    @classmethod
    def of(cls, record: Record) -> "Known":
        return cls(
            record.status,
            record.input.sha256,
            record.input.companions,
            record.fingerprint,
            record.attempt,
            record.output.path if record.output else None,
            None if record.status == "done" else record,
        )


class Ledger:
    """The records of one shard, in an output folder that other shards may be writing to.

    Open it only under the shard's lock. It also knows records of its pictures from other divisions of
    the job into shards.
    """

    def __init__(self, out: Path, shard: Shard) -> None:
        self.folder = OutputFolder(out)
        self.shard = shard
        self.temporary = out / "records" / f"{shard}.tmp"
        self._file = out / "records" / f"{shard}.jsonl"
        self._known: dict[tuple[str, str], Known] = {}
        self._forgotten: dict[tuple[str, str], Known] = {}

    def open(self, *, overwrite: bool) -> None:
        """Read the folder's records, or with `overwrite`, delete them: all if this is the only shard,
        else only this shard's.

        Raises:
            UsageError: records cannot be read.
            SdcorrectError: the folder cannot be written.
        """
        with writing(self.folder.path):
            self._file.parent.mkdir(parents=True, exist_ok=True)
            self.temporary.unlink(missing_ok=True)
            _cut_torn_line(self._file)
        for record in self.folder.lines(self.shard):
            known = self._known.get((record.input.path, record.variant))
            if known is None or known.attempt <= record.attempt:
                self._learn(record)
        if overwrite:
            self._forgotten, self._known = self._known, {}
            with writing(self.folder.path):
                for name in ["*-of-*"] if self.shard.count == 1 else [str(self.shard)]:
                    for file in [*self._file.parent.glob(f"{name}.json*")]:
                        file.unlink(missing_ok=True)

    def known(self, key: str, variant: str) -> Known | None:
        return self._known.get((key, variant))

    def next_attempt(self, key: str, variant: str) -> int:
        """One more than in any record that the folder has, or had before it was overwritten."""
        known = self._known.get((key, variant)) or self._forgotten.get((key, variant))
        return known.attempt + 1 if known else 1

    def gone(self, keys: Set[str]) -> list[str]:
        """Existing outputs in this folder's records whose pictures are not among `keys`."""
        known = {**self._forgotten, **self._known}.items()
        outputs = [k.output for (key, _), k in known if k.output and key not in keys]
        return [output for output in outputs if is_plain(self.folder.path / output)]

    def append(self, record: Record) -> None:
        """Add one record; it is on disk when this returns, or not at all.

        Raises:
            SdcorrectError: the disk is full, or the folder cannot be written.
        """
        line = record.as_json()
        with writing(self._file), open(self._file, "ab", buffering=0, opener=plain) as stream:
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
        self._known[record.input.path, record.variant] = Known.of(record)

    def write_summary(self, summary: Summary) -> None:
        """Write this shard's summary. Raises SdcorrectError if the folder cannot be written."""
        file = self._file.with_suffix(".json")
        write_atomically(file, summary.as_json(indent=2), temporary=self.temporary)

    def summary(self) -> Summary | None:
        """The summary of this shard's earlier runs."""
        return next((s for s in self.folder.summaries() if s.shard == str(self.shard)), None)


def _cut_torn_line(file: Path) -> None:
    """Cut off a last line that a kill left incomplete."""
    with open(file, "a+b", opener=plain) as stream:
        end = whole = stream.seek(0, os.SEEK_END)
        while whole:
            begin = max(0, whole - BLOCK)
            stream.seek(begin)
            newline = stream.read(whole - begin).rfind(b"\n")
            whole = begin if newline < 0 else begin + newline + 1
            if newline >= 0:
                break
        if whole < end:
            stream.truncate(whole)


def write_job(out: Path, content: JobFile, temporary: Path) -> None:
    """Write `job.json`. Raises SdcorrectError if the folder cannot be written."""
    write_atomically(out / "job.json", content.as_json(indent=2), temporary=temporary)


def _shown(value: object) -> str:
    return shortened(printable(repr(value)), LONGEST)


def _difference(key: str, before: Any, now: Any) -> str:
    if key in ("strength", "seed") and before == SWEPT:
        return (
            f"the folder sweeps over {key}s, and this job has one, {_shown(now)}; "
            f"to add it to the folder, give a list: --{key} {now}, with the comma, or {key}: [{now}]"
        )
    if key in ("strength", "seed") and now == SWEPT:
        return f"the folder has one {key}, {_shown(before)}, and this job sweeps over {key}s"
    return f"{printable(key)} was {_shown(before)} and is {_shown(now)}"


def refuse_other_job(out: Path, before: Fingerprint, now: Fingerprint) -> None:
    """Raises UsageError, naming the differences, if the folder has pictures with other settings."""
    differing = [
        _difference(key, before.settings.get(key), now.settings.get(key))
        for key in dict.fromkeys([*now.settings, *before.settings])
        if before.settings.get(key) != now.settings.get(key)
    ]
    for name, recipe in now.variants.items():
        earlier = before.variants.get(name, recipe)
        keys = [key for key in {**recipe, **earlier} if earlier.get(key) != recipe.get(key)]
        if keys:
            differing.append(f"variant {name} had another recipe ({listed(keys)})")
    if differing:
        raise UsageError(
            f"output {printable(out)} contains another job's pictures: {'; '.join(differing)}. "
            "Choose another folder, or replace them with --overwrite"
        )
