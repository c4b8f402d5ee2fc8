"""`sdcorrect report`: a page and a contact sheet of a job's pictures."""

from pathlib import Path
from typing import Annotated

import typer

from sdcorrect.cli.console import Debug, app, errors_for_people, out, tell
from sdcorrect.cli.folder import Out
from sdcorrect.cli.options import path
from sdcorrect.cli.progress import track
from sdcorrect.errors import UsageError, counted, printable


@app.command()
def report(
    folder: Out,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", parser=path, help="HTML file.", show_default="OUT/report.html"),
    ] = None,
    embed: Annotated[
        bool, typer.Option("--embed", help="Embed the pictures in the page, large PNGs as WebP.")
    ] = False,
    grid: Annotated[
        Path | None, typer.Option("--grid", metavar="PNG", parser=path, help="Draw a contact sheet too.")
    ] = None,
    columns: Annotated[
        int | None, typer.Option("--columns", min=1, help="Pictures per row of the contact sheet.")
    ] = None,
    limit: Annotated[
        int | None, typer.Option("--limit", min=1, help="Show only the first N pictures.")
    ] = None,
    debug: Debug = False,
) -> None:
    """Show outputs beside their sources, on one HTML page."""
    with errors_for_people(debug):
        page = _named(output or folder / "report.html", "--output", ".html")
        sheet = grid and _named(grid, "--grid", ".png")
        try:
            from sdcorrect.report.cards import Cards, lost_sources
            from sdcorrect.report.gallery import read_gallery
            from sdcorrect.report.page import write_report
            from sdcorrect.report.sheet import write_sheet
        except ImportError as error:
            raise UsageError(
                f"report needs {error.name}, which is not installed; run `pip install 'sdcorrect[view]'`"
            ) from None
        gallery = read_gallery(folder, limit)
        pictures = Cards(gallery, page.parent, embed=embed)
        cards = list(track(pictures, "reading", len(gallery.entries)))
        for warning in (*gallery.warnings, *lost_sources(cards)):
            tell("warning", warning)
        write_report(gallery, cards, page)
        size = page.stat().st_size / 1e6
        out.print(f"{printable(page)}: {counted(len(cards), 'picture')}, {size:.1f} MB")
        if sheet:
            write_sheet(gallery, sheet, columns)
            out.print(f"{printable(sheet)}: a contact sheet")


def _named(file: Path, option: str, suffix: str) -> Path:
    if file.suffix.lower() != suffix:
        raise UsageError(f"{option} {printable(file)}: the name must end in {suffix}")
    return file
