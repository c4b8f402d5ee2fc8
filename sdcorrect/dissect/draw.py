"""Draw the maps as pictures, the discrepancies as curves, and both as one figure."""

import io
from collections.abc import Iterator
from itertools import cycle
from typing import Any, NamedTuple

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from PIL import Image, ImageDraw

from sdcorrect.core.plan import Block, TensorName
from sdcorrect.dissect.about import Setup
from sdcorrect.dissect.dissection import CONDITIONS, Condition, Dissection, Drawn
from sdcorrect.dissect.maps import Map, Maps, Values
from sdcorrect.dissect.measure import COMPARED

#: Okabe and Ito's colours, distinct with any colour vision.
COLOURS: dict[Condition, str] = {"sdedit": "#D55E00", "correction": "#0072B2"}


class Inks(NamedTuple):
    """Colours of curves: one for text and frames, and one for each condition."""

    text: str
    of: dict[Condition, str]


ON_WHITE = Inks("#1b1b1f", COLOURS)
ON_BLACK = Inks("#e6e6ea", {"sdedit": "#ff9550", "correction": "#6cc0f5"})
CLUSTER_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#F0E442")
MARKERS = "os^Dv<>Ph*Xd"
MEASURES: dict[TensorName, str] = {
    "self-attention": "JS divergence, bits",
    "skip": "cosine distance",
    "resnet": "cosine distance",
}
SHORT: dict[TensorName, str] = {"self-attention": "JSD", "skip": "cos", "resnet": "cos"}
OVER = "attention\nof the point"  #: the row that is drawn over the picture
#: The rows of a block: name and tensor.
ROWS: tuple[tuple[str, TensorName], ...] = (
    ("attention\nPCA", "self-attention"),
    ("attention\nk-means", "self-attention"),
    (OVER, "self-attention"),
    ("skip\nPCA", "skip"),
    ("skip\nk-means", "skip"),
)
#: The last row of each tensor; its discrepancy is written below.
SCORED_ROWS = (2, 4)
OVERLAY = 192  #: px, the smallest longer side of a picture with attention over it

WIDTH, LEFT, RIGHT = 10.0, 1.1, 0.15  # inches, as all below
GAP, BETWEEN_GROUPS, LABEL, LARGEST, PICTURE = 0.05, 0.2, 0.15, 1.5, 1.5
DPI = 160


def pictures_of(maps: Maps, source: Image.Image, drawn: Drawn, peak: float) -> list[Image.Image]:
    """The maps of one block in the order of `ROWS`, one pixel per token except for the overlay."""
    return [
        _coloured(maps.attention),
        _clustered(maps.attention),
        overlay(source, maps.from_point / peak, drawn.point),
        _coloured(maps.features),
        _clustered(maps.features),
    ]


def peak_of(drawn: Drawn, block: Block) -> float:
    """The value drawn brightest in the point's attention: the maximum of the inversion's."""
    return max(float(drawn.inversion[block].from_point.max()), float(np.finfo(np.float32).tiny))


def _coloured(tokens: Map) -> Image.Image:
    return Image.fromarray((tokens.colours * 255).round().astype(np.uint8))


def _clustered(tokens: Map) -> Image.Image:
    palette = (np.array([to_rgb(colour) for colour in CLUSTER_COLOURS]) * 255).round()
    return Image.fromarray(palette[tokens.clusters].astype(np.uint8))


def overlay(source: Image.Image, attention: Values, point: tuple[float, float]) -> Image.Image:
    """Draw attention, 0 to 1, over the darkened picture, with a ring around the query point."""
    scale = max(1, OVERLAY / max(source.size))
    size = (round(source.width * scale), round(source.height * scale))
    glow = np.asarray(Image.fromarray(attention).resize(size, Image.Resampling.BILINEAR)).clip(0, 1)
    dark = np.asarray(source.convert("L").resize(size), np.float32)[..., None] / 255 * 0.45
    light = colormaps["inferno"](0.15 + 0.85 * glow)[..., :3]
    weight = np.sqrt(glow)[..., None]
    image = Image.fromarray(((dark * (1 - weight) + light * weight) * 255).round().astype(np.uint8))
    ring(image, point)
    return image


def ring(image: Image.Image, point: tuple[float, float]) -> None:
    """Draw a ring around `point`, in fractions of the picture, in place."""
    x, y = point[0] * image.width, point[1] * image.height
    radius = max(image.size) / 24
    draw = ImageDraw.Draw(image)
    for r, colour in ((radius + 1.5, "black"), (radius, "white")):
        draw.circle((x, y), r, outline=colour, width=max(2, round(radius / 4)))


