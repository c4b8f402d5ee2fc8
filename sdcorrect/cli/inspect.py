"""Commands that look at jobs and recipes and start nothing."""

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from sdcorrect.cli.console import Debug, app, errors_for_people, out
from sdcorrect.config import load_job, parse_set
from sdcorrect.recipes import ALIASES, BUILT_IN


@app.command()
def validate(
    config: Annotated[Path, typer.Argument(metavar="JOB.yaml", help="The job.")],
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
            f"{config}: a valid job ({recipes}; {job.effective_steps} of {job.steps} steps)",
            soft_wrap=True,
        )


@app.command()
def recipes() -> None:
    """List the built-in recipes."""
    table = Table("recipe", "inversion", "start", "what goes back where", "summary", title="Recipes")
    for recipe in BUILT_IN.values():
        goes_back = "\n".join(f"{i.tensor} at {', '.join(i.blocks)}" for i in recipe.inject)
        table.add_row(recipe.name, recipe.inversion, recipe.start, goes_back or "-", recipe.summary)
    out.print(table)
    for alias, name in ALIASES.items():
        out.print(f"{alias}: the authors' name for {name}")
