"""What `sdcorrect evaluate` writes: a table of every picture, and what it comes to."""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal

from pydantic import Field

from sdcorrect.evaluate.profiles import Against, Region
from sdcorrect.output.files import write_atomically
from sdcorrect.output.records import JobFile, OfSweep, Written

CSV_NAME, JSON_NAME = "evaluation.csv", "evaluation.json"


@dataclass(frozen=True)
class Measured:
    """What was measured of one picture in one variant; NaN where a region is empty."""

    variant: str
    path: str
    values: dict[str, float]


class MetricInfo(Written):
    definition: str
    better: Literal["higher", "lower"]
    against: Against
    region: Region


@dataclass(frozen=True)
class Outline:
    """What an output folder is of, and what is measured of it."""

    path: Path
    job_file: JobFile
    base: str
    variants: Sequence[str]
    metrics: Mapping[str, MetricInfo]

    @property
    def strength(self) -> float | None:
        """None where it sweeps over several."""
        strength = self.job_file.job.strength
        return None if isinstance(strength, tuple) else strength

    def recipe_of(self, variant: str) -> str:
        """Whose curve a variant is on: of a sweep, its recipe's."""
        return self.job_file.fingerprint.of_sweep(variant).recipe

    def strength_of(self, variant: str) -> float | None:
        """None of a variant that is at none of the strengths of a sweep."""
        own = self.job_file.fingerprint.of_sweep(variant).strength
        return self.strength if own is None else own


class Mean(Written):
    n: int = Field(description="pictures that count")
    mean: float | None
    low: float | None = Field(description="of the 95 % bootstrap interval of the mean")
    high: float | None
    not_finite: int = Field(
        description="pictures that do not count: equal to what they are compared with (PSNR), or "
        "without the region that is measured"
    )


class Comparison(Written):
    """A variant against the base, picture by picture."""

    n: int = Field(description="pictures that both have")
    difference: float | None = Field(description="mean of variant minus base")
    low: float | None = Field(description="of the 95 % bootstrap interval of the difference")
    high: float | None
    better: float | None = Field(description="share of pictures in which the variant is the better one")
    p: float | None = Field(
        description="Wilcoxon's signed-rank test, two-sided, not corrected; null of fewer than 6"
    )


class VariantResult(Written):
    sweep: OfSweep | None = Field(None, description="null where it is of none")
    pictures: int = Field(description="that are done and were measured")
    failed: int
    filtered: int = Field(description="left out by the job's own filters")
    remaining: int = Field(description="not translated yet")
    metrics: dict[str, Mean]
    seconds: Mean = Field(description="of a picture, as its record says")
    unet_evaluations: Mean = Field(description="of a picture")
    against_base: dict[str, Comparison] = Field(description="by metric; empty for the base itself")


class Network(Written):
    name: str
    identity: str = Field(description="SHA-256 of its files, or the revision of a hub id")


class Evaluation(Written):
    """`evaluation.json`: what the values in `evaluation.csv` come to."""

    sdcorrect: str = Field(description="the version that wrote this")
    written: datetime
    profile: str
    metrics: dict[str, MetricInfo] = Field(description="by column of evaluation.csv")
    base: str = Field(
        description="the variant that the others are compared with; of a sweep the recipe, at the same "
        "strength and seed"
    )
    variants: dict[str, VariantResult]
    reference: str | None = Field(description="the folder of true pictures")
    networks: dict[str, Network] = Field(description="clip, structure, blip: those that measured")
    style: str | None = Field(description="what stood before the captions")
    other_styles: tuple[str, ...] = Field(description="what style accuracy told the prompt from")
    notices: tuple[str, ...] = Field(description="what did not count, in words")


class Point(Written):
    """A variant at one strength, over all seeds of a sweep."""

    folder: str
    strength: float | None = Field(description="null of a variant that heeds none in a sweep")
    means: dict[str, float] = Field(description="by metric")


class Area(Written):
    """What a curve dominates of the square between the worst and the best mean of all curves."""

    area: float = Field(description="0 to 1")
    low: float = Field(description="of the 95 % bootstrap interval over pictures")
    high: float
    difference: float | None = Field(description="to the base's, on the same pictures")
    difference_low: float | None = None
    difference_high: float | None = None


class Plane(Written):
    """One thing that is kept over one measure of style."""

    style: str
    kept: str
    least_style: float
    most_style: float
    least_kept: float
    most_kept: float
    areas: dict[str, Area] = Field(description="by variant")


class Frontier(Written):
    """`frontier.json`: curves over strengths, and the areas under them."""

    sdcorrect: str
    written: datetime
    pictures: int = Field(description="that every variant of every folder has")
    left_out: int = Field(description="pictures that only some have")
    base: str
    curves: dict[str, list[Point]] = Field(
        description="by variant, of a sweep by recipe, from the least strength up"
    )
    planes: list[Plane]


def write_json(evaluation: Evaluation | Frontier, file: Path) -> None:
    """Raises SdcorrectError where the file cannot be written."""
    _write(file, evaluation.as_json(indent=2))


def write_csv(rows: Iterable[Measured], metrics: Sequence[str], file: Path) -> None:
    """A line for each picture and variant: variant, path, then the metrics.

    Empty where a metric has no value; `inf` where PSNR is infinite.

    Raises:
        SdcorrectError: the file cannot be written.
    """
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("variant", "path", *metrics))
    for row in rows:
        values = (row.values[name] for name in metrics)
        writer.writerow((row.variant, row.path, *("" if v != v else f"{v:.6g}" for v in values)))
    # names that are no UTF-8 keep their bytes
    _write(file, text.getvalue().encode(errors="surrogateescape"))


def _write(file: Path, content: bytes) -> None:
    temporary = file.with_name(f".{file.name}.tmp")
    write_atomically(file, content, temporary=temporary)