def marked(source: Image.Image, point: tuple[float, float]) -> Image.Image:
    """The source with the query point on it."""
    scale = max(1, OVERLAY / max(source.size))
    image = source.resize((round(source.width * scale), round(source.height * scale)))
    ring(image, point)
    return image


def plot_curves(axes: Axes, dissection: Dissection, tensor: TensorName, inks: Inks) -> None:
    """Plot the discrepancy of one tensor over timesteps, one line per condition and block."""
    for condition in CONDITIONS:
        by_block = dissection.scores[condition][tensor].values()
        for scores, marker in zip(by_block, cycle(MARKERS), strict=False):
            axes.plot(
                dissection.timesteps,
                scores,
                color=inks.of[condition],
                marker=marker,
                markersize=4,
                linewidth=1.2,
                clip_on=False,
            )
    axes.set_title(tensor, fontsize=9)
    axes.set_xlabel("timestep, as denoising goes", fontsize=8)
    axes.set_ylabel(MEASURES[tensor], fontsize=8)
    axes.tick_params(labelsize=7)
    axes.invert_xaxis()
    axes.set_ylim(bottom=0)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25, linewidth=0.6)


def legend_of(dissection: Dissection, names: dict[Condition, str], inks: Inks) -> list[Line2D]:
    """Legend entries for the colours and markers of the curves."""
    conditions = [Line2D([], [], color=inks.of[c], linewidth=2, label=names[c]) for c in CONDITIONS]
    blocks = [
        Line2D(
            [], [], color=inks.text, marker=marker, linestyle="", markersize=5, label=f"block {block}"
        )
        for block, marker in zip(dissection.grids, cycle(MARKERS), strict=False)
    ]
    return [*conditions, *blocks]


def curves(dissection: Dissection, names: dict[Condition, str], inks: Inks) -> bytes:
    """The curves alone, as an SVG with a transparent background."""
    sheet = Figure(figsize=(10, 3.1), layout="constrained")
    for axes, tensor in zip(sheet.subplots(1, len(COMPARED)), COMPARED, strict=True):
        plot_curves(axes, dissection, tensor, inks)
        for text in (axes.title, axes.xaxis.label, axes.yaxis.label):
            text.set_color(inks.text)
        axes.tick_params(colors=inks.text)
        axes.spines[:].set_color(inks.text)
    handles = legend_of(dissection, names, inks)
    sheet.legend(
        handles=handles,
        loc="outside lower center",
        ncols=6,
        fontsize=8,
        frameon=False,
        labelcolor=inks.text,
    )
    return _saved(sheet, "svg", transparent=True)


def figure(settings: Setup, dissection: Dissection, drawn: Drawn, title: str) -> bytes:
    """The whole figure as a PNG."""
    return _Sheet(settings, dissection, drawn).draw(title)


