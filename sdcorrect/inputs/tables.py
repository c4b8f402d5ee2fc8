"""Read what spreadsheets and scripts write: text, CSV in its dialects, and JSON."""

import csv
import io
import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sdcorrect.errors import UsageError, printable
from sdcorrect.reading import decode, read_bytes

QUOTED = re.compile(r'"[^"]*"')
DELIMITER = re.compile("[,;\t]")  #: spreadsheets write `;` in locales with decimal commas


def read_text(
    file: Path, most: int | None = None, *, errors: str = "strict", failing: str = "cannot be read"
) -> str:
    """The text of a file of at most `most` bytes.

    Args:
        errors: as for `decode`.

    Raises:
        UsageError: it cannot be read (the message says `failing`), or is not text.
    """
    try:
        return decode(read_bytes(file, most), errors)
    except OSError as error:
        raise UsageError(f"{printable(file)}: {failing}: {error.strerror}") from None
    except ValueError as error:
        raise UsageError(f"{printable(file)}: {failing}: {error}") from None


def csv_rows(text: str) -> Iterator[tuple[int, list[str]]]:
    """The rows of CSV that are not empty, each with the number of its last line, from 1.

    The delimiter is the first one outside quotes in the first line.

    Raises:
        csv.Error: it is not CSV.
    """
    found = DELIMITER.search(QUOTED.sub("", text.split("\n", 1)[0]))
    delimiter = found[0] if found else ","
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    for row in reader:
        if any(row):
            yield reader.line_num, row


def read_json(text: str | bytes) -> Any:
    """The value of a JSON text without repeated keys.

    Raises:
        ValueError: it is not JSON, or an object repeats a key.
    """
    try:
        return json.loads(text, object_pairs_hook=_unique)
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error}") from None
    except RecursionError:
        raise ValueError("lists and objects are nested too deeply") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        raise ValueError(f"the key {second((key for key, _ in pairs))!r} is there twice")
    return content


def second(names: Iterator[str]) -> str | None:
    """The first of `names` that occurs more than once."""
    return next((name for name, count in Counter(names).items() if count > 1), None)
