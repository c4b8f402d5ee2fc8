"""`sdcorrect bench`: what recipes cost, side by side."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Column, Table

from sdcorrect.cli import options
from sdcorrect.cli.console import Debug, app, errors_for_people, out, working
from sdcorrect.cli.look import look, tell_left_out
from sdcorrect.config import load_job
from sdcorrect.errors import SdcorrectError, UsageError, printable
from sdcorrect.libraries import lean_imports

if TYPE_CHECKING:
    from sdcorrect.costs import Cost

EXAMPLES = Path(__file__).parents[1] / "assets" / "pictures"


@app.command()
def bench(
    input_: Annotated[
        str, typer.Argument(metavar="[INPUT]", help="Pictures.", show_default="the examples")
    ] = str(EXAMPLES),
    recipes: Annotated[
        str, typer.Option("--recipes", help="Which, with commas between.")
    ] = "sdedit,correct,pnp",
    json_: Annotated[
        Path | None,
        typer.Option("--json", parser=options.path, help="Write the figures to this file."),
    ] = None,
    base: Annotated[
        str | None, typer.Option("--base", help="Ratios are to this recipe.", show_default="the first")
    ] = None,
    repeats: Annotated[
        int,
        typer.Option("--repeats", min=1, help="Rounds that count; cheap recipes run ten times in one."),
    ] = 3,
    limit: Annotated[int, typer.Option("--limit", min=1, help="Only the first so many.")] = 1,
    model: Annotated[
        str, typer.Option("--model", help="mini, a diffusers folder or a hub id.")
    ] = "mini",
    steps: Annotated[int, typer.Option("--steps", help="Sampling steps at strength 1.")] = 20,
    strength: Annotated[float, typer.Option("--strength", help="How far to go, 0 to 1.")] = 0.95,
    size: options.Size = None,
    prompt: Annotated[str, typer.Option("--prompt", "-p")] = "in 3d render style",
    source_prompt: Annotated[
        str, typer.Option("--source-prompt", help="For p2p.")
    ] = "in flat design style",
    device: options.Device = None,
    debug: Debug = False,
) -> None:
    """Measure what recipes cost on the same pictures."""
    with errors_for_people(debug):
        names = [name.strip() for name in recipes.split(",")]
        if base is not None and base not in names:
            raise UsageError(f"--base {base}: is not among the recipes measured: {', '.join(names)}")
        settings = {
            "input.path": input_,
            "output.path": ".",  # nothing is written
            "variants": names,
            "limit": limit,
            "model": model,
            "steps": steps,
            "strength": strength,
            "size": size,
            "prompt": prompt,
            "source_prompt": source_prompt,
            "device": device or "auto",
        }
        _measure(settings, repeats, base or names[0], json_)


def _measure(settings: dict[str, Any], repeats: int, base: str, file: Path | None) -> None:
    with lean_imports():
        from sdcorrect.costs import compare, report
        from sdcorrect.inputs.pictures import Sizing, read_picture
        from sdcorrect.models import load, quiet_libraries

    job = load_job(None, settings)
    found = look(job)
    tell_left_out(found)
    quiet_libraries()
    with working(f"loading {job.model}"):
        model = load(job)
    sizing = Sizing(job.resize, job.size or model.native_size, model.multiple)
    pictures = [read_picture(item, sizing, job.input).image for item in found.items]
    with working("measuring"):
        costs = compare(model, job, pictures, repeats=repeats, base=base)
    out.print(_table(costs, base), soft_wrap=False)
    if file is not None:
        try:
            file.write_text(json.dumps(report(costs, job, model, base), indent=2) + "\n")
        except OSError as error:
            raise SdcorrectError(
                f"--json {printable(file)}: cannot be written: {error.strerror}"
            ) from None


def _table(costs: "list[Cost]", base: str) -> Table:
    heads = (
        "runs",
        "evaluations",
        "seconds",
        f"times\n{base}",
        "middle\nhalf",
        "outside\nmodel",
        "peak\nMiB",
    )
    numbers = (Column(head, justify="right", no_wrap=True) for head in heads)
    # 80 columns, as a pipe has, hold all but the longest names, which fold
    table = Table(
        Column("recipe", overflow="fold"), *numbers, box=None, pad_edge=False, collapse_padding=True
    )
    for cost in costs:
        table.add_row(
            cost.recipe,
            str(cost.runs),
            str(cost.evaluations),
            f"{cost.seconds:.3f}",
            f"{cost.ratio:.3f}",
            f"{cost.ratio_low:.3f}..{cost.ratio_high:.3f}",
            f"{cost.outside_model:.1%}",
            "-" if cost.peak_memory_mib is None else f"{cost.peak_memory_mib:.0f}",
        )
    return table
