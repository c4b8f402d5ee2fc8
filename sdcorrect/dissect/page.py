"""A dissection as one self-contained HTML file."""

import base64
import io
from collections.abc import Iterator
from typing import NamedTuple

from PIL import Image

from sdcorrect import __version__
from sdcorrect.core.plan import Block
from sdcorrect.dissect.about import UNITS, Setup, Subject, means_of
from sdcorrect.dissect.dissection import CONDITIONS, Condition, Dissection, Drawn
from sdcorrect.dissect.draw import ON_BLACK, ON_WHITE, OVER, ROWS, curves, marked, peak_of, pictures_of
from sdcorrect.dissect.measure import COMPARED
from sdcorrect.errors import printable
from sdcorrect.pages import environment


class Cell(NamedTuple):
    """A map with its alternative text."""

    uri: str
    alt: str


class Column(NamedTuple):
    condition: Condition | None  #: None is the inversion
    name: str
    timestep: int
    cells: list[Cell]


def page(settings: Setup, subject: Subject, dissection: Dissection, drawn: Drawn) -> str:
    """The page as HTML, with all images embedded."""
    names = settings.names
    return (
        environment("sdcorrect.dissect")
        .get_template("dissect.html.j2")
        .render(
            version=__version__,
            name=printable(subject.path),
            settings=settings,
            subject=subject,
            grids=dissection.grids,
            timesteps=dissection.timesteps,
            conditions=CONDITIONS,
            tensors=COMPARED,
            names=names,
            units=UNITS,
            rows=[name for name, _ in ROWS],
            over=OVER,
            means=means_of(dissection),
            source=_uri(marked(dissection.source, drawn.point)),
            results={c: _uri(dissection.results[c]) for c in CONDITIONS},
            curves_on_white=_svg_uri(curves(dissection, names, ON_WHITE)),
            curves_on_black=_svg_uri(curves(dissection, names, ON_BLACK)),
            columns={
                block: [*_columns(settings, dissection, drawn, block)] for block in dissection.grids
            },
        )
    )


def _columns(settings: Setup, dissection: Dissection, drawn: Drawn, block: Block) -> Iterator[Column]:
    peak, source = peak_of(drawn, block), dissection.source

    def cells(maps_name: str, images: list[Image.Image], scores: list[str]) -> list[Cell]:
        return [
            Cell(_uri(image), f"{name}, block {block}, {maps_name}{score}".replace("\n", " "))
            for image, (name, _), score in zip(images, ROWS, scores, strict=True)
        ]

    images = pictures_of(drawn.inversion[block], source, drawn, peak)
    yield Column(None, "inversion", settings.timestep, cells("inversion", images, [""] * len(ROWS)))
    for condition in CONDITIONS:
        name = settings.names[condition]
        for step, t in enumerate(dissection.timesteps):
            if t not in drawn.timesteps:
                continue
            images = pictures_of(drawn.maps[condition, t][block], source, drawn, peak)
            scores = [
                f", discrepancy {dissection.scores[condition][tensor][block][step]:.3f}"
                for _, tensor in ROWS
            ]
            yield Column(condition, name, t, cells(f"{name} at timestep {t}", images, scores))


def _uri(image: Image.Image) -> str:
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return f"data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()}"


def _svg_uri(svg: bytes) -> str:
    return f"data:image/svg+xml;base64,{base64.b64encode(svg).decode()}"
