"""Draw the curves of a frontier."""

import io
from collections.abc import Iterator, Sequence
from itertools import cycle, product
from math import cos, radians, sin
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.path import Path as Outline
from matplotlib.text import Annotation
from matplotlib.transforms import Bbox

from sdcorrect.evaluate.profiles import LOWER_IS_BETTER
from sdcorrect.evaluate.results import Frontier, Plane, Point
from sdcorrect.evaluate.table import in_print
from sdcorrect.output.files import write_atomically

#: A curve's line and marker, and a single point's marker, for each round of the colours.
MARKS = (("-", "o", "D"), ("--", "s", "P"), (":", "^", "X"), ("-.", "v", "*"))
#: Okabe and Ito's colours, distinct with any colour vision.
COLOURS = ("#999999", "#D55E00", "#0072B2", "#009E73", "#E69F00", "#56B4E9", "#CC79A7", "#000000")
SIDE = 4.2  #: side of a panel, inches
DPI = 110
#: The middle of a label from its point, in points of print: around it, above to the right first, and
#: then farther off.
PLACES = tuple(
    (distance * 1.2 * cos(radians(angle)), distance * sin(radians(angle)))
    for distance in (8, 14, 20, 26)
    for angle in (45, 135, 315, 225, 0, 90, 180, 270)
)


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
    labels = {}
    for plane in frontier.planes:
        panel = panels[kept.index(plane.kept)][styles.index(plane.style)]
        labels[panel] = _draw(panel, plane, frontier)
    handles, names = panels[0][0].get_legend_handles_labels()
    # a panel is as wide as two names of recipes
    figure.legend(handles, names, loc="outside lower center", ncols=2 * len(styles), frameon=False)
    figure.draw_without_rendering()  # so that it is known where panels, points and labels lie
    for panel, of_panel in labels.items():
        _part(panel, of_panel)
    return figure


def _draw(panel: Axes, plane: Plane, frontier: Frontier) -> list[Annotation]:
    """Draw the curves of a plane, and return the labels of their ends."""
    labels = []
    looks = cycle(product(MARKS, COLOURS))
    for (variant, points), (marks, colour) in zip(frontier.curves.items(), looks, strict=False):
        line, marker, alone = marks
        panel.plot(
            [point.means[plane.style] for point in points],
            [point.means[plane.kept] for point in points],
            linestyle=line if len(points) > 1 else "none",
            marker=marker if len(points) > 1 else alone,
            color=colour,
            label=variant,
            markersize=4 if len(points) > 1 else 7,
        )
        labels += _label_ends(panel, plane, points, colour)
    panel.set_xlabel(f"{in_print(plane.style)} →", parse_math=False)
    kept = in_print(plane.kept)
    lower = plane.kept.removesuffix("_truth") in LOWER_IS_BETTER
    panel.set_ylabel(f"← {kept}" if lower else f"{kept} →", parse_math=False)
    panel.grid(alpha=0.25)
    return labels


def _label_ends(panel: Axes, plane: Plane, points: Sequence[Point], colour: str) -> list[Annotation]:
    """Write the strength beside the first and the last point of a curve."""
    labels = []
    for point in dict.fromkeys((0, len(points) - 1)):
        strength, means = points[point].strength, points[point].means
        if strength is not None:
            label = panel.annotate(
                f"{strength:g}",
                (means[plane.style], means[plane.kept]),
                xytext=PLACES[0],
                textcoords="offset points",
                ha="center",
                va="center",
                fontsize=7,
                color=colour,
            )
            label.set_in_layout(False)  # it is moved once the layout is known
            labels.append(label)
    return labels


def _part(panel: Axes, labels: Sequence[Annotation]) -> None:
    """Move each label to the first of its places that is inside the panel and covers nothing.

    Where there is none, it covers a line rather than a point or another label.
    """
    lines = [line.get_path().transformed(line.get_transform()) for line in panel.lines]
    taken = [box for line in panel.lines for box in _marks(line)]
    for label in labels:
        boxes = {place: _box(label, place) for place in PLACES}
        label.xyann = min(PLACES, key=lambda place: _covered(boxes[place], taken, lines, panel.bbox))
        taken.append(boxes[label.xyann])


def _marks(line: Line2D) -> Iterator[Bbox]:
    """The boxes of a line's points."""
    half = line.get_markersize() / 2 * DPI / 72
    for x, y in line.get_transform().transform(line.get_xydata()):
        yield Bbox.from_extents(x - half, y - half, x + half, y + half)


def _box(label: Annotation, place: tuple[float, float]) -> Bbox:
    label.xyann = place
    return label.get_window_extent()


def _covered(
    box: Bbox, taken: Sequence[Bbox], lines: Sequence[Outline], panel: Bbox
) -> tuple[bool, int, int]:
    """Whether a label would leave its panel, how many points and labels it would cover, and lines."""
    outside = not (panel.contains(*box.min) and panel.contains(*box.max))
    crossed = sum(line.intersects_bbox(box, filled=False) for line in lines)
    return outside, int(box.count_overlaps(taken)), crossed
