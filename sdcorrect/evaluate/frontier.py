"""What each variant keeps against the style it reaches: curves over strengths, and areas under them."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sdcorrect import __version__
from sdcorrect.errors import UsageError, listed, printable
from sdcorrect.evaluate.results import Area, Frontier, Measured, MetricInfo, Outline, Plane, Point
from sdcorrect.evaluate.statistics import CONFIDENCE, RESAMPLES

#: Metrics of what is kept (of the truth if given, else of the source), and of style.
KEPT = ("ssim", "structure_distance")
STYLES = ("clip_text", "style_accuracy")
BETWEEN = 32  #: interpolated points between two strengths

Values = NDArray[np.float64]


@dataclass(frozen=True)
class MeasuredFolder:
    """An output folder and its measurements."""

    outline: Outline
    rows: Sequence[Measured]
    not_evaluated: Sequence[str] = ()  #: what was added to the folder since, in words


def check_alike(outlines: Sequence[Outline]) -> None:
    """Check that output folders belong to one job at several strengths.

    Raises:
        UsageError: they do not, or no metric measures style or what is kept.
    """
    first, *others = outlines
    planes(first)
    seen: dict[tuple[float | None, str], Path] = {}
    for outline in outlines:
        for variant in outline.variants:
            recipe, strength = outline.recipe_of(variant), outline.strength_of(variant)
            same = seen.setdefault((strength, recipe), outline.path)
            if same != outline.path and strength is not None:
                raise UsageError(
                    f"{printable(same)} and {printable(outline.path)} both have {recipe} at "
                    f"strength {strength:g}; give each strength once"
                )
    for other in others:
        for difference in _differences(first, other):
            raise UsageError(
                f"{printable(first.path)} and {printable(other.path)} differ in {difference}; "
                "a curve needs one job at several strengths"
            )


def _differences(one: Outline, other: Outline) -> Iterator[str]:
    ours, theirs = (outline.job_file.fingerprint for outline in (one, other))
    for name in dict.fromkeys([*ours.settings, *theirs.settings]):
        pair = ours.settings.get(name), theirs.settings.get(name)
        if name != "strength" and pair[0] != pair[1]:
            yield f"{name} ({pair[0]!r}, {pair[1]!r})"
    for name, recipe in theirs.variants.items():
        if ours.variants.get(name, recipe) != recipe:
            yield f"the recipe {name}"
    if one.metrics != other.metrics:
        yield "their metrics"


def planes(outline: Outline) -> list[tuple[str, str]]:
    """All pairs (style, kept) of metrics that a folder was measured with.

    Raises:
        UsageError: there are none.
    """
    whole = {name: info for name, info in outline.metrics.items() if info.region == "whole"}
    against = "truth" if any(info.against == "truth" for info in whole.values()) else "source"
    styles = [name for name, info in whole.items() if name in STYLES and info.against == "text"]
    kept = [
        name
        for name, info in whole.items()
        if name.removesuffix("_truth") in KEPT and info.against == against
    ]
    if not styles or not kept:
        raise UsageError(
            f"curves need {' or '.join(STYLES)}, and {' or '.join(KEPT)}; "
            "evaluate with one of each in --metrics"
        )
    return [(style, of) for of in kept for style in styles]


def frontier(folders: Sequence[MeasuredFolder]) -> Frontier:
    """The curves of the variants of `folders` and the areas under them, over the pictures that all have.

    Raises:
        UsageError: they have no picture in common.
    """
    first = folders[0].outline
    by_variant = {
        f"{printable(folder.outline.path)}/{variant}": {
            row.path for row in folder.rows if row.variant == variant
        }
        for folder in folders
        for variant in folder.outline.variants
    }
    everywhere = by_variant.values()
    pictures = sorted(set.intersection(*everywhere))
    if not pictures:
        empty = [variant for variant, found in by_variant.items() if not found]
        why = f"{listed(empty)} {'have' if len(empty) > 1 else 'has'} none" if empty else "there is none"
        raise UsageError(
            f"curves are over the pictures that all variants have, and {why}; "
            "`sdcorrect status` tells what failed or is left to do"
        )
    curves: dict[str, list[Point]] = {}
    values: dict[str, dict[str, list[Values]]] = {}
    for strength, recipe, folder, variants in _spots(folders):
        measured = {(row.variant, row.path): row.values for row in folder.rows}
        of_metrics = {
            name: np.mean([[measured[v, path][name] for path in pictures] for v in variants], axis=0)
            for pair in planes(first)
            for name in pair
        }
        means = {name: float(of_pictures.mean()) for name, of_pictures in of_metrics.items()}
        point = Point(folder=str(folder.outline.path), strength=strength, means=means)
        curves.setdefault(recipe, []).append(point)
        for name, of_pictures in of_metrics.items():
            values.setdefault(name, {}).setdefault(recipe, []).append(of_pictures)
    return Frontier(
        sdcorrect=__version__,
        written=datetime.now(timezone.utc),
        pictures=len(pictures),
        left_out=len(set.union(*everywhere)) - len(pictures),
        base=first.base,
        curves=curves,
        planes=[
            _plane(style, kept, first.metrics[kept], values[style], values[kept], first.base)
            for style, kept in planes(first)
        ],
    )


def _spots(
    folders: Sequence[MeasuredFolder],
) -> list[tuple[float | None, str, MeasuredFolder, list[str]]]:
    """Strength, recipe, folder and variants of each point: those that differ in their seed alone.

    From the least strength up; what is at none comes last.
    """
    spots: list[tuple[float | None, str, MeasuredFolder, list[str]]] = []
    for folder in folders:
        of_folder: dict[tuple[float | None, str], list[str]] = {}
        for variant in folder.outline.variants:
            place = folder.outline.strength_of(variant), folder.outline.recipe_of(variant)
            of_folder.setdefault(place, []).append(variant)
        spots += [(*place, folder, variants) for place, variants in of_folder.items()]
    return sorted(spots, key=lambda spot: math.inf if spot[0] is None else spot[0])


def _plane(
    style: str,
    kept: str,
    info: MetricInfo,
    styles: Mapping[str, Sequence[Values]],
    keeping: Mapping[str, Sequence[Values]],
    base: str,
) -> Plane:
    along, up = _Scale.over(styles, 1), _Scale.over(keeping, -1 if info.better == "lower" else 1)
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
        style=style,
        kept=kept,
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
    """Scales a metric from 0, the worst mean of all curves, to 1, the best."""

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
    """The area of the unit square that a curve dominates, where more of both is better.

    A point is dominated if some point of the curve (linear between strengths) has no less of either:
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
