"""`sdcorrect translate`: run a job, show its progress, and sum up the results."""

import json
import os
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sdcorrect.cli import options
from sdcorrect.cli.console import (
    MOST_ALIKE,
    SOME_FAILED,
    Debug,
    Name,
    app,
    errors_for_people,
    figures,
    note,
    out,
    print_failures,
    print_gone,
    tell,
    verbosity,
)
from sdcorrect.cli.devices import DevicesRun
from sdcorrect.cli.follow import Follower
from sdcorrect.cli.look import load_model, look, tell_left_out
from sdcorrect.cli.signals import Stop, stop_on_signals
from sdcorrect.cli.talk import Events, Json, LogLevel, Quiet, Verbose, talking
from sdcorrect.config import Job, load_job
from sdcorrect.errors import UsageError, counted, printable
from sdcorrect.libraries import lean_imports

if TYPE_CHECKING:
    from sdcorrect.batch.runner import ShardRun
    from sdcorrect.output.records import Record
    from sdcorrect.output.shards import Shard


@app.command()
def translate(
    context: typer.Context,
    input_: Annotated[
        str | None,
        typer.Argument(
            metavar="INPUT",
            help="A folder, a picture, a pattern such as '**/*.jpg', or a list (.txt, .csv, .jsonl).",
        ),
    ] = None,
    output: Annotated[
        str | None,
        options.option(
            options.PICTURES,
            "--output",
            "-o",
            metavar="FOLDER",
            help="Output folder; pictures go to FOLDER/<variant>/<same name>.",
        ),
    ] = None,
    limit: options.Limit = None,
    size: options.Size = None,
    format_: options.Format = None,
    prompt: options.Prompt = None,
    negative_prompt: options.NegativePrompt = None,
    mask: options.Mask = None,
    method: options.Method = None,
    variants: options.Variants = None,
    strength: Annotated[
        Any,
        options.like(
            options.Strength,
            metavar="NUMBER,...",
            help="How far to go from the source, up to 1; several make a sweep: 0.5,0.8.",
        ),
    ] = None,
    steps: options.Steps = None,
    guidance_scale: options.GuidanceScale = None,
    seed: Annotated[
        Any,
        options.like(
            options.Seed, metavar="NUMBER,...", help="Random seed; several make a sweep: 0,1,2."
        ),
    ] = None,
    model: options.Model = None,
    loras: options.Loras = None,
    vae: options.Vae = None,
    controlnets: options.Controlnets = None,
    device: options.Device = None,
    devices: Annotated[
        str | None,
        options.option(
            options.MODEL,
            "--devices",
            metavar="all|0,1|NAMES",
            help="Run on several devices, one process each.",
        ),
    ] = None,
    dtype: options.Dtype = None,
    offline: options.Offline = None,
    config: options.Config = None,
    set_: options.Set = None,
    batch_size: options.BatchSize = None,
    num_shards: options.NumShards = None,
    shard_index: options.ShardIndex = None,
    dry_run: Annotated[
        bool,
        options.option(
            options.RUN, "--dry-run", help="Print the job and count its pictures; load no model."
        ),
    ] = False,
    overwrite: Annotated[
        bool,
        options.option(
            options.RUN,
            "--overwrite",
            help="Translate pictures again that the output folder already has.",
        ),
    ] = False,
    retry_failed: Annotated[
        bool, options.option(options.RUN, "--retry-failed", help="Retry pictures that failed before.")
    ] = False,
    fail_fast: Annotated[
        bool, options.option(options.RUN, "--fail-fast", help="Stop at the first picture that fails.")
    ] = False,
    no_embed_metadata: Annotated[
        bool,
        options.option(
            options.PICTURES,
            "--no-embed-metadata",
            help="Keep the prompt and settings out of the pictures' metadata.",
        ),
    ] = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    log_level: LogLevel = None,
    json_: Json = False,
    debug: Debug = False,
) -> None:
    """Translate a folder of pictures."""
    with errors_for_people(debug), talking(quiet, verbose, log_level, json_) as events:
        bare = {"output.embed_metadata": False} if no_embed_metadata else {}
        job = load_job(config, options.given(locals(), context) | bare)
        if dry_run:
            _show_plan(job, num_shards, shard_index)
            return
        with stop_on_signals() as stop:
            how = {"overwrite": overwrite, "retry_failed": retry_failed, "fail_fast": fail_fast}
            _translate(job, num_shards, shard_index, devices, stop, events, **how)


