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
from sdcorrect.cli.talk import Events, Json, events_for_programs, facts_of
from sdcorrect.errors import printable

if TYPE_CHECKING:
    from sdcorrect.output.survey import Progress, Survey

Out = Annotated[Path, typer.Argument(metavar="OUT", parser=path, help="Output folder of a job.")]


@app.command()
def status(folder: Out, json_: Json = False, debug: Debug = False) -> None:
    """Show how many pictures of a job are done, failed and remaining, by shard."""
    from sdcorrect.output.survey import Progress, survey

    with errors_for_people(debug), events_for_programs(json_) as events:
        found = survey(folder)
        several = found.shards if len(found.shards) > 1 else {}
        # with more shards than pictures, some are empty
        rows = {name: progress for name, progress in several.items() if progress != Progress()}
        for name, progress in rows.items():
            events.tell("shard", shard=name, **vars(progress))
        _tell_of(found, events)
        if not events.shown:
            _show(found, {**rows, "total": found.total()})
            print_failures(found.failures)
        print_gone(found.gone)


def _show(found: "Survey", rows: "Mapping[str, Progress]") -> None:
    table = Table("shard", "done", "failed", "left out", "remaining")
    for name, progress in rows.items():
        counts = (progress.done, progress.failed, progress.filtered, progress.remaining)
        table.add_row(name, *map(str, counts))
    out.print(table, soft_wrap=False)
    variants = ", ".join(variant.name for variant in found.job.job.expanded)
    out.print(f"each picture counts once per variant ({variants})")


@app.command()
def merge(folder: Out, json_: Json = False, debug: Debug = False) -> None:
    """Join the records of all shards into job.json; fail if any picture is missing."""
    from sdcorrect.output.survey import merge

    with errors_for_people(debug), events_for_programs(json_) as events:
        found = merge(folder)
        total = found.total()
        _tell_of(found, events)
        if not events.shown:
            out.print(
                f"{printable(folder / 'job.json')}: {total.done} done, {total.failed} failed, "
                f"{total.filtered} left out, from {len(found.shards)} shards"
            )
            print_failures(found.failures)
        print_gone(found.gone)
        if found.failures:
            raise typer.Exit(SOME_FAILED)


def _tell_of(found: "Survey", events: Events) -> None:
    for record in found.failures:
        events.tell(record.status, **facts_of(record))
    events.end |= vars(found.total())


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
            metavar="[job|record|evaluation|frontier]",
            help="The file to describe; record is a line of records/*.jsonl.",
        ),
    ] = Schema.job,
) -> None:
    """Print the JSON Schema of job.json, a record, evaluation.json or frontier.json."""
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
