"""Options that several commands have: each overrides the job's setting, where it is given."""

from pathlib import Path
from typing import Annotated

import typer

from sdcorrect.errors import UsageError
from sdcorrect.paths import expand


class BadPath(UsageError):
    """A path on the command line names nothing."""


def path(text: str | Path) -> Path:
    """A path as the command line gives it: no shell fills in the `~` of `--option=~/file`.

    Raises:
        BadPath: it is empty, or has a variable or a user that is not there.
    """
    return Path(source(str(text)))


def source(text: str) -> str:
    """A path or the name of something else, such as a hub id; raises BadPath as `path` does."""
    if not text.strip():
        raise BadPath("a path on the command line is empty; is a variable of the shell not set?")
    try:
        return expand(text)
    except ValueError as error:
        raise BadPath(str(error)) from None


Config = Annotated[
    Path | None, typer.Option("--config", "-c", parser=path, help="The job, a YAML file.")
]

Model = Annotated[
    str | None,
    typer.Option("--model", help="mini, a diffusers folder, a .safetensors or .ckpt file, or a hub id."),
]
Strength = Annotated[
    float | None, typer.Option("--strength", help="How far to go from the source, 0 to 1.")
]
Steps = Annotated[int | None, typer.Option("--steps", help="Sampling steps at strength 1.")]
Seed = Annotated[int | None, typer.Option("--seed", help="Another seed, other noise.")]
Size = Annotated[
    int | None, typer.Option("--size", help="The longer side, px.", show_default="the model's own")
]
Device = Annotated[
    str | None,
    typer.Option("--device", envvar="SDCORRECT_DEVICE", help="auto, cpu, cuda, cuda:1, mps."),
]
Dtype = Annotated[
    str | None,
    typer.Option("--dtype", envvar="SDCORRECT_DTYPE", help="auto, float32, float16, bfloat16."),
]
Offline = Annotated[
    bool,
    typer.Option(
        "--offline",
        envvar="SDCORRECT_OFFLINE",
        help="Use what `sdcorrect prefetch` fetched; ask no hub.",
    ),
]
Limit = Annotated[int | None, typer.Option("--limit", help="Only the first so many.")]
