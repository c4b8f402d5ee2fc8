"""Options that several commands share: each one, when given, overrides a setting of the job."""

import re
from collections.abc import Mapping
from contextlib import suppress
from copy import copy
from pathlib import Path
from typing import Annotated, Any, get_args

import typer
from typer import BadParameter

from sdcorrect.config import Job, parse_set
from sdcorrect.errors import UsageError, printable
from sdcorrect.paths import expand
from sdcorrect.settings import DType, known_device


def path(text: str | Path) -> Path:
    """A path from the command line, with `~` expanded: the shell leaves it in `--option=~/file`.

    Raises:
        BadParameter: the path is empty, or names an unknown user or variable.
    """
    return Path(source(str(text)))


def source(text: str) -> str:
    """A path, or a name such as a hub id; raises BadParameter as `path` does."""
    if not text.strip():
        raise BadParameter("is empty; is a shell variable unset?")
    try:
        return expand(text)
    except ValueError as error:
        raise BadParameter(str(error)) from None


def folder(text: str | Path) -> Path:
    """The path of a folder that may be missing; raises BadParameter for a file, or as `path`."""
    found = path(text)
    if found.exists() and not found.is_dir():
        raise BadParameter(f"{printable(found)} is a file; give a folder")
    return found


def device(text: str) -> str:
    """The name of a device; raises BadParameter for an unknown kind."""
    try:
        return known_device(text)
    except ValueError as error:
        raise BadParameter(str(error)) from None


def lora(text: str) -> dict[str, str | float]:
    """PATH[:WEIGHT] as a job's entry for a LoRA.

    Raises:
        BadParameter: as `path`, or the weight of a file on this machine is no number.
    """
    whole = source(text)
    file, colon, weight = whole.rpartition(":")
    if not colon or Path(whole).exists():
        return {"path": whole}
    try:
        return {"path": file, "weight": float(weight)}
    except ValueError:
        if not file or not Path(file).exists():
            return {"path": whole}
        raise BadParameter(
            f"{printable(whole)}: the weight {weight!r} is no number; write {printable(file)}:0.7, "
            f"or only {printable(file)}"
        ) from None


def names(text: str) -> list[str]:
    """Split a comma-separated list of names."""
    return [name.strip() for name in text.split(",")]


def swept(text: str) -> Any:
    """A number, or several separated by commas; the job reports what is no number.

    A comma at the end makes a list of one.
    """
    parts = text.removesuffix(",").split(",")
    numbers = [number(part.strip()) for part in parts]
    return numbers if "," in text else numbers[0]


def strengths(text: str) -> Any:
    """As `swept`; raises BadParameter for a decimal comma, since no strength is 0."""
    if re.fullmatch(r"\s*0,\d+\s*", text):
        decimal = text.strip().replace(",", ".")
        raise BadParameter(
            f"{printable(text)}: a comma separates strengths, and none is 0; "
            f"write {decimal} with a point"
        )
    return swept(text)


def number(text: str) -> int | float | str:
    """A number; other text, such as auto, stays text."""
    for kind in (int, float):
        with suppress(ValueError):
            return kind(text)
    return text


JobFile = Annotated[Path, typer.Argument(metavar="JOB.yaml", parser=path, help="Job file.")]

#: The panels of help.
PICTURES, TRANSLATION, MODEL, RUN = "Pictures", "Translation", "Model", "Run"


def option(panel: str, *names: str, help: str, key: str | None = None, **more: Any) -> Any:
    """An option listed under `panel`; its default is that of the job's setting `key`."""
    if key is not None:
        more.setdefault("show_default", _default(key))
    return typer.Option(*names, help=help, rich_help_panel=panel, **more)


def like(shared: Any, **changes: Any) -> Any:
    """A `shared` option with `changes` for one command, such as another `help`."""
    own = copy(get_args(shared)[1])
    vars(own).update(changes)
    return own


def _default(key: str) -> str:
    """The job's default for `key`."""
    value = Job.model_fields[key].get_default(call_default_factory=True)
    return str(getattr(value, "name", value))


