"""`sdcorrect translate`: run a job, follow it, and say what came of it."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from sdcorrect.cli.console import Debug, app, err, errors_for_people, out
from sdcorrect.config import Job, load_job, parse_set

if TYPE_CHECKING:
    from sdcorrect.batch.runner import Run

#: The exit code of a job that is done but for some pictures that failed.
SOME_FAILED = 3


@app.command()
def translate(
    input_: Annotated[
        Path | None, typer.Argument(metavar="[INPUT]", help="The folder of pictures.")
    ] = None,
    config: Annotated[Path | None, typer.Option("--config", "-c", help="The job, a YAML file.")] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="The output folder.")] = None,
    prompt: Annotated[str | None, typer.Option("--prompt", "-p", help="What to turn them into.")] = None,
    model: Annotated[
        str | None, typer.Option("--model", help="mini, a diffusers folder or a hub id.")
    ] = None,
    method: Annotated[
        str | None, typer.Option("--method", help="A recipe; see `sdcorrect recipes`.")
    ] = None,
    strength: Annotated[
        float | None, typer.Option("--strength", help="How far to go from the source, 0 to 1.")
    ] = None,
    steps: Annotated[int | None, typer.Option("--steps", help="Sampling steps at strength 1.")] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="Another seed, other noise.")] = None,
    batch_size: Annotated[int | None, typer.Option("--batch-size", help="Pictures at a time.")] = None,
    device: Annotated[str | None, typer.Option("--device", help="auto, cpu, cuda, cuda:1, mps.")] = None,
    dtype: Annotated[
        str | None, typer.Option("--dtype", help="auto, float32, float16, bfloat16.")
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Any setting, such as output.format=jpg."),
    ] = None,
    limit: Annotated[int | None, typer.Option("--limit", help="Only the first so many.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be done; load no model.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Redo what the output folder has.")
    ] = False,
    debug: Debug = False,
) -> None:
    """Translate a folder of pictures."""
    flags = {
        "input.path": input_ and str(input_),
        "output.path": output and str(output),
        "prompt": prompt,
        "model": model,
        "method": method,
        "strength": strength,
        "steps": steps,
        "seed": seed,
        "batch_size": batch_size,
        "device": device,
        "dtype": dtype,
        "limit": limit,
    }
    with errors_for_people(debug):
        overrides = parse_set(set_ or []) | {k: v for k, v in flags.items() if v is not None}
        job = load_job(config, overrides)
        if dry_run:
            _show_plan(job)
        else:
            _translate(job, overwrite)


def _show_plan(job: Job) -> None:
    from sdcorrect.batch.inputs import find_items

    items = find_items(job)
    out.print(json.dumps(job.model_dump(mode="json"), indent=2), soft_wrap=True, markup=False)
    names = ", ".join(recipe.name for recipe in job.recipes)
    out.print(f"would translate {len(items)} pictures by {names} into {job.output.path}")


def _translate(job: Job, overwrite: bool) -> None:
    from sdcorrect.batch.runner import Run
    from sdcorrect.models import load, quiet_libraries

    quiet_libraries()
    with err.status(f"loading {job.model}"):
        model = load(job)
    run = Run(job, model, overwrite=overwrite)
    failures = _follow(run)
    _summarize(run, failures)
    if failures:
        raise typer.Exit(SOME_FAILED)


def _follow(run: "Run") -> list[dict[str, Any]]:
    """Work through `run` under a progress bar, or in plain lines where nobody watches; its failures."""
    failures = []
    total = len(run.items) * len(run.recipes)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=err, disable=not err.is_terminal) as progress:
        task = progress.add_task("translating", total=total)
        for done, record in enumerate(run.records(), 1):
            progress.update(task, completed=done)
            if record is None:
                continue
            if record["status"] == "failed":
                failures.append(record)
            if not err.is_terminal:
                line = f"{done}/{total} {record['status']} {record['variant']}/{record['input']['path']}"
                err.print(line, markup=False)
    return failures


def _summarize(run: "Run", failures: list[dict[str, Any]]) -> None:
    for record in failures:
        path = escape(record["input"]["path"])
        err.print(f"[red]failed:[/] {path} ({record['variant']}): {escape(record['error'])}")
    table = Table("variant", "translated", "done before", "failed", "U-Net evaluations a picture")
    for variant in run.recipes:
        tally = run.tally[variant]
        table.add_row(
            variant,
            str(tally.done),
            str(tally.before),
            str(tally.failed),
            str(tally.evaluations or "-"),
        )
    out.print(table)
    if not any(tally.done or tally.failed for tally in run.tally.values()):
        out.print("nothing to do: all was done before")
    out.print(
        f"pictures: {run.job.output.path}/<variant>/  settings and counts: job.json", soft_wrap=True
    )
