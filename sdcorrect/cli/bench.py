"""`sdcorrect bench`: compare what recipes cost, and how good their results are."""

import json
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from sdcorrect.cli import options
from sdcorrect.cli.console import Debug, Name, app, errors_for_people, figures, out, tell, working
from sdcorrect.cli.frontier import check_installed
from sdcorrect.cli.judge import judge
from sdcorrect.cli.look import load_model, look, tell_left_out
from sdcorrect.config import Job, load_job, placeholders
from sdcorrect.errors import UsageError
from sdcorrect.output.files import writing

if TYPE_CHECKING:
    from sdcorrect.costs import Cost
    from sdcorrect.inputs.items import Found
    from sdcorrect.models import Model

ASSETS = Path(__file__).parents[1] / "assets"
EXAMPLES, ICONS = ASSETS / "pictures", ASSETS / "icons"
#: Settings for timing alone, and for judging too: icons, because their true pictures are known.
WORDS = {"prompt": "in 3d render style", "source_prompt": "in flat design style"}
TIMED = {"input.path": str(EXAMPLES), "limit": 1, "strength": 0.95, **WORDS}
JUDGED = {
    "input.path": str(ICONS / "flat"),
    "limit": 24,
    "strength": 0.8,
    "guidance_scale": 5,
    "batch_size": 8,
    **WORDS,
}
TRUTH = ICONS / "3d"
OTHER_STYLES = ("in flat design style", "in black and white ink style")
EVERY = "all"


@app.command()
def bench(
    input_: Annotated[
        str | None,
        typer.Argument(
            metavar="INPUT", help="Pictures.", show_default="built-in examples; --evaluate: icons"
        ),
    ] = None,
    recipes: Annotated[
        str, typer.Option("--variants", help="Recipes to compare: sdedit,correct,pnp; or all that fit.")
    ] = "sdedit,correct,pnp",
    also_called: Annotated[str | None, typer.Option("--recipes", "--methods", hidden=True)] = None,
    evaluate: Annotated[
        bool,
        typer.Option(
            "--evaluate",
            help="Measure quality too, in one table with evaluations and seconds. This takes a while; "
            "if interrupted, the same command resumes it.",
        ),
    ] = False,
    reference: Annotated[
        Path | None,
        typer.Option(
            "--reference",
            parser=options.path,
            help="With --evaluate: the true pictures, at the same relative paths.",
            show_default="for the icons, their 3D versions",
        ),
    ] = None,
    output: Annotated[
        Path,
        typer.Option("--output", "-o", parser=options.path, help="With --evaluate: the output folder."),
    ] = Path("out/leaderboard"),
    page: Annotated[
        Path | None,
        typer.Option(
            "--page",
            parser=options.path,
            help="With --evaluate: write the table to this Markdown file.",
            show_default="OUTPUT/leaderboard.md",
        ),
    ] = None,
    results: Annotated[
        Path | None,
        typer.Option(
            "--results",
            "--json",
            metavar="FILE",
            parser=options.path,
            help="Write the measurements to this JSON file.",
        ),
    ] = None,
    base: Annotated[
        str | None, typer.Option("--base", help="Recipe to compare with.", show_default="the first")
    ] = None,
    repeats: Annotated[
        int, typer.Option("--repeats", min=1, help="Timed rounds; cheap recipes run ten times a round.")
    ] = 3,
    limit: Annotated[int | None, options.like(options.Limit, show_default="1; --evaluate: 24")] = None,
    size: options.Size = None,
    format_: Annotated[
        str | None, options.like(options.Format, help="png, jpg or webp, with --evaluate.")
    ] = None,
    prompt: Annotated[str | None, options.like(options.Prompt, show_default=WORDS["prompt"])] = None,
    negative_prompt: options.NegativePrompt = None,
    source_prompt: Annotated[
        str | None,
        options.option(
            options.TRANSLATION,
            "--source-prompt",
            help="What the pictures show; p2p needs it.",
            show_default=WORDS["source_prompt"],
        ),
    ] = None,
    strength: Annotated[
        Any, options.like(options.Strength, show_default="0.95; --evaluate: 0.8")
    ] = None,
    steps: options.Steps = None,
    guidance_scale: Annotated[
        float | None, options.like(options.GuidanceScale, show_default="7.5; --evaluate: 5")
    ] = None,
    seed: options.Seed = None,
    model: options.Model = None,
    loras: options.Loras = None,
    vae: options.Vae = None,
    controlnets: options.Controlnets = None,
    device: options.Device = None,
    dtype: options.Dtype = None,
    offline: options.Offline = None,
    debug: Debug = False,
) -> None:
    """Compare what recipes cost on the same pictures."""
    with errors_for_people(debug):
        names = options.names(also_called or recipes)
        if base is not None and names != [EVERY]:
            _check_base(base, names)
        # the output folder is written to only with --evaluate
        settings = (JUDGED if evaluate else TIMED) | options.given(locals())
        if format_ is not None and not evaluate:
            raise UsageError("--format: is that of the pictures which --evaluate writes; give both")
        if evaluate:
            check_installed("bench --evaluate", {"evaluate": ("scipy", "skimage", "torchmetrics")})
            fitting, names, found = _fitting(settings, names)
            judge(
                load_job(None, settings | {"variants": names}),
                fitting,
                found,
                TRUTH if input_ is None and reference is None else reference,
                OTHER_STYLES if input_ is None else (),
                page or output / "leaderboard.md",
                shlex.join(["sdcorrect", *sys.argv[1:]]),
            )
        else:
            _refuse_placeholders(load_job(None, settings | {"variants": ["sdedit"]}))
            _measure(settings, names, repeats, base, results)


