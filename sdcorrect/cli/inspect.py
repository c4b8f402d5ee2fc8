"""Commands that look at jobs and recipes and start nothing."""

from pathlib import Path
from typing import Annotated

import typer
import yaml
from rich import box
from rich.table import Column, Table
from rich.text import Text

from sdcorrect.cli.console import Debug, app, errors_for_people, out
from sdcorrect.cli.options import path
from sdcorrect.config import load_job, parse_set
from sdcorrect.core.plan import ALWAYS
from sdcorrect.errors import UsageError, printable
from sdcorrect.recipes import ALIASES, BUILT_IN, Inject, built_in


@app.command()
def validate(
    config: Annotated[Path, typer.Argument(metavar="JOB.yaml", parser=path, help="The job.")],
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="As for translate.")
    ] = None,
    debug: Debug = False,
) -> None:
    """Check a job without running it."""
    with errors_for_people(debug):
        job = load_job(config, parse_set(set_ or []))
        recipes = ", ".join(recipe.name for recipe in job.recipes)
        out.print(
            f"{printable(config)}: a valid job ({recipes}; {job.effective_steps} of {job.steps} steps)"
        )


@app.command()
def recipes(
    show: Annotated[
        str | None, typer.Option("--show", metavar="NAME", help="One recipe, as YAML for a job.")
    ] = None,
    debug: Debug = False,
) -> None:
    """List the built-in recipes, or write one out."""
    with errors_for_people(debug):
        if show is None:
            _list_recipes()
        else:
            _show_recipe(show)


def _list_recipes() -> None:
    # 80 columns, as a pipe has, hold every word
    table = Table(
        Column("recipe", width=max(map(len, BUILT_IN))),
        Column("inversion", width=len("inversion")),
        Column("start", width=len("inverted")),
        "what goes back where",
        box=box.SIMPLE,
        show_lines=True,
    )
    for recipe in BUILT_IN.values():
        inversion: str = recipe.inversion
        if inversion == "full":
            inversion += f", {recipe.inversion_steps or 'as many'} steps"
        table.add_row(
            Text.assemble((recipe.name, "bold"), f"\n{recipe.summary}"),
            inversion,
            recipe.start,
            "\n".join(_described(inject) for inject in recipe.inject) or "-",
        )
    out.print(table, soft_wrap=False)
    for alias, name in ALIASES.items():
        out.print(f"{alias}: the authors' name for {name}")
    out.print("one of them as YAML for a job: sdcorrect recipes --show NAME")


def _described(inject: Inject) -> str:
    first, last = inject.window
    part = "" if inject.window == ALWAYS else f", {first:.0%} to {last:.0%} of the steps"
    return f"{inject.tensor} at {', '.join(inject.blocks)}{part}"


def _show_recipe(name: str) -> None:
    try:
        recipe = built_in(name)
    except ValueError as error:
        raise UsageError(str(error)) from None
    content = {"method": recipe.model_dump(mode="json", exclude_defaults=True)}
    out.print(yaml.safe_dump(content, sort_keys=False), end="")