class _Sheet:
    """A figure laid out in inches from the top, so that columns align from block to block."""

    def __init__(self, settings: Setup, dissection: Dissection, drawn: Drawn) -> None:
        self.settings = settings
        self.dissection = dissection
        self.drawn = drawn
        self.names = settings.names
        self.steps = [t for t in dissection.timesteps if t in drawn.timesteps]
        columns = 1 + 2 * len(self.steps)
        free = WIDTH - LEFT - RIGHT - 2 * BETWEEN_GROUPS - (columns - 1) * GAP
        self.cell = min(LARGEST, free / columns)
        source = dissection.source
        self.cell_height = self.cell * source.height / source.width
        self.picture_height = min(PICTURE, PICTURE * source.height / source.width)
        self.maps_top = 0.5 + self.picture_height + 2.8  # below title, pictures and curves
        band = self._row(0.45, len(ROWS)) + 0.3
        self.height = self.maps_top + len(dissection.grids) * band
        self.sheet = Figure(figsize=(WIDTH, self.height), facecolor="white")

    def draw(self, title: str) -> bytes:
        self._text(LEFT, 0.25, title, fontsize=11, weight="bold", va="center")
        self._pictures(0.5)
        self._curves(0.5 + self.picture_height + 0.65)
        top = self.maps_top
        for block in self.dissection.grids:
            top = self._block(block, top) + 0.3
        return _saved(self.sheet, "png", dpi=DPI)

    def _pictures(self, top: float) -> None:
        source = self.dissection.source
        width = self.picture_height * source.width / source.height
        shown = {
            "source, and the query point": marked(source, self.drawn.point),
            **{self.names[c]: self.dissection.results[c] for c in CONDITIONS},
        }
        left = LEFT
        for name, image in shown.items():
            self._show(image, (left, top, width, self.picture_height), name, 8)
            left += width + 0.3
        handles = legend_of(self.dissection, self.names, ON_WHITE)
        for some in (handles[: len(CONDITIONS)], handles[len(CONDITIONS) :]):
            self.sheet.legend(
                handles=some,
                loc="upper left",
                bbox_to_anchor=(left / WIDTH, 1 - top / self.height),
                fontsize=8,
                frameon=False,
                ncols=3,
                borderaxespad=0,
            )
            top += 0.25

    def _curves(self, top: float) -> None:
        left, between = 0.6, 0.65
        width = (WIDTH - RIGHT - left - 2 * between) / len(COMPARED)
        for i, tensor in enumerate(COMPARED):
            axes = self._axes(left + i * (width + between), top, width, 1.35)
            plot_curves(axes, self.dissection, tensor, ON_WHITE)

    def _block(self, block: Block, top: float) -> float:
        """Draw one block's maps below `top`; return where they end."""
        height, width = self.dissection.grids[block]
        self._text(LEFT, top, f"Block {block}", fontsize=10, weight="bold", va="center")
        note = ", ".join(filter(None, (f"{width} x {height} tokens", self.settings.told(block))))
        self._text(LEFT + 0.75, top, note, fontsize=9, va="center", color="#444444")
        first = top + 0.45
        for row, (name, _) in enumerate(ROWS):
            middle = self._row(first, row) + self.cell_height / 2
            self._text(LEFT - 0.1, middle, name, fontsize=8, ha="right", va="center")
        lefts = self._lefts()
        heading = f"inversion, t = {self.settings.timestep}"
        self._column(block, heading, "black", self.drawn.inversion[block], next(lefts), first)
        for condition in CONDITIONS:
            for t in self.steps:
                maps, left = self.drawn.maps[condition, t][block], next(lefts)
                heading = f"{self.names[condition]}, t = {t}"
                self._column(block, heading, COLOURS[condition], maps, left, first)
                for row in SCORED_ROWS:
                    score = self._score(condition, ROWS[row][1], block, t)
                    below = self._row(first, row) + self.cell_height + 0.09
                    self._text(left + self.cell / 2, below, score, fontsize=7, ha="center", va="center")
        return self._row(first, len(ROWS))

    def _column(
        self, block: Block, heading: str, colour: str, maps: Maps, left: float, first: float
    ) -> None:
        heading = heading.replace(", ", "\n")
        style = {"fontsize": 7.5, "color": colour, "ha": "center", "va": "bottom"}
        self._text(left + self.cell / 2, first - 0.05, heading, **style)
        images = pictures_of(maps, self.dissection.source, self.drawn, peak_of(self.drawn, block))
        for row, image in enumerate(images):
            self._show(image, (left, self._row(first, row), self.cell, self.cell_height))

    def _score(self, condition: Condition, tensor: TensorName, block: Block, t: int) -> str:
        step = self.dissection.timesteps.index(t)
        return f"{SHORT[tensor]} {self.dissection.scores[condition][tensor][block][step]:.3f}"

    def _lefts(self) -> Iterator[float]:
        """The left edge of each column."""
        left = LEFT
        for column in range(1 + 2 * len(self.steps)):
            if column in (1, 1 + len(self.steps)):
                left += BETWEEN_GROUPS
            yield left
            left += self.cell + GAP

    def _row(self, first: float, row: int) -> float:
        """The top of row number `row` of a block whose rows start at `first`, with room for scores."""
        room = sum(LABEL for scored in SCORED_ROWS if scored < row)
        return first + row * (self.cell_height + GAP) + room

    def _axes(self, left: float, top: float, width: float, height: float) -> Axes:
        bottom = self.height - top - height
        return self.sheet.add_axes(
            (left / WIDTH, bottom / self.height, width / WIDTH, height / self.height)
        )

    def _text(self, left: float, top: float, text: str, **style: Any) -> None:
        self.sheet.text(left / WIDTH, 1 - top / self.height, text, parse_math=False, **style)

    def _show(
        self,
        image: Image.Image,
        place: tuple[float, float, float, float],
        below: str = "",
        size: float = 7,
    ) -> None:
        axes = self._axes(*place)
        axes.imshow(image, interpolation="nearest", aspect="auto")
        axes.set_xticks([])
        axes.set_yticks([])
        axes.spines[:].set_linewidth(0.4)
        axes.set_xlabel(below, fontsize=size, labelpad=3, parse_math=False)


def _saved(sheet: Figure, kind: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    sheet.savefig(stream, format=kind, **options)
    return stream.getvalue()