def _refuse_placeholders(job: Job) -> None:
    """Raises UsageError where prompts differ from picture to picture."""
    for text in (job.prompt, job.negative_prompt, job.source_prompt or ""):
        for name in sorted(placeholders(text)):
            raise UsageError(f"{{{name}}}: bench times all pictures by the same words; write them out")


def _check_base(base: str, names: list[str]) -> None:
    if base not in names:
        raise UsageError(f"--base {base} is not among the recipes to measure: {', '.join(names)}")


def _fitting(settings: dict[str, Any], names: list[str]) -> "tuple[Model, list[str], Found]":
    """The model, the recipes to run (of `all`, those that fit; the rest are reported), the pictures."""
    job = load_job(None, settings | {"variants": ["sdedit"] if names == [EVERY] else names})
    options.refuse_sweep(job, "bench")
    found = look(job)
    tell_left_out(found)
    model = load_model(job)
    if names != [EVERY]:
        return model, names, found
    from sdcorrect.costs import all_fitting

    fitting, left_out = all_fitting(model, settings)
    for name, reason in left_out.items():
        tell("left out", f"{name}: {reason}")
    return model, fitting, found


def _measure(
    settings: dict[str, Any], names: list[str], repeats: int, base: str | None, file: Path | None
) -> None:
    model, names, found = _fitting(settings, names)
    from sdcorrect.costs import compare, report
    from sdcorrect.inputs.pictures import Sizing, read_picture

    job, base = load_job(None, settings | {"variants": names}), base or names[0]
    _check_base(base, names)
    sizing = Sizing(job.resize, job.size or model.native_size, model.multiple)
    pictures = [read_picture(item, sizing, job.input).image for item in found.items]
    with working("measuring"):
        costs = compare(model, job, pictures, repeats=repeats, base=base)
    out.print(_table(costs, base), soft_wrap=False)
    if file is not None:
        with writing(file, "--results "):
            file.write_text(json.dumps(report(costs, job, model, base), indent=2) + "\n")


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
    table = figures("recipe", heads, None)
    for cost in costs:
        table.add_row(
            Name(cost.recipe),
            str(cost.runs),
            str(cost.evaluations),
            f"{cost.seconds:.3f}",
            f"{cost.ratio:.3f}",
            f"{cost.ratio_low:.3f}..{cost.ratio_high:.3f}",
            f"{cost.outside_model:.1%}",
            "-" if cost.peak_memory_mib is None else f"{cost.peak_memory_mib:.0f}",
        )
    return table
