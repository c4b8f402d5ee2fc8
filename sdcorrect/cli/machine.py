"""Commands about the machine and the models on it."""

from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from sdcorrect.cli.console import Debug, app, errors_for_people, out, working
from sdcorrect.cli.look import problems_of_pictures
from sdcorrect.cli.options import (
    Controlnets,
    Device,
    Dtype,
    Loras,
    Model,
    Offline,
    Set,
    Vae,
    given,
    path,
)
from sdcorrect.config import Job, load_job
from sdcorrect.errors import UsageError, printable
from sdcorrect.libraries import lean_imports

if TYPE_CHECKING:
    from sdcorrect.doctor import Finding

#: Settings that a job requires, and that matter here only in a job file.
PLACEHOLDERS = {"input.path": ".", "output.path": ".", "prompt": "any", "source_prompt": "any"}
#: Settings that say where a job would run, not what it is.
OF_MACHINE = {"device", "dtype", "offline"}

OptionalJob = Annotated[Path | None, typer.Argument(metavar="JOB.yaml", parser=path, help="Job file.")]


def _job(config: Path | None, settings: dict[str, Any]) -> Job:
    """The job that `config` and `settings` give; without a file it needs no pictures."""
    return load_job(config, settings if config else PLACEHOLDERS | settings)


@app.command()
def doctor(
    context: typer.Context,
    config: OptionalJob = None,
    model: Model = None,
    loras: Loras = None,
    vae: Vae = None,
    controlnets: Controlnets = None,
    set_: Set = None,
    device: Device = None,
    dtype: Dtype = None,
    offline: Offline = None,
    debug: Debug = False,
) -> None:
    """Show device, memory, versions and what would run.

    Every file of a job is checked. No weights are loaded.
    """
    with errors_for_people(debug):
        settings = given(locals(), context)
        with lean_imports():
            from sdcorrect.doctor import Finding, look_at_job, look_at_machine
            from sdcorrect.models import quiet_libraries
        quiet_libraries()
        findings = look_at_machine(device or "auto", dtype or "auto", offline=bool(offline))
        if config or settings.keys() - OF_MACHINE:
            job = _job(config, settings)
            wrong = problems_of_pictures(job) if config else []
            findings = chain(look_at_job(job), (Finding("pictures", line, ok=False) for line in wrong))
        if not _report(findings):
            raise UsageError("lines marked with ! would keep a job from running")


def _report(findings: "Iterator[Finding]") -> bool:
    """Print a line for each finding; return whether all is well."""
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column()
    table.add_column(overflow="fold")  # paths are shown in full
    all_well = True
    for finding in findings:
        mark = "" if finding.ok else "! "
        table.add_row(finding.what, Text.assemble((mark, "red"), printable(finding.value)))
        all_well &= finding.ok
    out.print(table, soft_wrap=False)
    return all_well


@app.command()
def prefetch(
    config: OptionalJob = None,
    model: Model = None,
    loras: Loras = None,
    vae: Vae = None,
    controlnets: Controlnets = None,
    set_: Set = None,
    debug: Debug = False,
) -> None:
    """Download what a job or a flag names, so that it can run --offline."""
    with errors_for_people(debug):
        settings = given(locals())
        with lean_imports():
            from sdcorrect.models import find, quiet_libraries
        if not (config or settings):
            raise UsageError("give a job, or the model to download, such as --model owner/name")
        job = _job(config, settings | {"offline": False})
        quiet_libraries()
        with working(f"downloading what {config or 'the command line'} names"):
            checkpoint, adapters = find(job)
        for file in dict.fromkeys((checkpoint.path, checkpoint.config, *adapters.paths)):
            out.print(printable(file))
