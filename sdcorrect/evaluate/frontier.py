"""What each variant keeps at each style: curves over strengths, and the areas under them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sdcorrect import __version__
from sdcorrect.errors import UsageError, printable
from sdcorrect.evaluate.evaluator import Evaluator
from sdcorrect.evaluate.profiles import LOWER_IS_BETTER, Metric
from sdcorrect.evaluate.results import Area, Frontier, Measured, Plane, Point
from sdcorrect.evaluate.statistics import CONFIDENCE, RESAMPLES

#: What is kept, of the truth where that was given and of the source else; and of what style.
KEPT = ("ssim", "structure_distance")
STYLES = ("clip_text", "style_accuracy")
BETWEEN = 32  #: points on the line between two strengths

Values = NDArray[np.float64]


@dataclass(frozen=True)
class MeasuredFolder:
    """An output folder and all that was measured of it."""

    path: Path
    run: Evaluator
    rows: Sequence[Measured]

    @property
    def strength(self) -> float:
        return self.run.translated.job.strength


def check_alike(runs: Mapping[Path, Evaluator]) -> None:
    """Refuse output folders that are not of one job at several strengths.

    Raises:
        UsageError: they are not, or the metrics tell nothing of style or of what is kept.
    """
    (first, of_first), *others = runs.items()
    planes(of_first)
    seen: dict[tuple[float, str], Path] = {}
    for path, run in runs.items():
        for variant in run.translated.progress:
            same = seen.setdefault((run.translated.job.strength, variant), path)
            if same != path:
                raise UsageError(
                    f"--frontier: {printable(same)} and {printable(path)} both have {variant} at "
                    f"strength {run.translated.job.strength:g}; give each strength once"
                )
    for path, run in others:
        for difference in _differences(of_first, run):
            raise UsageError(
                f"--frontier: {printable(first)} and {printable(path)} differ in {difference}; "
                "a curve is of one job at several strengths"
            )


def _differences(one: Evaluator, other: Evaluator) -> Iterator[str]:
    ours, theirs = (run.translated.job_file.fingerprint for run in (one, other))
    for name in dict.fromkeys([*ours.settings, *theirs.settings]):
        pair = ours.settings.get(name), theirs.settings.get(name)
        if name != "strength" and pair[0] != pair[1]:
            yield f"{name} ({pair[0]!r}, {pair[1]!r})"
    for name, recipe in theirs.variants.items():
        if ours.variants.get(name, recipe) != recipe:
            yield f"the recipe {name}"


def planes(run: Evaluator) -> list[tuple[Metric, Metric]]:
    """The pairs of a style and something kept that `run` measures.

    Raises:
        UsageError: there is none.
    """
    against = "source" if run.request.reference is None else "truth"
    whole = [metric for metric in run.metrics if metric.region == "whole"]
    styles = [metric for metric in whole if metric.kind in STYLES and metric.against == "text"]
    kept = [metric for metric in whole if metric.kind in KEPT and metric.against == against]
    if not styles or not kept:
        raise UsageError(
            f"--frontier is of {' or '.join(STYLES)}, and {' or '.join(KEPT)}: "
            "measure one of each, --metrics"
        )
    return [(style, of) for of in kept for style in styles]


def frontier(folders: Sequence[MeasuredFolder]) -> Frontier:
    """The curves of the variants of `folders` and the areas under them, on the pictures that all have.

    Raises:
        UsageError: there are none.
    """
    first = folders[0].run
    everywhere = [
        {row.path for row in folder.rows if row.variant == variant}
        for folder in folders
        for variant in folder.run.translated.progress
    ]
    pictures = sorted(set.intersection(*everywhere))
    if not pictures:
        raise UsageError("--frontier: no picture is done in every variant of every folder")
    curves: dict[str, list[Point]] = {}
    values: dict[str, dict[str, list[Values]]] = {}
    for folder in sorted(folders, key=lambda folder: folder.strength):
        measured = {(row.variant, row.path): row.values for row in folder.rows}
        for variant in folder.run.translated.progress:
            of_metrics = {
                metric.name: np.array([measured[variant, path][metric.name] for path in pictures])
                for pair in planes(first)
                for metric in pair
            }
            means = {name: float(of_pictures.mean()) for name, of_pictures in of_metrics.items()}
            point = Point(folder=str(folder.path), strength=folder.strength, means=means)
            curves.setdefault(variant, []).append(point)
            for name, of_pictures in of_metrics.items():
                values.setdefault(name, {}).setdefault(variant, []).append(of_pictures)
    return Frontier(
        sdcorrect=__version__,
        written=datetime.now(timezone.utc),
        pictures=len(pictures),
        left_out=len(set.union(*everywhere)) - len(pictures),
        base=first.base,
        curves=curves,
        planes=[
            _plane(style, kept, values[style.name], values[kept.name], first.base)
            for style, kept in planes(first)
        ],
    )


def _plane(
    style: Metric,
    kept: Metric,
    styles: Mapping[str, Sequence[Values]],
    keeping: Mapping[str, Sequence[Values]],
    base: str,
) -> Plane:
    along, up = _Scale.over(styles, 1), _Scale.over(keeping, -1 if kept.kind in LOWER_IS_BETTER else 1)
    some = len(next(iter(styles.values()))[0])
    drawn = np.random.default_rng(0).multinomial(some, np.full(some, 1 / some), size=RESAMPLES) / some
    weights = np.vstack([np.full(some, 1 / some), drawn])  # the pictures themselves, then resamples
    areas = {
        variant: np.array(
            [
                area_under(along(mean_styles), up(mean_kept))
                for mean_styles, mean_kept in zip(
                    weights @ np.stack(styles[variant], 1),
                    weights @ np.stack(keeping[variant], 1),
                    strict=True,
                )
            ]
        )
        for variant in styles
    }
    return Plane(
        style=style.name,
        kept=kept.name,
        least_style=along.least,
        most_style=along.most,
        least_kept=up.least,
        most_kept=up.most,
        areas={
            variant: _area(found, None if variant == base else areas.get(base))
            for variant, found in areas.items()
        },
    )


@dataclass(frozen=True)
class _Scale:
    """Values of a metric from 0, the worst mean of all curves, to 1, the best."""

    least: float
    most: float
    sign: int

    @classmethod
    def over(cls, values: Mapping[str, Sequence[Values]], sign: int) -> "_Scale":
        means = [float(of_pictures.mean()) for curve in values.values() for of_pictures in curve]
        return cls(min(means), max(means), sign)

    def __call__(self, values: Values) -> Values:
        share = np.clip((values - self.least) / ((self.most - self.least) or 1.0), 0, 1)
        return share if self.sign > 0 else 1 - share


def area_under(styles: Values, kept: Values) -> float:
    """The area that a curve dominates of the square from 0 to 1, more of both being better.

    A point is dominated where the curve, straight between its points, has somewhere no less of either:
    the hypervolume in two dimensions (Zitzler and Thiele, 1999).
    """
    line = np.linspace(0, len(styles) - 1, BETWEEN * (len(styles) - 1) + 1)
    styles, kept = (np.interp(line, np.arange(len(of)), of) for of in (styles, kept))
    order = np.argsort(-styles, kind="stable")
    best = np.maximum.accumulate(kept[order])
    widths = -np.diff(np.append(styles[order], 0.0))
    return float(widths @ best)


def _area(found: Values, base: Values | None) -> Area:
    low, high = _interval(found[1:])
    if base is None:
        return Area(area=float(found[0]), low=low, high=high, difference=None)
    difference = found - base
    return Area(
        area=float(found[0]),
        low=low,
        high=high,
        difference=float(difference[0]),
        difference_low=_interval(difference[1:])[0],
        difference_high=_interval(difference[1:])[1],
    )


def _interval(resampled: Values) -> tuple[float, float]:
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(resampled, (tail, 1 - tail))
    return float(low), float(high)
