"""`sdcorrect evaluate`: measure the pictures that a job made."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from sdcorrect.cli.console import Debug, Name, app, errors_for_people, figures, note, tell, working
from sdcorrect.cli.frontier import check_installed, show_frontier
from sdcorrect.cli.options import Device, Offline, names, path, source
from sdcorrect.cli.progress import following
from sdcorrect.cli.talk import Events, Json, LogLevel, Quiet, Verbose, facts_of, talking
from sdcorrect.errors import UsageError, listed, printable

if TYPE_CHECKING:
    from sdcorrect.evaluate.evaluator import Evaluator
    from sdcorrect.evaluate.results import Comparison, Evaluation, Mean, Measured


@app.command()
def evaluate(
    folders: Annotated[
        list[Path], typer.Argument(metavar="OUT...", parser=path, help="Output folder of a job.")
    ],
    reference: Annotated[
        Path | None,
        typer.Option(
            "--reference",
            metavar="FOLDER",
            parser=path,
            help="True pictures to compare with, at the same relative paths.",
        ),
    ] = None,
    profile: Annotated[
        str, typer.Option("--profile", help="Definitions of the metrics: default, paper or pie-bench.")
    ] = "default",
    metrics: Annotated[
        str | None,
        typer.Option("--metrics", help="Metrics, separated by commas.", show_default="the profile's"),
    ] = None,
    base: Annotated[
        str | None,
        typer.Option(
            "--base",
            help="Others are compared with this variant, or recipe of a sweep.",
            show_default="the first",
        ),
    ] = None,
    clip: Annotated[
        str | None,
        typer.Option(
            "--clip",
            parser=source,
            help="CLIP model: mini, a folder or a hub id.",
            show_default="the profile's; or mini for jobs on mini, else CLIP ViT-L/14",
        ),
    ] = None,
    structure: Annotated[
        str | None,
        typer.Option(
            "--structure",
            parser=source,
            help="Feature model of the structure distance, a ViT or CLIP: mini, a folder or a hub id.",
            show_default="the profile's; or the CLIP model for jobs on mini, else DINO ViT-B/8",
        ),
    ] = None,
    style: Annotated[
        str | None, typer.Option("--style", help="Words before each caption (profile paper).")
    ] = None,
    captions: Annotated[
        str | None,
        typer.Option(
            "--captions",
            parser=source,
            help="Captions as a COCO file, or blip to generate them (profile paper).",
            show_default="the job's",
        ),
    ] = None,
    masks: Annotated[
        Path | None,
        typer.Option(
            "--masks",
            parser=path,
            help="Edit masks: a folder (white where edited) or mapping_file.json (profile pie-bench).",
        ),
    ] = None,
    other_style: Annotated[
        list[str] | None,
        typer.Option(
            "--other-style",
            metavar="PROMPT",
            help="Measure style_accuracy too: whether an output matches its own prompt better than "
            "these; may be repeated.",
        ),
    ] = None,
    csv: Annotated[
        Path | None,
        typer.Option(
            "--csv", parser=path, help="Values of each picture.", show_default="OUT/evaluation.csv"
        ),
    ] = None,
    results: Annotated[
        Path | None,
        typer.Option(
            "--results",
            metavar="FILE",
            parser=path,
            help="Means and tests, as JSON.",
            show_default="OUT/evaluation.json",
        ),
    ] = None,
    table: Annotated[
        Path | None,
        typer.Option(
            "--table",
            metavar="FILE.md|.tex",
            parser=path,
            help="Write a table for a paper too; with --frontier, of all folders by strength.",
        ),
    ] = None,
    frontier: Annotated[
        bool,
        typer.Option(
            "--frontier",
            help="Of a folder that sweeps over strengths, or of several of one job, each of its own: "
            "curves of what is kept over style, and the areas under them, as frontier.json and .png "
            "there, or beside the folders.",
        ),
    ] = False,
    batch_size: Annotated[int, typer.Option("--batch-size", min=1, help="Pictures per batch.")] = 16,
    device: Device = None,
    offline: Offline = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
    log_level: LogLevel = None,
    json_: Json = False,
    debug: Debug = False,
) -> None:
    """Measure outputs against sources, prompts and true pictures."""
    with errors_for_people(debug), talking(quiet, verbose, log_level, json_) as events:
        extras = {"evaluate": ["scipy", "skimage", "torchmetrics"], "view": ["matplotlib"] * frontier}
        check_installed("evaluate", extras)
        from sdcorrect.evaluate.table import check_table, write_table

        _check_folders(folders, frontier=frontier, one_file=bool(csv or results))
        if table:
            check_table(table)
        with working("loading what measures"):  # importing torch takes seconds
            from sdcorrect.evaluate.evaluator import Evaluator, Request
            from sdcorrect.evaluate.frontier import MeasuredFolder, check_alike
            from sdcorrect.models import quiet_libraries

        quiet_libraries()
        request = Request(
            folders[0],
            profile,
            names(metrics) if metrics else None,
            base,
            reference,
            masks,
            captions,
            style,
            other_style or (),
            clip,
            structure,
            device or "auto",
            batch_size,
            offline,
        )
        with working("looking at the output folders"):
            runs = {folder: Evaluator(replace(request, out=folder)) for folder in folders}
            outlines = [run.outline for run in runs.values()]
            if frontier:
                check_alike(outlines)
        _tell_start(runs, events)
        measured = [_measure(folder, run, csv, results, events) for folder, run in runs.items()]
        if table:
            strengths = [outline.strength for outline in outlines]
            write_table(list(zip(strengths, (found for found, _ in measured), strict=True)), table)
            events.show(f"table: {printable(table)}")
        if frontier:
            rows = (rows for _, rows in measured)
            folders_ = [MeasuredFolder(*pair) for pair in zip(outlines, rows, strict=True)]
            show_frontier(folders_, show=events.show)


def _check_folders(folders: Sequence[Path], *, frontier: bool, one_file: bool) -> None:
    """Raises UsageError if the number of folders does not suit the options."""
    several = len({folder.resolve() for folder in folders}) > 1
    if frontier and not several and not _is_curve(folders[0]):
        raise UsageError(
            "--frontier: give two or more output folders, each with its own strength, or one whose job "
            "sweeps, such as strength: [0.5, 0.8]"
        )
    if not frontier and len(folders) > 1:
        raise UsageError(
            f"{len(folders)} output folders: give one, or add --frontier for curves over strengths"
        )
    if frontier and one_file:
        raise UsageError(
            "--csv and --results are for one folder; with --frontier each has its own files"
        )


def _tell_start(runs: "Mapping[Path, Evaluator]", events: Events) -> None:
    for folder, run in runs.items():
        events.tell(
            "started",
            folder=str(folder),
            pictures=run.pictures,
            variants=list(run.translated.progress),
            metrics=[metric.name for metric in run.metrics],
        )


def _is_curve(folder: Path) -> bool:
    """Whether an output folder has several strengths."""
    from sdcorrect.output.folder import OutputFolder

    sweep = OutputFolder(folder).job().fingerprint.sweep.values()
    return len({of.strength for of in sweep if of.strength is not None}) > 1


def _measure(
    folder: Path, run: "Evaluator", csv: Path | None, results: Path | None, events: Events
) -> "tuple[Evaluation, Sequence[Measured]]":
    """Measure one output folder, and write and show the results."""
    from sdcorrect.evaluate.results import CSV_NAME, JSON_NAME, write_csv, write_json

    rows = _follow(run, folder, events)
    with working("computing means and tests"):
        evaluation = run.evaluation(rows)
    csv_file, json_file = csv or folder / CSV_NAME, results or folder / JSON_NAME
    write_csv(rows, list(evaluation.metrics), csv_file)
    write_json(evaluation, json_file)
    _show(evaluation, events)
    events.show(f"each picture: {printable(csv_file)}  means and tests: {printable(json_file)}")
    events.end.setdefault("results", []).append(str(json_file))
    return evaluation, rows


def _follow(run: "Evaluator", folder: Path, events: Events) -> "list[Measured]":
    rows: list[Measured] = []
    with following("measuring", run.pictures) as shown:
        for measured in run.rows():
            rows += measured
            shown.update()
            for row in measured:
                values = {name: value if isfinite(value) else None for name, value in row.values.items()}
                told = {"input": {"path": row.path}, "variant": row.variant, "metrics": values}
                events.tell("done", folder=str(folder), **told)
    for record in run.translated.failures:
        events.tell("failed", folder=str(folder), **facts_of(record))
    return rows


def _show(evaluation: "Evaluation", events: Events) -> None:
    from sdcorrect.evaluate.table import plain, told_base, told_profile

    table = figures("", ("n", "mean", "95 % interval", "diff.", "better", "p"))
    of_sweep = {v: result.sweep for v, result in evaluation.variants.items()}
    names = {variant: of.label if of else variant for variant, of in of_sweep.items()}
    for name, info in evaluation.metrics.items():
        table.add_row(Text(f"{name} {'↑' if info.better == 'higher' else '↓'}", "bold"))
        for variant, result in evaluation.variants.items():
            against = result.against_base.get(name)
            mean = result.metrics[name]
            table.add_row(Name(names[variant]), *_cells(mean), *_compared(against, mean))
        table.add_section()
    table.add_row(Text("seconds a picture ↓", "bold"))
    for variant, result in evaluation.variants.items():
        table.add_row(Name(names[variant]), *_cells(result.seconds))
    table.add_section()
    table.add_row(Text("U-Net evaluations a picture ↓", "bold"))
    for variant, result in evaluation.variants.items():
        evaluations = result.unet_evaluations
        table.add_row(Name(names[variant]), str(evaluations.n), plain(evaluations))
    events.show(table, soft_wrap=False)
    events.show(
        f"{told_profile(evaluation)}. ↑ higher is better, ↓ lower. diff.: to {told_base(evaluation)} "
        "on the pictures of both; better: in how many of them; p: Wilcoxon's signed-rank test, "
        "two-sided, of 6 pictures or more."
    )
    if lacking := _not_measured(evaluation):
        tell("not measured", lacking)
    for notice in evaluation.notices:
        note(notice)


def _not_measured(evaluation: "Evaluation") -> str:
    """What is missing, and in which variants; empty if nothing is."""
    alike: dict[str, list[str]] = {}
    for variant, result in evaluation.variants.items():
        left = {"failed": result.failed, "left out": result.filtered, "to do": result.remaining}
        if words := ", ".join(f"{count} {what}" for what, count in left.items() if count):
            alike.setdefault(words, []).append(variant)
    told = "; ".join(f"{words} ({listed(variants)})" for words, variants in alike.items())
    unfinished = any(result.remaining for result in evaluation.variants.values())
    return f"{told}; run sdcorrect translate again to finish" if unfinished else told


def _cells(mean: "Mean") -> tuple[str, str, str]:
    from sdcorrect.evaluate.table import number

    interval = "-" if mean.low is None else f"{number(mean.low, mean)}..{number(mean.high, mean)}"
    return str(mean.n), number(mean.mean, mean), interval


def _compared(against: "Comparison | None", mean: "Mean") -> tuple[str, str, str]:
    from sdcorrect.evaluate.table import number, p_value

    if against is None or against.better is None:
        return "-", "-", "-"
    return number(against.difference, mean, "+"), f"{against.better:.0%}", p_value(against.p)
