"""Read what `sdcorrect evaluate` has written to output folders (imports no torch)."""

import math
from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from sdcorrect.errors import UsageError, counted, listed, printable
from sdcorrect.evaluate.frontier import MeasuredFolder
from sdcorrect.evaluate.results import CSV_NAME, JSON_NAME, Evaluation, Measured, Outline
from sdcorrect.output.files import read_plain
from sdcorrect.output.folder import MAX_FILE, OutputFolder
from sdcorrect.output.records import Done
from sdcorrect.report.scores import Scores, read_scores


def evaluated_folders(folders: Sequence[Path]) -> list[Path]:
    """The evaluated folders among `folders`, and in those that were not evaluated themselves.

    Raises:
        UsageError: a folder is missing, or was not evaluated and contains none that was.
    """
    found: list[Path] = []
    for folder in folders:
        inner = sorted(path.parent for path in folder.glob(f"*/{JSON_NAME}"))
        own = [folder] if (folder / JSON_NAME).exists() else inner
        if not own:
            raise UsageError(f"{printable(folder)}: {_lacking(folder)}")
        found += own
    return found


def _lacking(folder: Path) -> str:
    """Why nothing in `folder` can be drawn, and what to do."""
    if not folder.is_dir():
        return "is a file; give an output folder" if folder.exists() else "there is no such folder"
    if (folder / "job.json").exists():
        return f"was not evaluated; run sdcorrect evaluate {printable(folder)} first"
    if inner := sorted(path.parent for path in folder.glob("*/job.json")):
        command = f"sdcorrect evaluate {printable(inner[0])}"
        return f"no output folder in it was evaluated; run {command} first"
    return "no job.json in it or in its folders; give an output folder of sdcorrect translate"


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
    return MeasuredFolder(outline, rows, _not_evaluated(output, evaluation, scores))


def _not_evaluated(output: OutputFolder, evaluation: Evaluation, scores: Scores) -> list[str]:
    """Variants of the job that the evaluation lacks, and the number of pictures recorded since."""
    fingerprint = output.job().fingerprint
    lacking = fingerprint.in_order(fingerprint.variants.keys() - evaluation.variants.keys())
    later = {
        path
        for (path, variant), record in output.records().items()
        if variant in evaluation.variants
        and (path, variant) not in scores.values
        and isinstance(record, Done)
        and record.finished > scores.written
    }
    return [listed(lacking)] * bool(lacking) + [counted(len(later), "new picture")] * bool(later)


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
