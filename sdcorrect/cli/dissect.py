"""`sdcorrect dissect`: show what SDEdit's noise does to the decoder, and what the correction mends."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Column, Table
from rich.text import Text

from sdcorrect.cli import options
from sdcorrect.cli.console import SOME_FAILED, Debug, app, errors_for_people, out, tell, working
from sdcorrect.cli.look import load_model, look, tell_left_out
from sdcorrect.cli.progress import track
from sdcorrect.config import Job, load_job
from sdcorrect.errors import PictureError, SdcorrectError, UsageError, counted, printable
from sdcorrect.recipes.blocks import FIRST

if TYPE_CHECKING:
    from sdcorrect.core.plan import Block
    from sdcorrect.dissect.about import Means, Setup
    from sdcorrect.dissect.session import Session

#: The mark after a score, by the answer of `Setup.told_of`.
MARKS = {"put back": "*", "put back with own statistics": "~"}


@app.command()
def dissect(
    context: typer.Context,
    input_: Annotated[
        str, typer.Argument(metavar="IMAGE", help="A picture, a folder, a pattern or a list.")
    ],
    output: Annotated[
        str | None,
        typer.Option(
            "--output", "-o", metavar="FOLDER", help="Output folder.", show_default="out/dissect/<stem>"
        ),
    ] = None,
    limit: options.Limit = None,
    size: options.Size = None,
    prompt: options.Prompt = None,
    negative_prompt: options.NegativePrompt = None,
    method: Annotated[
        str | None,
        options.like(
            options.Method,
            help="Recipe with a one-step inversion.",
            show_default="the job's, or correct",
        ),
    ] = None,
    strength: options.Strength = None,
    steps: options.Steps = None,
    guidance_scale: options.GuidanceScale = None,
    seed: options.Seed = None,
    model: options.Model = None,
    loras: options.Loras = None,
    vae: options.Vae = None,
    controlnets: options.Controlnets = None,
    device: options.Device = None,
    dtype: options.Dtype = None,
    offline: options.Offline = None,
    blocks: Annotated[
        str | None,
        typer.Option(
            "--blocks",
            help="Decoder blocks as recipes name them, such as 3,4 or second-attention.",
            show_default=f"{FIRST}; for a folder, all",
        ),
    ] = None,
    timesteps: Annotated[
        str | None,
        typer.Option(
            "--timesteps",
            help="Timesteps to draw, such as 751,401,51.",
            show_default="three, evenly spaced",
        ),
    ] = None,
    point: Annotated[
        str | None,
        typer.Option(
            "--point",
            metavar="X,Y",
            help="Draw the attention of this point, in pixels or in fractions such as 0.5,0.5.",
            show_default="the centre",
        ),
    ] = None,
    config: options.Config = None,
    set_: options.Set = None,
    debug: Debug = False,
) -> None:
    """Compare SDEdit and the correction with the clean picture.

    It shows how far attention and features drift. A single picture gives a figure, a page and all
    scores; a folder gives a table of mean scores.
    """
    with errors_for_people(debug):
        stem = Path(input_).resolve().stem
        default = Path("out", "dissect", "pictures" if set(stem) & set("*?[") else stem)
        paths = {"input.path": input_, "output.path": str(default) if output is None else output}
        job = load_job(config, options.given(locals(), context) | paths)
        options.refuse_sweep(job, "dissect")
        drawn_timesteps = _numbers(timesteps)
        picture, folder = job.input.path, job.output.path
        one = picture.is_file() and not job.input.is_list
        if not one and (point or timesteps):
            raise UsageError(
                "--point and --timesteps need a single picture; several pictures give only a table"
            )
        session = _open(job, blocks or (FIRST if one else None))
        if one:
            _dissect_one(session, folder, drawn_timesteps, point or "0.5,0.5")
        else:
            _dissect_all(session, folder)


def _numbers(text: str | None) -> list[int]:
    try:
        return [int(part) for part in text.split(",")] if text else []
    except ValueError:
        raise UsageError(
            f"--timesteps {text}: expected whole numbers separated by commas, such as 751,401,51"
        ) from None


def _open(job: Job, blocks: str | None) -> "Session":
    try:
        from sdcorrect.dissect.session import Session
    except ModuleNotFoundError as error:
        raise UsageError(
            f"`dissect` needs {error.name}, which is not installed; run `pip install 'sdcorrect[view]'`"
        ) from None
    found = look(job)
    tell_left_out(found)
    return Session(job, load_model(job), blocks, found.items)


def _dissect_one(session: "Session", folder: Path, timesteps: list[int], point: str) -> None:
    from sdcorrect.dissect.about import means_of, picture_json
    from sdcorrect.dissect.draw import figure
    from sdcorrect.dissect.page import page

    (item,) = session.items
    try:
        picture = session.read(item)
        drawn = session.choose_drawn(picture, timesteps, point)
        with working(f"dissecting {item.key}"):
            subject, dissection = session.dissect(picture, drawn)
    except PictureError as error:
        raise SdcorrectError(f"{printable(item.key)}: {error}") from None
    settings = session.settings
    title = f"{printable(item.key)}: {item.prompt}"
    contents = {
        "dissect.png": figure(settings, dissection, drawn, title),
        "dissect.html": page(settings, subject, dissection, drawn).encode(),
        "dissect.json": _json(picture_json(settings, subject, dissection)),
    }
    _write(folder, contents)
    out.print(_table(settings, means_of(dissection)), soft_wrap=False)
    _explain(settings, counted(len(dissection.timesteps), "step"))
    out.print(f"{printable(folder)}/: {' '.join(contents)}")


def _dissect_all(session: "Session", folder: Path) -> None:
    from sdcorrect.dissect.about import folder_json, means_of, over_pictures

    means, failures = {}, {}
    timesteps: list[int] = []
    for item in track(session.items, "dissecting", len(session.items)):
        try:
            subject, dissection = session.dissect(session.read(item))
        except PictureError as error:
            failures[item.key] = str(error)
            continue
        means[subject], timesteps = means_of(dissection), dissection.timesteps
    for path, reason in failures.items():
        tell("failed", f"{printable(path)}: {reason}", "red")
    if not means:
        raise SdcorrectError(f"no picture could be dissected; {len(failures)} failed")
    content = folder_json(session.settings, timesteps, means, failures)
    _write(folder, {"dissect.json": _json(content)})
    out.print(_table(session.settings, over_pictures([*means.values()])), soft_wrap=False)
    over = f"{counted(len(means), 'picture')} and {counted(len(timesteps), 'step')}"
    _explain(session.settings, over)
    out.print(f"{printable(folder / 'dissect.json')}: the scores of each picture")
    if failures:
        raise typer.Exit(SOME_FAILED)


def _json(content: dict[str, Any]) -> bytes:
    return json.dumps(content, indent=2).encode() + b"\n"


def _write(folder: Path, contents: Mapping[str, bytes]) -> None:
    from sdcorrect.output.files import write_atomically

    for name, content in contents.items():
        write_atomically(folder / name, content)


def _table(settings: "Setup", means: "Mapping[Block, Means]") -> Table:
    """Scores by block and tensor; tensors that the method puts back are marked."""
    table = Table(Column("block", no_wrap=True))
    columns = [
        (tensor, condition)
        for tensor, scores in next(iter(means.values())).items()
        for condition in scores
    ]
    for tensor, condition in columns:
        name = settings.names[condition].replace("-", "-\n")
        table.add_column(f"{tensor.removeprefix('self-')}\n{name}", justify="right", no_wrap=True)
    for block, of_block in means.items():
        cells = []
        for tensor, condition in columns:
            score = f"{of_block[tensor][condition]:.3f}"
            put_back = condition == "correction" and settings.told_of(block, tensor)
            cells.append(Text(f"{score} {MARKS[put_back]}", "bold") if put_back else Text(score))
        table.add_row(str(block), *cells)
    return table


def _explain(settings: "Setup", over: str) -> None:
    from sdcorrect.dissect.measure import COMPARED

    out.print(f"discrepancy from the clean picture's inversion, mean over {over}:")
    out.print("Jensen-Shannon divergence of attention (bits), cosine distance of features")
    put_back = [(b, tensor) for b, of in settings.put_back.items() for tensor in of]
    used = {settings.told_of(*each) for each in put_back if each[1] in COMPARED}
    told = [f"{mark} {words}" for words, mark in MARKS.items() if words in used]
    told += sorted(
        {f"{tensor} (not shown) put back" for _, tensor in put_back if tensor not in COMPARED}
    )
    if told:
        out.print(f"{', '.join(told)} by {settings.method}")
