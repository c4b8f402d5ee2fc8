"""Commands about the machine and the models on it."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from sdcorrect.cli.console import Debug, app, errors_for_people, out, working
from sdcorrect.cli.options import Device, Dtype, Model, Offline, Set, given, path
from sdcorrect.config import Job, load_job
from sdcorrect.errors import UsageError, printable
from sdcorrect.libraries import lean_imports

if TYPE_CHECKING:
    from sdcorrect.doctor import Finding

#: Settings that a job requires, and that matter here only in a job file.
PLACEHOLDERS = {"input.path": ".", "output.path": ".", "prompt": "any", "source_prompt": "any"}

OptionalJob = Annotated[Path | None, typer.Argument(metavar="JOB.yaml", parser=path, help="Job file.")]


def _job(config: Path | None, settings: dict[str, Any]) -> Job:
    """The job that `config` and `settings` give; without a file it needs no pictures."""
    return load_job(config, settings if config else PLACEHOLDERS | settings)


@app.command()
def doctor(
    context: typer.Context,
    config: OptionalJob = None,
    model: Model = None,
    set_: Set = None,
    device: Device = None,
    dtype: Dtype = None,
    offline: Offline = None,
    debug: Debug = False,
) -> None:
    """Show device, memory, versions and what would run.

    No weights are loaded.
    """
    with lean_imports():
        from sdcorrect.doctor import look_at_job, look_at_machine
        from sdcorrect.models import quiet_libraries

    with errors_for_people(debug):
        job = _job(config, given(locals(), context)) if config or set_ or model else None
        quiet_libraries()
        machine = look_at_machine(device or "auto", dtype or "auto", offline=bool(offline))
        if not _report(look_at_job(job) if job else machine):
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
    config: OptionalJob = None, model: Model = None, set_: Set = None, debug: Debug = False
) -> None:
    """Download what a job or a flag names, so that it can run --offline."""
    with lean_imports():
        from sdcorrect.models import find, quiet_libraries

    with errors_for_people(debug):
        if not (config or model or set_):
            raise UsageError("give a job, or the model to download, such as --model owner/name")
        job = _job(config, given(locals()) | {"offline": False})
        quiet_libraries()
        with working(f"downloading what {config or model} names"):
            checkpoint, adapters = find(job)
        for file in dict.fromkeys((checkpoint.path, checkpoint.config, *adapters.paths)):
            out.print(printable(file))
