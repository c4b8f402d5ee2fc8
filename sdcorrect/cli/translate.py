"""`sdcorrect translate`: run a job, follow it, and say what came of it."""

import json
import os
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Column, Table

from sdcorrect.cli import options
from sdcorrect.cli.console import (
    SOME_FAILED,
    Debug,
    app,
    err,
    errors_for_people,
    out,
    print_failures,
    print_gone,
    tell,
    working,
)
from sdcorrect.cli.look import look, tell_left_out
from sdcorrect.cli.progress import progress_bar
from sdcorrect.cli.signals import Stop, stop_on_signals
from sdcorrect.config import Job, load_job, parse_set
from sdcorrect.errors import printable

if TYPE_CHECKING:
    from sdcorrect.batch.runner import ShardRun
    from sdcorrect.output.records import Record
    from sdcorrect.output.shards import Shard


@app.command()
def translate(
    input_: Annotated[
        str | None,
        typer.Argument(
            metavar="[INPUT]",
            help="A folder, a picture, a pattern such as '**/*.jpg', or a list: .txt, .csv, .jsonl.",
        ),
    ] = None,
    config: options.Config = None,
    output: Annotated[
        str | None, typer.Option("--output", "-o", metavar="FOLDER", help="The output folder.")
    ] = None,
    prompt: Annotated[str | None, typer.Option("--prompt", "-p", help="What to turn them into.")] = None,
    model: options.Model = None,
    method: Annotated[
        str | None, typer.Option("--method", help="A recipe; see `sdcorrect recipes`.")
    ] = None,
    strength: options.Strength = None,
    steps: options.Steps = None,
    seed: options.Seed = None,
    batch_size: Annotated[int | None, typer.Option("--batch-size", help="Pictures at a time.")] = None,
    device: options.Device = None,
    dtype: options.Dtype = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Any setting, such as output.format=jpg."),
    ] = None,
    limit: options.Limit = None,
    num_shards: Annotated[
        int | None, typer.Option("--num-shards", min=1, help="Divide the pictures among so many runs.")
    ] = None,
    shard_index: Annotated[
        int | None, typer.Option("--shard-index", min=0, help="Which of them this one is, from 0.")
    ] = None,
    offline: options.Offline = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be done; load no model.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Redo what the output folder has.")
    ] = False,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Try again what the model failed at before.")
    ] = False,
    fail_fast: Annotated[
        bool, typer.Option("--fail-fast", help="Stop at the first picture that fails.")
    ] = False,
    no_embed_metadata: Annotated[
        bool, typer.Option("--no-embed-metadata", help="Leave prompt and settings out of the pictures.")
    ] = False,
    debug: Debug = False,
) -> None:
    """Translate a folder of pictures."""
    flags = {
        "input.path": input_,
        "output.path": output,
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
        "offline": offline or None,
        "output.embed_metadata": False if no_embed_metadata else None,
    }
    with errors_for_people(debug):
        overrides = parse_set(set_ or []) | {k: v for k, v in flags.items() if v is not None}
        job = load_job(config, overrides)
        if dry_run:
            _show_plan(job, num_shards, shard_index)
            return
        with stop_on_signals() as stop:
            _translate(
                job,
                num_shards,
                shard_index,
                stop,
                overwrite=overwrite,
                retry_failed=retry_failed,
                fail_fast=fail_fast,
            )


def _choose_shard(job: Job, num_shards: int | None, shard_index: int | None, claim: bool) -> "Shard":
    from sdcorrect.output.shards import choose_shard

    shard = choose_shard(num_shards, shard_index, job.output.path, os.environ, claim=claim)
    if shard.count > 1 and num_shards is None:
        array = os.environ.get("SLURM_ARRAY_JOB_ID", "?")
        task = f"task {os.environ['SLURM_ARRAY_TASK_ID']} of array {array}"
        tell(
            "note",
            f"shard {shard} alone, as SLURM's variables say ({task}); --num-shards 1 takes all pictures",
        )
    return shard


def _show_plan(job: Job, num_shards: int | None, shard_index: int | None) -> None:
    found = look(job)
    shard = _choose_shard(job, num_shards, shard_index, claim=False)
    tell_left_out(found)
    items = [item for item in found.items if shard.has(item.key)]
    out.print(json.dumps(job.model_dump(mode="json"), indent=2))
    names = ", ".join(recipe.name for recipe in job.recipes)
    part = f" (shard {shard})" if shard.count > 1 else ""
    folder = printable(job.output.path)
    out.print(f"would translate {len(items)} pictures{part} by {names} into {folder}")


def _translate(
    job: Job, num_shards: int | None, shard_index: int | None, stop: Stop, **options: bool
) -> None:
    found = look(job)
    shard = _choose_shard(job, num_shards, shard_index, claim=True)
    tell_left_out(found)
    # torch takes seconds, which no error above should wait for
    from sdcorrect.batch.runner import ShardRun
    from sdcorrect.models import load, quiet_libraries

    quiet_libraries()
    with working(f"loading {job.model}"):
        model = load(job)
    run = ShardRun(job, model, shard, check=stop.check, items=found.items, **options)
    stop.heeded = True
    failures = _follow(run)
    _summarize(run, failures)
    if failures:
        raise typer.Exit(SOME_FAILED)


def _follow(run: "ShardRun") -> list["Record"]:
    """Work through `run` under a progress bar, or in plain lines where nobody watches; its failures."""
    failures: list[Record] = []
    total = len(run.items) * len(run.tally)
    with progress_bar() as progress:
        task = progress.add_task("translating", total=total)
        for done, record in enumerate(run.records(), 1):
            progress.update(task, completed=done)
            if record is None:
                continue
            if record.status == "failed":
                failures.append(record)
            if not err.is_terminal:
                path = printable(record.input.path)
                err.print(f"{done}/{total} {record.status} {record.variant}/{path}")
    return failures


def _summarize(run: "ShardRun", failures: list["Record"]) -> None:
    print_failures(failures)
    table = Table(
        Column("variant", overflow="fold"),
        "translated",
        "done before",
        "failed",
        "left out",
        "U-Net evaluations a picture",
    )
    for variant, tally in run.tally.items():
        counts = (tally.done, tally.before, tally.failed, tally.filtered, tally.evaluations or "-")
        table.add_row(variant, *map(str, counts))
    out.print(table, soft_wrap=False)
    if not run.recorder.wrote:
        out.print("nothing to do: all was done before")
    print_gone(run.gone())
    folder = printable(run.job.output.path)
    out.print(f"pictures: {folder}/<variant>/  settings and counts: job.json")
