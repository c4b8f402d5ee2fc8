"""What is done: an image is written whole or not at all, and its record comes after."""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sdcorrect.batch.files import write_atomically, writing
from sdcorrect.batch.shards import Shard
from sdcorrect.errors import UsageError

Record = dict[str, Any]


def fingerprint(settings: Mapping[str, Any]) -> str:
    """A short name for `settings`, the same whenever they are the same."""
    canonical = json.dumps(settings, sort_keys=True)
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


class Ledger:
    """The records of one output folder: `records/<shard>.jsonl` and `job.json`."""

    def __init__(self, out: Path, shard: Shard) -> None:
        self.out = out
        self.temporary = out / "records" / f"{shard}.tmp"
        self._file = out / "records" / f"{shard}.jsonl"
        self._records: dict[tuple[str, str], Record] = {}

    def open(self, settings: Mapping[str, Any], variants: Mapping[str, Any], *, overwrite: bool) -> None:
        """Take up the folder's records for a job of these settings and variants.

        Raises:
            UsageError: the folder holds another job's pictures, and `overwrite` was not asked for.
            SdcorrectError: the folder cannot be written.
        """
        if not overwrite:
            self._refuse_other_job(settings, variants)
        with writing(self.out):
            self._file.parent.mkdir(parents=True, exist_ok=True)
            self._repair()
            for line in self._file.read_text(encoding="utf-8").splitlines():
                record = json.loads(line)
                self._records[record["input"]["path"], record["variant"]] = record
        if overwrite:
            self._records.clear()

    def _refuse_other_job(self, settings: Mapping[str, Any], variants: Mapping[str, Any]) -> None:
        before = self.job().get("fingerprint")
        if before is None:
            return
        differing = [
            f"{key} was {before['settings'].get(key)!r} and is {value!r}"
            for key, value in settings.items()
            if before["settings"].get(key) != value
        ]
        differing += [
            f"variant {name} had another recipe"
            for name, recipe in variants.items()
            if before["variants"].get(name, recipe) != recipe
        ]
        if differing:
            raise UsageError(
                f"output {self.out} holds another job's pictures: {'; '.join(differing)}. "
                "Choose another folder, or redo it with --overwrite"
            )

    def _repair(self) -> None:
        """Cut off a last line that a kill left without its end."""
        with self._file.open("a+b") as stream:
            stream.seek(0)
            content = stream.read()
            whole = content.rfind(b"\n") + 1
            if whole < len(content):
                stream.truncate(whole)

    def is_done(self, relative: str, variant: str, sha256: str, mark: str) -> bool:
        """Whether this picture, by content and settings, is recorded as done and its file stands."""
        record = self._records.get((relative, variant))
        return (
            record is not None
            and record["status"] == "done"
            and record["input"]["sha256"] == sha256
            and record["fingerprint"] == mark
            and (self.out / record["output"]["path"]).is_file()
        )

    def append(self, record: Record) -> None:
        """Add one record, on the disk before this returns."""
        line = json.dumps(record) + "\n"
        with writing(self._file), self._file.open("ab") as stream:
            stream.write(line.encode())
            stream.flush()
            os.fsync(stream.fileno())
        self._records[record["input"]["path"], record["variant"]] = record

    def totals(self) -> dict[str, Any]:
        """Pictures and U-Net evaluations by variant, over all that is recorded."""
        totals: dict[str, Any] = {"counts": {}, "unet_evaluations": {}}
        for (_, variant), record in self._records.items():
            counts = totals["counts"].setdefault(variant, {"done": 0, "failed": 0})
            counts[record["status"]] += 1
            evaluations = record.get("unet_evaluations")
            if evaluations is not None:
                spent = totals["unet_evaluations"].setdefault(variant, {"per_picture": 0, "total": 0})
                spent["per_picture"] = evaluations
                spent["total"] += evaluations
        return totals

    def job(self) -> dict[str, Any]:
        """What `job.json` says, empty where there is none."""
        try:
            content: dict[str, Any] = json.loads((self.out / "job.json").read_text(encoding="utf-8"))
        except (FileNotFoundError, NotADirectoryError):
            return {}
        except (OSError, ValueError) as error:
            raise UsageError(f"{self.out / 'job.json'}: cannot be read: {error}") from None
        return content

    def write_job(self, content: Mapping[str, Any]) -> None:
        text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
        write_atomically(
            self.out / "job.json",
            lambda stream: stream.write(text.encode()),
            temporary=self.temporary,
        )
