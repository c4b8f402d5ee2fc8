"""List files: one picture a line, with what is asked of it alone."""

import csv
import io
import json
import os
from collections.abc import Iterator
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from sdcorrect.config import Template
from sdcorrect.errors import UsageError, printable


def _check_path(path: str) -> str:
    try:
        os.fsencode(path)
    except UnicodeEncodeError:
        raise ValueError("holds characters that no file name has") from None
    if "\0" in path or os.path.basename(path) in {"", ".", ".."}:
        raise ValueError("names no file")
    return path


def _check_output(path: str) -> str:
    if os.path.isabs(path) or ".." in Path(path).parts:
        raise ValueError("leaves the output folder; give a path relative to it")
    return os.path.normpath(path)


FilePath = Annotated[str, AfterValidator(_check_path)]


class ListRow(BaseModel):
    """One picture of a list. What it leaves open is the job's; `output` is below a variant's folder."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: FilePath
    prompt: Template | None = None
    negative_prompt: Template | None = None
    source_prompt: Template | None = None
    seed: Annotated[int, Field(ge=0, lt=2**63)] | None = None
    output: Annotated[FilePath, AfterValidator(_check_output)] | None = None


def read_list(file: Path) -> list[ListRow]:
    """The rows of a list: .txt has a path a line, .csv and .jsonl name their columns.

    Raises:
        UsageError: it cannot be read, or a line is not a row; the message names the line.
    """
    try:
        # names that are not UTF-8 keep their bytes
        text = file.read_bytes().decode("utf-8-sig", errors="surrogateescape")
    except OSError as error:
        raise UsageError(f"{printable(file)}: cannot read the list: {error.strerror}") from None
    parse = {".csv": _parse_csv, ".jsonl": _parse_jsonl}.get(file.suffix.lower(), _parse_txt)
    return [_row(file, line, content) for line, content in parse(file, text)]


def _parse_txt(_file: Path, text: str) -> Iterator[tuple[int, Any]]:
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            yield number, {"path": line.removesuffix("\r")}


def _parse_csv(file: Path, text: str) -> Iterator[tuple[int, Any]]:
    reader = csv.DictReader(io.StringIO(text, newline=""), restkey="(too many cells)", strict=True)
    try:
        for row in reader:
            yield reader.line_num, {column: cell for column, cell in row.items() if cell}
    except csv.Error as error:
        raise _bad_line(file, reader.line_num, f"not CSV: {error}") from None


def _parse_jsonl(file: Path, text: str) -> Iterator[tuple[int, Any]]:
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                yield number, json.loads(line)
            except ValueError as error:
                raise _bad_line(file, number, f"not JSON: {error}") from None


def _row(file: Path, line: int, content: Any) -> ListRow:
    try:
        return ListRow.model_validate(content)
    except ValidationError as errors:
        raise _bad_line(file, line, _explain(errors)) from None


def _bad_line(file: Path, line: int, reason: str) -> UsageError:
    return UsageError(f"{printable(file)}:{line}: {reason}")


def _explain(errors: ValidationError) -> str:
    error = errors.errors()[0]
    column = ".".join(map(str, error["loc"]))
    match error["type"]:
        case "extra_forbidden":
            near = get_close_matches(column, ListRow.model_fields, n=1)
            hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(ListRow.model_fields)}"
            return f"there is no column {column!r}; {hint}"
        case "missing":
            return f"the column {column!r} is missing"
        case "value_error":
            return f"{column}: {error['msg'].removeprefix('Value error, ')}"
        case _:
            return f"{column}: {error['msg'].replace('Input should', 'should', 1)}"
