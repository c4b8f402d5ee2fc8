"""Commands that read an output folder."""

import json
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from sdcorrect.cli.console import (
    SOME_FAILED,
    Debug,
    app,
    errors_for_people,
    out,
    print_failures,
    print_gone,
)
from sdcorrect.cli.options import path
from sdcorrect.cli.talk import Events, Json, LogLevel, Quiet, Verbose, facts_of, talking
from sdcorrect.errors import counted, printable

if TYPE_CHECKING:
    from sdcorrect.output.survey import Progress, Survey

Out = Annotated[Path, typer.Argument(metavar="OUT", parser=path, help="Output folder of a job.")]


@app.command()
def status(
    folder: Out,
    quiet: Quiet = False,
    verbose: Verbose = False,
    log_level: LogLevel = None,
    json_: Json = False,
    debug: Debug = False,
) -> None:
    """Show what is done, failed and remaining of a job, by shard."""
    from sdcorrect.output.survey import Progress, survey

    with errors_for_people(debug), talking(quiet, verbose, log_level, json_) as events:
        found = survey(folder)
        several = found.shards if len(found.shards) > 1 else {}
        # with more shards than pictures, some are empty
        rows = {name: progress for name, progress in several.items() if progress != Progress()}
        _tell_of(found, folder, events, rows)
        _show(found, {**rows, "total": found.total()}, events)
        _name_problems(found, events)


def _show(found: "Survey", rows: "Mapping[str, Progress]", events: Events) -> None:
    table = Table("shard", "done", "failed", "left out", "remaining")
    for name, progress in rows.items():
        counts = (progress.done, progress.failed, progress.filtered, progress.remaining)
        table.add_row(name, *map(str, counts))
    events.show(table, soft_wrap=False)
    variants = ", ".join(variant.name for variant in found.job.job.expanded)
    events.show(f"each picture counts once per variant ({variants})")
    for variant, progress in found.earlier.items():
        events.show(
            f"not counted, of an earlier command: {variant}, {progress.done} done, "
            f"{progress.failed} failed"
        )


@app.command()
def merge(
    folder: Out,
    quiet: Quiet = False,
    verbose: Verbose = False,
    log_level: LogLevel = None,
    json_: Json = False,
    debug: Debug = False,
) -> None:
    """Join the records of all shards into job.json.

    It fails, naming them, if pictures are missing.
    """
    from sdcorrect.output.survey import merge

    with errors_for_people(debug), talking(quiet, verbose, log_level, json_) as events:
        found = merge(folder)
        total = found.total()
        _tell_of(found, folder, events)
        events.show(
            f"{printable(folder / 'job.json')}: {total.done} done, {total.failed} failed, "
            f"{total.filtered} left out, from {counted(len(found.shards), 'shard')}"
        )
        _name_problems(found, events)
        if found.failures:
            raise typer.Exit(SOME_FAILED)


def _tell_of(
    found: "Survey", folder: Path, events: Events, shards: "Mapping[str, Progress] | None" = None
) -> None:
    variants = [variant.name for variant in found.job.job.expanded]
    events.tell("started", folder=str(folder), pictures=found.job.pictures, variants=variants)
    for name, progress in (shards or {}).items():
        events.tell("shard", shard=name, **vars(progress))
    for variant, progress in found.earlier.items():
        events.tell("earlier", variant=variant, done=progress.done, failed=progress.failed)
    for record in (*found.done, *found.failures):
        events.tell(record.status, **facts_of(record))
    events.end |= vars(found.total())


def _name_problems(found: "Survey", events: Events) -> None:
    if not events.shown:
        print_failures(found.failures)
    print_gone(found.gone)


class Schema(str, Enum):
    job = "job"
    record = "record"
    evaluation = "evaluation"
    frontier = "frontier"


@app.command()
def schema(
    of: Annotated[
        Schema,
        typer.Argument(
            metavar="FILE",
            help="The file to describe; record is a line of records/*.jsonl.",
        ),
    ] = Schema.job,
) -> None:
    """Print the JSON Schema of a file that sdcorrect writes."""
    from pydantic import TypeAdapter

    from sdcorrect.evaluate.results import Evaluation, Frontier
    from sdcorrect.output.records import RECORD, JobFile

    models: dict[Schema, TypeAdapter[Any]] = {
        Schema.job: TypeAdapter(JobFile),
        Schema.record: RECORD,
        Schema.evaluation: TypeAdapter(Evaluation),
        Schema.frontier: TypeAdapter(Frontier),
    }
    content = models[of].json_schema(mode="serialization")
    dialect = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    out.print(json.dumps({**dialect, **content}, indent=2))
