"""Commands that show jobs and recipes without running anything."""

from typing import Annotated

import typer
import yaml
from rich.padding import Padding
from rich.table import Column, Table
from rich.text import Text

from sdcorrect.cli.console import Debug, app, errors_for_people, out
from sdcorrect.cli.look import problems
from sdcorrect.cli.options import JobFile, Set, given
from sdcorrect.config import load_job
from sdcorrect.errors import UsageError, printable
from sdcorrect.origins import GUIDANCE_SCALE, STEPS, STRENGTH, Origin, by_origin, evaluations, grouped
from sdcorrect.recipes import ALIASES, BUILT_IN, built_in


@app.command()
def validate(config: JobFile, set_: Set = None, debug: Debug = False) -> None:
    """Check a job, and that the files it names are there; `doctor` looks into them."""
    with errors_for_people(debug):
        job = load_job(config, given(locals()))
        if found := problems(job):
            raise UsageError("\n".join(found))
        variants = ", ".join(variant.name for variant in job.expanded)
        most = "up to " if len(job.strengths) > 1 else ""
        out.print(
            f"{printable(config)}: a valid job ({variants}; {most}{job.effective_steps} of {job.steps} "
            "steps)"
        )


@app.command()
def recipes(
    show: Annotated[
        str | None, typer.Option("--show", metavar="NAME", help="Print this recipe as YAML for a job.")
    ] = None,
    debug: Debug = False,
) -> None:
    """List the built-in recipes, or print one as YAML."""
    with errors_for_people(debug):
        if show is None:
            _list_recipes()
        else:
            _show_recipe(show)


def _list_recipes() -> None:
    # fits 80 columns, the width of a pipe
    for group in grouped():
        out.print(Text(group.needs, "bold"))
        for origin, of_origin in by_origin(group.recipes):
            table = Table.grid(
                Column(width=max(map(len, BUILT_IN))),
                Column(justify="right", width=4),
                Column(),
                padding=(0, 2, 0, 0),
            )
            for recipe in of_origin:
                table.add_row(recipe.name, str(evaluations(recipe)), recipe.summary)
            out.print(Padding(table, (0, 0, 0, 2)), soft_wrap=False)
            out.print(Padding(_told_of(origin), (0, 0, 1, 4)), soft_wrap=False)
    out.print(
        f"The numbers are U-Net evaluations per picture, with {STEPS} steps, strength {STRENGTH} and "
        f"guidance {GUIDANCE_SCALE} unless a recipe sets its own. A mask is optional with every recipe.",
        soft_wrap=False,
    )
    for alias, name in ALIASES.items():
        out.print(f"{alias}: the authors' name for {name}")
    out.print("`sdcorrect recipes --show NAME` prints a recipe as YAML for a job")


def _told_of(origin: Origin) -> Table:
    told = Table.grid(padding=(0, 2, 0, 0))
    for label, words in (("paper", origin.paper), ("follows", origin.code), ("checked", origin.checked)):
        told.add_row(Text(label, "dim"), Text(words, "dim"))
    return told


def _show_recipe(name: str) -> None:
    try:
        recipe = built_in(name)
    except ValueError as error:
        raise UsageError(str(error)) from None
    content = {"method": recipe.model_dump(mode="json", exclude_defaults=True)}
    out.print(yaml.safe_dump(content, sort_keys=False), end="")
