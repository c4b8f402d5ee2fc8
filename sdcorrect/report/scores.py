"""Read the metrics that `sdcorrect evaluate` has written beside the pictures."""

import csv
import io
import math
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path

from sdcorrect.errors import UsageError, printable
from sdcorrect.output.files import read_plain

#: The columns that identify a row; all others are metrics.
KEYS = ["variant", "path"]
MAX_FILE = 1 << 28  #: bytes: some millions of pictures


@dataclass(frozen=True)
class Scores:
    metrics: tuple[str, ...] = ()
    #: by picture and variant, a value for each metric; None if it has no value
    values: dict[tuple[str, str], tuple[float | None, ...]] = field(default_factory=dict)
    written: datetime = datetime.max.replace(tzinfo=timezone.utc)


def read_scores(file: Path) -> Scores:
    """The metrics in an `evaluation.csv`; empty if the file does not exist.

    Raises:
        UsageError: it cannot be read, or is not a file of `sdcorrect evaluate`.
    """
    try:
        # names that are not UTF-8 keep their bytes, as in the records
        text = read_plain(file, MAX_FILE).decode(errors="surrogateescape")
        written = datetime.fromtimestamp(file.lstat().st_mtime, timezone.utc)
    except FileNotFoundError:
        return Scores()
    except OSError as error:
        raise UsageError(f"{printable(file)}: cannot be read: {error.strerror}") from None
    except (ValueError, OverflowError):
        raise _broken(file, "its modification time is not a valid date") from None
    if not text.endswith("\n"):
        raise _broken(file, "its last line is incomplete")
    rows = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        header = next(rows, [])
        if header[:2] != KEYS:
            raise _broken(file, f"its first columns should be variant, path, not {str(header[:2]):.80}")
        values = {}
        for row in rows:
            if len(row) != len(header):
                raise _broken(file, f"line {rows.line_num} has {len(row)} of {len(header)} columns")
            variant, path, *cells = row
            values[path, variant] = tuple(map(_number, cells))
    except (csv.Error, ValueError) as error:
        raise _broken(file, f"line {rows.line_num}: {printable(error):.200}") from None
    return Scores(tuple(header[2:]), values, written)


def _number(cell: str) -> float | None:
    value = float(cell or "nan")
    return value if math.isfinite(value) else None


def _broken(file: Path, problem: str) -> UsageError:
    return UsageError(f"{printable(file)}: {problem}; run sdcorrect evaluate again, or remove it")
