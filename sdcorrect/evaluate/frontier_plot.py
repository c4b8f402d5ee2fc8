"""Draw the curves of a frontier."""

import io
from collections.abc import Sequence
from itertools import cycle
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sdcorrect.evaluate.profiles import LOWER_IS_BETTER
from sdcorrect.evaluate.results import Frontier, Plane, Point
from sdcorrect.evaluate.table import in_print
from sdcorrect.output.files import write_atomically

#: Okabe and Ito's colours, distinct with any colour vision.
COLOURS = ("#999999", "#D55E00", "#0072B2", "#009E73", "#E69F00", "#56B4E9", "#CC79A7", "#000000")
SIDE = 4.2  #: side of a panel, inches
DPI = 110


def write_plot(frontier: Frontier, file: Path) -> None:
    """Write the figure to `file`. Raises SdcorrectError if it cannot be written."""
    stream = io.BytesIO()
    draw(frontier).savefig(stream, format=file.suffix.lower().removeprefix("."))
    write_atomically(file, stream.getvalue())


def draw(frontier: Frontier) -> Figure:
    """A panel for each plane, with a curve over strengths (or a diamond for one) for each variant."""
    kept = list(dict.fromkeys(plane.kept for plane in frontier.planes))
    styles = list(dict.fromkeys(plane.style for plane in frontier.planes))
    figure = Figure((SIDE * len(styles), SIDE * len(kept) + 0.6), dpi=DPI, layout="constrained")
    panels = figure.subplots(len(kept), len(styles), squeeze=False)
    for plane in frontier.planes:
        _draw(panels[kept.index(plane.kept)][styles.index(plane.style)], plane, frontier)
    handles, labels = panels[0][0].get_legend_handles_labels()
    # a panel is as wide as two names of recipes
    figure.legend(handles, labels, loc="outside lower center", ncols=2 * len(styles), frameon=False)
    return figure


def _draw(panel: Axes, plane: Plane, frontier: Frontier) -> None:
    for (variant, points), colour in zip(frontier.curves.items(), cycle(COLOURS), strict=False):
        panel.plot(
            [point.means[plane.style] for point in points],
            [point.means[plane.kept] for point in points],
            "o-" if len(points) > 1 else "D",
            color=colour,
            label=variant,
            markersize=4 if len(points) > 1 else 7,
        )
        _label_ends(panel, plane, points, colour)
    panel.set_xlabel(f"{in_print(plane.style)} →", parse_math=False)
    kept = in_print(plane.kept)
    lower = plane.kept.removesuffix("_truth") in LOWER_IS_BETTER
    panel.set_ylabel(f"← {kept}" if lower else f"{kept} →", parse_math=False)
    panel.grid(alpha=0.25)


def _label_ends(panel: Axes, plane: Plane, points: Sequence[Point], colour: str) -> None:
    """Write the strength beside the first and the last point of a curve."""
    for point in dict.fromkeys((0, len(points) - 1)):
        strength, means = points[point].strength, points[point].means
        if strength is not None:
            panel.annotate(
                f"{strength:g}",
                (means[plane.style], means[plane.kept]),
                xytext=(4, 4),
                textcoords="offset points",
                fontsize=7,
                color=colour,
            )
