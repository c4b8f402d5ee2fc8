"""`sdcorrect init`: write a job to start from."""

from pathlib import Path
from typing import Annotated

import typer

from sdcorrect.cli.console import Debug, app, errors_for_people, out
from sdcorrect.cli.options import path
from sdcorrect.errors import UsageError, printable
from sdcorrect.output.files import writing
from sdcorrect.tasks import starting_job, tasks


@app.command()
def init(
    task: Annotated[
        str,
        typer.Argument(metavar="TASK", help=f"The task: {', '.join(tasks())}.", autocompletion=tasks),
    ] = "quickstart",
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            parser=path,
            help="File for the job.",
            show_default="TASK.yaml",
        ),
    ] = None,
    debug: Debug = False,
) -> None:
    """Write a job file to start from, with a comment on every key."""
    with errors_for_people(debug):
        content = starting_job(task)
        file = output or Path(f"{task}.yaml")
        if file.exists():
            raise UsageError(f"{printable(file)} exists already; choose another file with -o")
        with writing(file, ""), file.open("x", encoding="utf-8") as stream:
            stream.write(content)
        out.print(
            f"wrote {printable(file)}, a job for {task}; set input.path to your pictures, then check "
            f"it with `sdcorrect validate {printable(file)}`"
        )
