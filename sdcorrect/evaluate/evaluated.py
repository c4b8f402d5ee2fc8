"""Read what `sdcorrect evaluate` has written to output folders (imports no torch)."""

import math
from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from sdcorrect.errors import UsageError, printable
from sdcorrect.evaluate.frontier import MeasuredFolder
from sdcorrect.evaluate.results import CSV_NAME, JSON_NAME, Evaluation, Measured, Outline
from sdcorrect.output.files import read_plain
from sdcorrect.output.folder import MAX_FILE, OutputFolder
from sdcorrect.report.scores import Scores, read_scores


def evaluated_folders(folders: Sequence[Path]) -> list[Path]:
    """The evaluated folders among `folders`, and in those that were not evaluated themselves.

    Raises:
        UsageError: a folder was not evaluated, and contains none that was.
    """
    found: list[Path] = []
    for folder in folders:
        inner = sorted(path.parent for path in folder.glob(f"*/{JSON_NAME}"))
        own = [folder] if (folder / JSON_NAME).exists() else inner
        if not own:
            raise UsageError(
                f"{printable(folder)}: was not evaluated, and contains no folder that was; "
                f"run sdcorrect evaluate {printable(folder)} first"
            )
        found += own
    return found


def read_evaluated(folder: Path) -> MeasuredFolder:
    """Read the measurements of the pictures in `folder`.

    Raises:
        UsageError: they cannot be read, or are older than some pictures.
    """
    output, file = OutputFolder(folder), folder / JSON_NAME
    try:
        evaluation = Evaluation.model_validate_json(read_plain(file, MAX_FILE))
    except OSError as error:
        raise UsageError(f"{printable(file)}: cannot be read: {error.strerror}") from None
    except ValidationError:
        raise _stale(file, "was not written by this version of sdcorrect") from None
    scores = read_scores(folder / CSV_NAME)
    if scores.metrics != tuple(evaluation.metrics):
        raise _stale(folder / CSV_NAME, f"has other columns than {JSON_NAME}")
    _check_fresh(folder, output, scores)
    outline = Outline(
        folder, output.job(), evaluation.base, tuple(evaluation.variants), evaluation.metrics
    )
    rows = [
        Measured(variant, path, dict(zip(scores.metrics, map(_or_nan, values), strict=True)))
        for (path, variant), values in scores.values.items()
    ]
    return MeasuredFolder(outline, rows)


def _check_fresh(folder: Path, output: OutputFolder, scores: Scores) -> None:
    records = output.records()
    for key in scores.values:
        record = records.get(key)
        if record is None or record.finished > scores.written:
            raise _stale(folder / CSV_NAME, f"is older than the output of {printable(key[0])}")


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else value


def _stale(file: Path, problem: str) -> UsageError:
    return UsageError(f"{printable(file)}: {problem}; run sdcorrect evaluate again")
