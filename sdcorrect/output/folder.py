"""Read an output folder: its job, its records, and which are still valid (imports no torch)."""

import errno
import json
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Protocol

from pydantic import ValidationError

from sdcorrect.errors import PictureError, SdcorrectError, UsageError, of_pydantic, one_line, printable
from sdcorrect.inputs.items import Item
from sdcorrect.output.files import is_plain, plain, read_plain, refuse_link
from sdcorrect.output.records import RECORD, Done, Fingerprint, JobFile, Record, Status, Summary
from sdcorrect.output.shards import ALL, Shard

#: Limits in bytes for a job or summary, and for a record of a picture.
MAX_FILE, MAX_LINE = 1 << 26, 1 << 24

#: Errors of the operating system or `read_plain` for files that are not ours.
OF_THE_FOLDER = {
    *(errno.EINVAL, errno.ELOOP, errno.EFBIG, errno.ENOTDIR, errno.EISDIR, errno.EACCES, errno.EPERM),
    errno.ENXIO,
}

logger = logging.getLogger(__name__)

#: A record's status if the record is valid. Otherwise `missing`: the file was written but is gone; or
#: `remaining`: there is no record for the job's current settings.
State = Literal["done", "failed", "filtered", "missing", "remaining"]


class Recorded(Protocol):
    """The parts of a record that decide whether it is valid."""

    @property
    def status(self) -> Status: ...
    @property
    def fingerprint(self) -> str: ...


def state_of(record: Recorded | None, mark: str, file: Path) -> State:
    """The state of one picture in one variant; this is the only definition of `done`.

    Args:
        record: its latest record, if any.
        mark: the fingerprint of a record with the job's current settings.
        file: the path of its output.
    """
    if record is None or record.fingerprint != mark:
        return "remaining"
    return "missing" if record.status == "done" and not is_plain(file) else record.status


@dataclass(frozen=True, slots=True)
class Standing:
    """The state of one picture in one variant, and its latest record, valid or not."""

    state: State
    record: Record | None = None


class OutputFolder:
    """Reads what `sdcorrect translate` has written to `path`, and nothing outside it.

    Records are valid if they match `fingerprint`, by default that of its `job.json`.
    """

    def __init__(self, path: Path, fingerprint: Fingerprint | None = None) -> None:
        self.path = path
        self._given = fingerprint

    def job(self) -> JobFile:
        """The content of `job.json`, with the current path of the output folder.

        Raises:
            UsageError: the folder was not written by `sdcorrect translate`.
        """
        found = self.find_job()
        if found is None:
            raise UsageError(
                f"{printable(self.path)}: no job.json; give an output folder of sdcorrect translate"
            )
        output = found.job.output.model_copy(update={"path": self.path})
        return found.model_copy(update={"job": found.job.model_copy(update={"output": output})})

    def find_job(self) -> JobFile | None:
        """The content of `job.json`; None if there is none.

        Raises:
            UsageError: it cannot be read, or this version does not know its format.
        """
        file = self.path / "job.json"
        try:
            return JobFile.model_validate(json.loads(read_plain(file, MAX_FILE)))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, ValueError, RecursionError) as error:
            raise _unreadable(file, error) from None

    def records(self) -> dict[tuple[str, str], Record]:
        """The latest record of each picture and variant."""
        return self._records

    @cached_property
    def _records(self) -> dict[tuple[str, str], Record]:
        latest: dict[tuple[str, str], Record] = {}
        for record in self.lines():
            key = (record.input.path, record.variant)
            if key not in latest or latest[key].attempt <= record.attempt:
                latest[key] = record
        return latest

    def lines(self, shard: Shard = ALL) -> Iterator[Record]:
        """All records of the pictures of `shard`, in the order of files and lines.

        Files of other divisions into shards are read only if they may contain such pictures.

        A last line without a newline is still being written, or was torn by a kill; it is skipped.

        Raises:
            UsageError: a file of records cannot be read.
        """
        for file in self._files("*.jsonl"):
            written_by = Shard.parse(file.stem)
            if written_by and not shard.meets(written_by):
                continue
            damaged = []
            try:
                with open(file, "rb", opener=plain) as stream:
                    for number, line in enumerate(iter(lambda: stream.readline(MAX_LINE), b""), 1):
                        if len(line) == MAX_LINE:
                            raise OSError(errno.EFBIG, f"line {number} has over {MAX_LINE:,} bytes")
                        if not line.endswith(b"\n"):
                            break
                        try:
                            content = json.loads(line)
                            if shard == written_by or shard.has(_key_of(content)):
                                yield RECORD.validate_python(content)
                        except (ValueError, RecursionError):
                            damaged.append(number)
            except OSError as error:
                raise _unreadable(file, error) from None
            if damaged:
                more = f" (and {len(damaged) - 1} more lines)" if len(damaged) > 1 else ""
                logger.warning(
                    "%s:%d: not a valid record%s; its picture is translated again",
                    printable(file),
                    damaged[0],
                    more,
                )

    def summaries(self) -> list[Summary]:
        """The summaries of all shards that have ended.

        Raises:
            UsageError: a summary cannot be read.
        """
        return [_read_summary(file) for file in self._files("*.json") if Shard.parse(file.stem)]

    def standing(self, item: Item, variant: str) -> Standing:
        """The state of `item` in `variant`.

        Raises:
            UsageError: the folder was not written by `sdcorrect translate`.
        """
        record = self.records().get((item.key, variant))
        if variant not in self._fingerprint.variants:
            return Standing("remaining", record)
        mark = self._fingerprint.mark(item, variant)
        return Standing(state_of(record, mark, self.path / variant / item.output), record)

    @cached_property
    def _fingerprint(self) -> Fingerprint:
        return self._given or self.job().fingerprint

    def picture(self, record: Done) -> Path:
        """The file of a picture that is done.

        Raises:
            PictureError: it is missing, or is reached through a link.
        """
        file = self.path / record.output.path
        if not is_plain(file):
            raise PictureError("is gone")
        if not self.holds(record.output.path):
            raise PictureError("is outside the output folder, through a link")
        return file

    def holds(self, path: str) -> bool:
        """Whether `path`, relative to this folder, is reached without links."""
        return os.path.realpath(self.path / path) == os.path.join(os.path.realpath(self.path), path)

    def _files(self, pattern: str) -> list[Path]:
        folder = self.path / "records"
        refuse_link(folder)
        try:
            return [folder / name for name in sorted(os.listdir(folder)) if fnmatch(name, pattern)]
        except FileNotFoundError:
            return []
        except OSError as error:
            raise _unreadable(folder, error) from None


def _key_of(record: Any) -> str:
    """The key of a record's picture. Raises ValueError if `record` is not a record."""
    try:
        return str(record["input"]["path"])
    except (LookupError, TypeError):
        raise ValueError("not a record") from None


def _read_summary(file: Path) -> Summary:
    try:
        return Summary.model_validate(json.loads(read_plain(file, MAX_FILE)))
    except (OSError, ValueError, RecursionError) as error:
        raise _unreadable(file, error) from None


def _unreadable(file: Path, error: Exception) -> SdcorrectError:
    """A UsageError if the folder is at fault, not the disk."""
    if isinstance(error, OSError) and error.errno not in OF_THE_FOLDER:
        return SdcorrectError(f"{printable(file)}: cannot be read: {error.strerror}")
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        reason = ": ".join(filter(None, (".".join(map(str, first["loc"])), of_pydantic(first["msg"]))))
    else:
        reason = getattr(error, "strerror", None) or one_line(error)
    return UsageError(f"{printable(file)}: cannot be read: {printable(reason)}; choose another folder")
