"""The files of `sdcorrect evaluate`: a table of all pictures, and a summary."""

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
    """The measurements of one picture in one variant; NaN where a region is empty."""

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
    """An output folder's job, variants and metrics."""

    path: Path
    job_file: JobFile
    base: str
    variants: Sequence[str]
    metrics: Mapping[str, MetricInfo]

    @property
    def strength(self) -> float | None:
        """The job's strength; None if it sweeps over several."""
        strength = self.job_file.job.strength
        return None if isinstance(strength, tuple) else strength

    def recipe_of(self, variant: str) -> str:
        """The recipe on whose curve a variant is."""
        return self.job_file.fingerprint.of_sweep(variant).recipe

    def strength_of(self, variant: str) -> float | None:
        """The strength of a variant; None in a sweep whose strengths it does not follow."""
        own = self.job_file.fingerprint.of_sweep(variant).strength
        return self.strength if own is None else own


class Mean(Written):
    n: int = Field(description="number of pictures in the mean")
    mean: float | None
    low: float | None = Field(description="lower end of the 95 % bootstrap interval of the mean")
    high: float | None
    not_finite: int = Field(
        description="number of pictures left out: equal to the picture they are compared with (PSNR), "
        "or without the region that is measured"
    )


class Comparison(Written):
    """A variant compared with the base, picture by picture."""

    n: int = Field(description="number of pictures that both have")
    difference: float | None = Field(description="mean of variant minus base")
    low: float | None = Field(description="lower end of the 95 % bootstrap interval of the difference")
    high: float | None
    better: float | None = Field(description="share of pictures in which the variant is better")
    p: float | None = Field(
        description="two-sided Wilcoxon signed-rank test, uncorrected; null for fewer than 6 pictures"
    )


class VariantResult(Written):
    sweep: OfSweep | None = Field(None, description="its place in a sweep; null without a sweep")
    pictures: int = Field(description="that are done and were measured")
    failed: int
    filtered: int = Field(description="left out by the job's filters")
    remaining: int = Field(description="not translated yet")
    metrics: dict[str, Mean]
    seconds: Mean = Field(description="per picture, from the records")
    unet_evaluations: Mean = Field(description="per picture")
    against_base: dict[str, Comparison] = Field(description="by metric; empty for the base itself")


class Network(Written):
    name: str
    identity: str = Field(description="SHA-256 of its files, or the revision of a hub id")


class Evaluation(Written):
    """`evaluation.json`: the summary of `evaluation.csv`."""

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
    networks: dict[str, Network] = Field(description="the networks used: clip, structure, blip")
    style: str | None = Field(description="words before each caption")
    other_styles: tuple[str, ...] = Field(description="prompts that style accuracy compared with")
    notices: tuple[str, ...] = Field(description="what was not measured or not counted, in words")


class Point(Written):
    """A variant at one strength, over all seeds of a sweep."""

    folder: str
    strength: float | None = Field(description="null of a variant that heeds none in a sweep")
    means: dict[str, float] = Field(description="by metric")


class Area(Written):
    """The area that a curve dominates between the worst and the best means of all curves."""

    area: float = Field(description="0 to 1")
    low: float = Field(description="lower end of the 95 % bootstrap interval over pictures")
    high: float
    difference: float | None = Field(description="area minus that of the base, on the same pictures")
    difference_low: float | None = None
    difference_high: float | None = None


class Plane(Written):
    """A metric of what is kept against a metric of style."""

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
    pictures: int = Field(description="number of pictures that every variant of every folder has")
    left_out: int = Field(description="number of pictures that only some have")
    base: str
    curves: dict[str, list[Point]] = Field(
        description="by variant, of a sweep by recipe, from the least strength up"
    )
    planes: list[Plane]


def write_json(evaluation: Evaluation | Frontier, file: Path) -> None:
    """Write `evaluation` to `file`. Raises SdcorrectError if it cannot be written."""
    write_atomically(file, evaluation.as_json(indent=2))


def write_csv(rows: Iterable[Measured], metrics: Sequence[str], file: Path) -> None:
    """Write a line for each picture and variant: variant, path, then the metrics.

    A cell is empty if the metric has no value, and `inf` if PSNR is infinite.

    Raises:
        SdcorrectError: the file cannot be written.
    """
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("variant", "path", *metrics))
    for row in rows:
        values = (row.values[name] for name in metrics)
        writer.writerow((row.variant, row.path, *("" if v != v else f"{v:.6g}" for v in values)))
    # names that are not UTF-8 keep their bytes
    write_atomically(file, text.getvalue().encode(errors="surrogateescape"))