Config = Annotated[
    Path | None,
    option(RUN, "--config", "-c", parser=path, help="Job file (YAML); flags override its settings."),
]
Set = Annotated[
    list[str] | None,
    option(RUN, "--set", metavar="KEY=VALUE", help="Set any key of the job, such as resize=crop."),
]
Prompt = Annotated[
    str | None, option(TRANSLATION, "--prompt", "-p", help="What the pictures should become.")
]
NegativePrompt = Annotated[
    str | None, option(TRANSLATION, "--negative-prompt", help="What the pictures should not become.")
]
Mask = Annotated[
    str | None,
    option(
        TRANSLATION,
        "--mask",
        parser=source,
        metavar="FOLDER|alpha|words",
        help="Edit only inside a mask: a folder of masks (white where to edit), alpha (each picture's "
        "own), or words (where the model attends to mask_words).",
    ),
]
Method = Annotated[
    str | None,
    option(TRANSLATION, "--method", key="method", help="Recipe; `sdcorrect recipes` lists them."),
]
Variants = Annotated[
    Any,
    option(
        TRANSLATION,
        "--variants",
        parser=names,
        metavar="NAME,...",
        help="Recipes to compare on the same pictures: sdedit,correct.",
    ),
]
Strength = Annotated[
    Any,
    option(
        TRANSLATION,
        "--strength",
        key="strength",
        parser=strengths,
        metavar="NUMBER",
        help="How far to go from the source, up to 1.",
    ),
]
Steps = Annotated[
    int | None, option(TRANSLATION, "--steps", key="steps", help="Sampling steps at strength 1.")
]
GuidanceScale = Annotated[
    float | None,
    option(
        TRANSLATION, "--guidance-scale", key="guidance_scale", help="How closely to follow the prompt."
    ),
]
Seed = Annotated[
    Any, option(TRANSLATION, "--seed", key="seed", parser=swept, metavar="NUMBER", help="Random seed.")
]
Model = Annotated[
    str | None,
    option(
        MODEL,
        "--model",
        key="model",
        help="Checkpoint: mini, a diffusers folder, a .safetensors or .ckpt file, or a hub id.",
    ),
]
Loras = Annotated[
    list[Any] | None,
    option(
        MODEL, "--lora", parser=lora, metavar="PATH[:WEIGHT]", help="LoRA to apply; may be repeated."
    ),
]
Vae = Annotated[
    str | None, option(MODEL, "--vae", parser=source, help="Other VAE: a file, a folder or a hub id.")
]
Controlnets = Annotated[
    list[str] | None,
    option(MODEL, "--controlnet", parser=source, help="ControlNet on Canny edges; may be repeated."),
]
Size = Annotated[
    int | None,
    option(
        PICTURES,
        "--size",
        show_default="the model's own",
        help="Resize pictures to this many pixels on the longer side.",
    ),
]
Device = Annotated[
    str | None,
    option(
        MODEL,
        "--device",
        key="device",
        envvar="SDCORRECT_DEVICE",
        parser=device,
        metavar="NAME",
        help="Device to run on: auto, cpu, cuda, cuda:1 or mps.",
    ),
]
Dtype = Annotated[
    DType | None,
    option(
        MODEL,
        "--dtype",
        key="dtype",
        envvar="SDCORRECT_DTYPE",
        help="Precision of the model.",
    ),
]
Offline = Annotated[
    bool | None,
    option(
        MODEL,
        "--offline/--no-offline",
        show_default=False,
        envvar="SDCORRECT_OFFLINE",
        help="Use only files that are already downloaded, as by `sdcorrect prefetch`.",
    ),
]
Format = Annotated[
    str | None, option(PICTURES, "--format", show_default="png", help="Image format: png, jpg or webp.")
]
BatchSize = Annotated[
    Any,
    option(
        RUN,
        "--batch-size",
        key="batch_size",
        parser=number,
        metavar="N|auto",
        help="Pictures per batch; auto: as many as fit in memory.",
    ),
]
NumShards = Annotated[
    int | None, option(RUN, "--num-shards", min=1, help="Split the pictures among this many runs.")
]
ShardIndex = Annotated[
    int | None, option(RUN, "--shard-index", min=0, help="Which of those runs this is, counting from 0.")
]
Limit = Annotated[int | None, option(PICTURES, "--limit", help="Process only the first N pictures.")]


#: Parameters of commands whose names differ from that of their setting.
NAMED = {"input_": "input.path", "output": "output.path", "format_": "output.format"}


def given(parameters: Mapping[str, Any], context: typer.Context | None = None) -> dict[str, Any]:
    """The settings among a command's `parameters`: flags override --set, which overrides variables.

    --method and --variants override each other's setting in the job.

    Args:
        context: that of a command with --set; it tells flags from environment variables.

    Raises:
        UsageError: both of these are given, or as `parse_set`.
    """
    named = {NAMED.get(name, name): value for name, value in parameters.items()}
    known = {*Job.model_fields, *NAMED.values()}
    flags = {key: value for key, value in named.items() if key in known and value is not None}
    if "method" in flags and "variants" in flags:
        raise UsageError("--method and --variants: give only one; --variants names several recipes")
    if "method" in flags:
        flags["variants"] = ()
    variables = {key: flags.pop(key) for key in list(flags) if context and from_variable(context, key)}
    return variables | parse_set(parameters.get("set_") or []) | flags


def from_variable(context: typer.Context, parameter: str) -> bool:
    """Whether an environment variable gave a command's `parameter`."""
    source = context.get_parameter_source(parameter)
    return source is not None and source.name == "ENVIRONMENT"


def refuse_sweep(job: Job, command: str) -> None:
    """Raises UsageError if `job` has a list of strengths or seeds, which `command` cannot take."""
    if job.sweeps:
        raise UsageError(
            f"strength, seed: {command} takes one of each; give them, for example "
            "--strength 0.8 --seed 0"
        )
