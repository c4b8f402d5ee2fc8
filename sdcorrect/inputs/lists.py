"""Read lists of pictures: one picture per line, with settings for it alone."""

import csv
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from sdcorrect.config.templates import PictureTemplate
from sdcorrect.errors import UsageError, did_you_mean, of_pydantic, printable
from sdcorrect.inputs.tables import csv_rows, read_json, read_text, second
from sdcorrect.paths import VARIABLE, expand


def _check_path(path: str) -> str:
    try:
        os.fsencode(path)
    except UnicodeEncodeError:
        raise ValueError("contains characters that file names cannot have") from None
    if "\0" in path or os.path.basename(path) in {"", ".", ".."}:
        raise ValueError("does not name a file")
    return path


def _check_output(path: str) -> str:
    if os.path.isabs(path) or ".." in Path(path).parts:
        raise ValueError("leaves the output folder; give a path relative to it")
    if path.startswith("~") or VARIABLE.match(path):
        raise ValueError("is relative to the output folder, so ~ and $ are not expanded; remove them")
    return os.path.normpath(path)


FilePath = Annotated[str, AfterValidator(_check_path)]


class ListRow(BaseModel):
    """One picture of a list. Defaults are the job's; `output` is relative to a variant's folder."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: FilePath
    prompt: PictureTemplate | None = None
    negative_prompt: PictureTemplate | None = None
    source_prompt: PictureTemplate | None = None
    mask_words: PictureTemplate | None = None
    seed: Annotated[int, Field(ge=0, lt=2**63)] | None = None
    output: Annotated[FilePath, AfterValidator(_check_output)] | None = None


def read_list(file: Path) -> list[ListRow]:
    """The rows of a list: .txt has one path per line, .csv and .jsonl have named columns.

    Raises:
        UsageError: it cannot be read, or a line is not a valid row; the message names the line.
    """
    # names that are not UTF-8 keep their bytes
    text = read_text(file, errors="surrogateescape", failing="cannot read the list")
    suffix = file.suffix.lower()
    parse = {".csv": _parse_csv, ".jsonl": _parse_jsonl}.get(suffix, _parse_txt)
    # cells of CSV are text, even numbers; values of JSON have types
    strict = suffix == ".jsonl"
    rows = parse(file, text)
    return [_expanded(file, row_of(f"{printable(file)}:{n}", row, strict)) for n, row in rows]


def _parse_txt(_file: Path, text: str) -> Iterator[tuple[int, Any]]:
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            yield number, {"path": line.removesuffix("\r")}


def _parse_csv(file: Path, text: str) -> Iterator[tuple[int, Any]]:
    columns: list[str] = []
    line = 1
    try:
        for line, row in csv_rows(text):
            if not columns:
                columns = [name.strip() for name in row]
                if twice := second(name for name in columns if name):
                    raise _bad_line(file, line, f"the column {twice!r} is there twice")
                continue
            cells = dict(zip(columns, row, strict=False))
            cells["(too many cells)"] = "".join(row[len(columns) :])
            yield line, {column: cell for column, cell in cells.items() if cell}
    except csv.Error as error:
        raise _bad_line(file, line, f"not CSV: {error}") from None


def _parse_jsonl(file: Path, text: str) -> Iterator[tuple[int, Any]]:
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                yield number, read_json(line)
            except ValueError as error:
                raise _bad_line(file, number, str(error)) from None


def row_of(place: str, content: Any, strict: bool = True) -> ListRow:
    """Validate `content` as a row.

    Raises:
        UsageError: it is not a row; the message begins with its `place`.
    """
    try:
        return ListRow.model_validate(content, strict=strict)
    except ValidationError as errors:
        raise UsageError(f"{place}: {_explain(errors)}") from None


def _expanded(file: Path, row: ListRow) -> ListRow:
    try:
        return row.model_copy(update={"path": expand(row.path, file.parent)})
    except ValueError:
        return row  # only this picture fails, not the whole list


def _bad_line(file: Path, line: int, reason: str) -> UsageError:
    return UsageError(f"{printable(file)}:{line}: {reason}")


def _explain(errors: ValidationError) -> str:
    error = errors.errors()[0]
    column = ".".join(map(str, error["loc"]))
    match error["type"]:
        case "extra_forbidden":
            return f"unknown column {column!r}; {did_you_mean(column, ListRow.model_fields)}"
        case "missing":
            return f"the column {column!r} is missing"
        case _:
            return f"{column}: {of_pydantic(error['msg'])}"