def _choose_shard(job: Job, num_shards: int | None, shard_index: int | None, claim: bool) -> "Shard":
    from sdcorrect.output.shards import choose_shard

    shard = choose_shard(num_shards, shard_index, job.output.path, os.environ, claim=claim)
    if shard.count > 1 and num_shards is None:
        note(f"runs only shard {shard}, because {_narrowed(os.environ)}; --num-shards 1 runs all")
    return shard


def _narrowed(environment: Mapping[str, str]) -> str:
    """Which launcher's variables give this process only a part of the pictures."""
    from sdcorrect.output.shards import Place

    told = []
    if "SLURM_ARRAY_TASK_ID" in environment:
        array = environment.get("SLURM_ARRAY_JOB_ID", "?")
        told.append(
            f"SLURM's variables say so (task {environment['SLURM_ARRAY_TASK_ID']} of array {array})"
        )
    if place := Place.from_environment(environment):
        told.append(f"{place.launcher}'s variables say so (process {place.rank} of {place.count})")
    return " and ".join(told)


def _show_plan(job: Job, num_shards: int | None, shard_index: int | None) -> None:
    found = look(job)
    shard = _choose_shard(job, num_shards, shard_index, claim=False)
    tell_left_out(found)
    pictures = sum(map(shard.has, found.keys))
    out.print(json.dumps(job.model_dump(mode="json"), indent=2))
    names = ", ".join(variant.name for variant in job.expanded)
    part = f" (shard {shard})" if shard.count > 1 else ""
    folder = printable(job.output.path)
    out.print(f"would translate {counted(pictures, 'picture')}{part} with {names} into {folder}")


def _translate(
    job: Job,
    num_shards: int | None,
    shard_index: int | None,
    devices: str | None,
    stop: Stop,
    events: Events,
    **options: bool,
) -> None:
    from sdcorrect.output.shards import Place

    place = Place.from_environment(os.environ)
    if devices and place:
        raise UsageError(f"--devices: {place.launcher} gives each process its own; remove this flag")
    found = look(job)
    shard = _choose_shard(job, num_shards, shard_index, claim=True)
    tell_left_out(found)
    # importing torch takes seconds; the errors above should not wait for it
    with lean_imports():
        from sdcorrect.batch.runner import ShardRun
        from sdcorrect.models import choose_devices, device_of

    run: ShardRun | DevicesRun
    if devices:
        run = DevicesRun(job, choose_devices(devices), shard, found, stop, **options)
    else:
        if place and job.device == "auto" and num_shards is None:
            job = job.model_copy(update={"device": device_of(place.local_rank)})
        model = load_model(job)
        warn = partial(tell, "warning")
        run = ShardRun(job, model, shard, check=stop.check, warn=warn, found=found, **options)
    stop.heeded = True
    failures = _follow(run, events)
    if not events.shown:
        _summarize(run, failures)
    if failures:
        raise typer.Exit(SOME_FAILED)


def _follow(run: "ShardRun | DevicesRun", events: Events) -> list["Record"]:
    """Work through `run` and show its progress; return the failures."""
    failures: list[Record] = []
    follower = Follower(run, events)
    with follower.following():
        for record in run.records():
            if record is not None:
                follower.tell(record)
                if record.status == "failed":
                    failures.append(record)
    return failures


def _summarize(run: "ShardRun | DevicesRun", failures: list["Record"]) -> None:
    print_failures(failures, MOST_ALIKE)
    if verbosity.quiet:
        return
    heads = ("translated", "done\nbefore", "failed", "left\nout", "U-Net\nevaluations\na picture")
    table = figures("variant", heads)
    for variant, tally in run.tally.items():
        counts = (tally.done, tally.before, tally.failed, tally.filtered, tally.evaluations or "-")
        table.add_row(Name(variant), *map(str, counts))
    out.print(table, soft_wrap=False)
    if not run.wrote:
        out.print("nothing to do: everything was done before")
    print_gone(run.gone())
    folder = printable(run.job.output.path)
    out.print(f"pictures: {folder}/<variant>/  settings and counts: {folder}/job.json")
