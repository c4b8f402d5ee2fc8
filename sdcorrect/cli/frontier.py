"""`sdcorrect plot`, and the figure and table that it shares with `sdcorrect evaluate --frontier`."""

import os
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich import box
from rich.table import Column, Table
from rich.text import Text

from sdcorrect.cli.console import Debug, app, errors_for_people, note, out, tell, working
from sdcorrect.cli.options import path
from sdcorrect.errors import UsageError, counted, printable

if TYPE_CHECKING:
    from sdcorrect.evaluate.frontier import MeasuredFolder
    from sdcorrect.evaluate.results import Area, Frontier

FIGURES = (".png", ".pdf", ".svg")


@app.command()
def plot(
    folders: Annotated[
        list[Path],
        typer.Argument(
            metavar="OUT...",
            parser=path,
            help="Evaluated folders, or a folder of such folders.",
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            parser=path,
            help="File for the figure: .png, .pdf or .svg.",
            show_default="frontier.png beside the folders",
        ),
    ] = None,
    debug: Debug = False,
) -> None:
    """Draw structure over style, a curve over strengths per variant."""
    with errors_for_people(debug):
        if output and output.suffix.lower() not in FIGURES:
            raise UsageError(
                f"--output {printable(output)}: give the figure a name that ends in {', '.join(FIGURES)}"
            )
        check_installed("plot", {"evaluate": ("scipy",), "view": ("matplotlib",)})
        from sdcorrect.evaluate.evaluated import evaluated_folders, read_evaluated
        from sdcorrect.evaluate.frontier import check_alike

        measured = [read_evaluated(folder) for folder in evaluated_folders(folders)]
        check_alike([folder.outline for folder in measured])
        for folder in measured:
            if folder.not_evaluated:
                out_, what = printable(folder.outline.path), "; ".join(folder.not_evaluated)
                tell("not evaluated", f"{what}; run sdcorrect evaluate {out_}")
        show_frontier(measured, output)


def check_installed(command: str, extras: Mapping[str, Sequence[str]]) -> None:
    """Raises UsageError if a package of an extra is not installed."""
    for extra, names in extras.items():
        missing = [name for name in names if find_spec(name) is None]
        if missing:
            raise UsageError(
                f"{command} needs {', '.join(missing)}; run `pip install 'sdcorrect[{extra}]'`"
            )


def show_frontier(
    folders: "Sequence[MeasuredFolder]",
    plot: Path | None = None,
    show: Callable[..., None] = out.print,
) -> None:
    """Draw the curves of measured folders, and print the areas under them.

    Args:
        plot: the figure's file; the areas go beside it as JSON. None for frontier.png beside the
            folders, or inside a single folder.
        show: what prints them.

    Raises:
        SdcorrectError: the folders have no picture in common, or the files cannot be written.
    """
    from sdcorrect.evaluate.frontier import frontier
    from sdcorrect.evaluate.frontier_plot import write_plot
    from sdcorrect.evaluate.results import write_json

    beside = Path(os.path.commonpath([folder.outline.path.resolve() for folder in folders]))
    plot = plot or beside / "frontier.png"
    file = plot.with_suffix(".json")
    with working("drawing curves"):
        found = frontier(folders)
        write_json(found, file)
        write_plot(found, plot)
    show(_table(found), soft_wrap=False)
    many = f"{len(folders)} folders" if len(folders) > 1 else "one folder"
    show(
        f"{counted(found.pictures, 'picture')}, {many}. area: the share, 0 to 1, that a variant's "
        "curve dominates of the rectangle between the worst and the best means of all curves."
    )
    if found.left_out:
        left_out = counted(found.left_out, "picture is", "pictures are")
        note(f"{left_out} left out, which some variants lack")
    show(f"figure: {printable(plot)}  values: {printable(file)}")


def _table(found: "Frontier") -> Table:
    heads = ("area", "95 % interval", f"to {found.base}", "95 % interval")
    numbers = (Column(head, justify="right", no_wrap=True) for head in heads)
    table = Table(Column("", overflow="fold"), *numbers, box=box.SIMPLE_HEAD, pad_edge=False)
    for plane in found.planes:
        table.add_row(Text(f"{plane.kept} over {plane.style}", "bold"))
        for variant, area in plane.areas.items():
            table.add_row(f"  {variant}", *_cells(area))
        table.add_section()
    return table


def _cells(area: "Area") -> tuple[str, str, str, str]:
    own = f"{area.area:.3f}", f"{area.low:.3f}..{area.high:.3f}"
    if area.difference is None:
        return *own, "-", "-"
    return *own, f"{area.difference:+.3f}", f"{area.difference_low:+.3f}..{area.difference_high:+.3f}"
