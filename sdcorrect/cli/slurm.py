"""`sdcorrect slurm`: write the script that runs a job as a SLURM array."""

import io
import shutil
import sys
from pathlib import Path
from typing import Annotated

import typer

from sdcorrect.batch.slurm import render_array
from sdcorrect.cli.console import Debug, app, errors_for_people, out
from sdcorrect.cli.options import path
from sdcorrect.config import load_job


@app.command()
def slurm(
    config: Annotated[
        Path, typer.Option("--config", "-c", metavar="JOB.yaml", parser=path, help="Job file (YAML).")
    ],
    tasks: Annotated[int, typer.Option("--tasks", min=1, help="Number of tasks to split the job into.")],
    time: Annotated[
        str | None, typer.Option("--time", metavar="LIMIT", help="Limit of each task, such as 4:00:00.")
    ] = None,
    gres: Annotated[
        str | None, typer.Option("--gres", metavar="LIST", help="Resources of each task, such as gpu:1.")
    ] = None,
    partition: Annotated[
        str | None, typer.Option("--partition", metavar="NAME", help="Partition to run in.")
    ] = None,
    account: Annotated[
        str | None, typer.Option("--account", metavar="NAME", help="Account to charge.")
    ] = None,
    setup: Annotated[
        list[str] | None,
        typer.Option(
            "--setup",
            metavar="COMMAND",
            help="Command that each task runs first, such as 'module load cuda'; may be repeated.",
        ),
    ] = None,
    debug: Debug = False,
) -> None:
    """Print a script that runs a job as a SLURM array.

    Write it to a file: sdcorrect slurm ... > job.sbatch
    """
    with errors_for_people(debug):
        load_job(config, {})
        given = {"time": time, "gres": gres, "partition": partition, "account": account}
        options = {name: value for name, value in given.items() if value is not None}
        script = render_array(_program(), str(config), tasks, options, setup or ())
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="surrogateescape")  # paths may be no valid text
    out.file.write(script)
    out.file.flush()


def _program() -> str:
    """How tasks call this program: by name if the name is found on PATH, else by its full path."""
    program = Path(sys.argv[0]).absolute()
    found = shutil.which(program.name)
    return program.name if found and Path(found).absolute() == program else str(program)
