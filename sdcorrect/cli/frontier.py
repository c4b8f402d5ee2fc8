"""What `sdcorrect evaluate --frontier` writes and shows."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich import box
from rich.table import Column, Table
from rich.text import Text

from sdcorrect.cli.console import out, tell, working
from sdcorrect.errors import printable

if TYPE_CHECKING:
    from sdcorrect.evaluate.evaluator import Evaluator
    from sdcorrect.evaluate.results import Area, Frontier, Measured


def show_frontier(runs: "Mapping[Path, Evaluator]", rows: "Mapping[Path, Sequence[Measured]]") -> None:
    """Draw the curves of the folders that `runs` measured, and tell the areas under them.

    Raises:
        SdcorrectError: the folders have no picture in common, or the files cannot be written.
    """
    from sdcorrect.evaluate.frontier import MeasuredFolder, frontier
    from sdcorrect.evaluate.frontier_plot import write_plot
    from sdcorrect.evaluate.results import write_json

    beside = Path(os.path.commonpath([path.resolve() for path in runs]))
    file, plot = beside / "frontier.json", beside / "frontier.png"
    with working("drawing curves"):
        found = frontier([MeasuredFolder(path, run, rows[path]) for path, run in runs.items()])
        write_json(found, file)
        write_plot(found, plot)
    out.print(_table(found), soft_wrap=False)
    out.print(
        f"{found.pictures} pictures, {len(runs)} folders. area: what a variant's curve over its "
        "strengths dominates of the square between the worst and the best mean of all curves, 0 to 1."
    )
    if found.left_out:
        tell("note", f"left out, for not all variants have them: {found.left_out} pictures")
    out.print(f"figures: {printable(file)}  curves: {printable(plot)}")


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
