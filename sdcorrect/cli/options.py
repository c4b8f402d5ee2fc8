"""Options that several commands have: each overrides the job's setting, where it is given."""

from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import typer

from sdcorrect.config import Job
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


def lora(text: str) -> dict[str, str | float]:
    """PATH[:WEIGHT] as a job has it; raises BadPath as `path` does."""
    file, colon, weight = source(text).rpartition(":")
    with suppress(ValueError):
        if colon and not Path(source(text)).exists():
            return {"path": file, "weight": float(weight)}
    return {"path": source(text)}


def names(text: str) -> list[str]:
    """Names with commas between."""
    return [name.strip() for name in text.split(",")]


def swept(text: str) -> Any:
    """A number, or numbers with commas between; what is none, the job tells of."""
    numbers = [_number(part.strip()) for part in text.split(",")]
    return numbers if len(numbers) > 1 else numbers[0]


def _number(text: str) -> int | float | str:
    for kind in (int, float):
        with suppress(ValueError):
            return kind(text)
    return text


#: The panels of help.
PICTURES, TRANSLATION, MODEL, RUN = "Pictures", "Translation", "Model", "Run"


def _option(panel: str, *names: str, help: str, key: str | None = None, **more: Any) -> Any:
    """An option in `panel`; without it, its setting `key` of the job counts."""
    if key is not None:
        more.setdefault("show_default", _default(key))
    return typer.Option(*names, help=help, rich_help_panel=panel, **more)


def _default(key: str) -> str:
    """What a job has for `key` where nothing is said."""
    value = Job.model_fields[key].get_default(call_default_factory=True)
    return str(getattr(value, "name", value))


Config = Annotated[
    Path | None,
    _option(RUN, "--config", "-c", parser=path, help="A job, as YAML; flags count for more than it."),
]
Set = Annotated[
    list[str] | None,
    _option(RUN, "--set", metavar="KEY=VALUE", help="Any setting of a job, such as resize=crop."),
]
Prompt = Annotated[
    str | None, _option(TRANSLATION, "--prompt", "-p", help="What the pictures should become.")
]
NegativePrompt = Annotated[
    str | None, _option(TRANSLATION, "--negative-prompt", help="What they should not become.")
]
Mask = Annotated[
    str | None,
    _option(
        TRANSLATION,
        "--mask",
        parser=source,
        metavar="FOLDER|alpha|words",
        help="Edit within a mask: of a folder, white where to edit; the pictures' own alpha; or where "
        "mask_words are seen.",
    ),
]
Method = Annotated[
    str | None,
    _option(TRANSLATION, "--method", key="method", help="A recipe; `sdcorrect recipes` lists them."),
]
Variants = Annotated[
    str | None,
    _option(TRANSLATION, "--variants", help="Several recipes on the same pictures: sdedit,correct."),
]
Strength = Annotated[
    Any,
    _option(
        TRANSLATION,
        "--strength",
        key="strength",
        parser=swept,
        metavar="NUMBER[,...]",
        help="How far to go from the source: over 0, which would keep it, to 1. `translate` takes "
        "several, a sweep: 0.5,0.8.",
    ),
]
Steps = Annotated[
    int | None, _option(TRANSLATION, "--steps", key="steps", help="Sampling steps at strength 1.")
]
GuidanceScale = Annotated[
    float | None,
    _option(
        TRANSLATION, "--guidance-scale", key="guidance_scale", help="How closely to follow the prompt."
    ),
]
Seed = Annotated[
    Any,
    _option(
        TRANSLATION,
        "--seed",
        key="seed",
        parser=swept,
        metavar="NUMBER[,...]",
        help="Random seed. `translate` takes several, a sweep: 0,1,2.",
    ),
]
Model = Annotated[
    str | None,
    _option(
        MODEL,
        "--model",
        key="model",
        help="mini, a diffusers folder, a .safetensors or .ckpt file, or a hub id.",
    ),
]
Loras = Annotated[
    list[Any] | None,
    _option(
        MODEL, "--lora", parser=lora, metavar="PATH[:WEIGHT]", help="A LoRA; give several, if you like."
    ),
]
Vae = Annotated[
    str | None, _option(MODEL, "--vae", parser=source, help="Another VAE: a file, a folder or a hub id.")
]
Controlnets = Annotated[
    list[str] | None,
    _option(MODEL, "--controlnet", parser=source, help="A ControlNet, on the pictures' Canny edges."),
]
Size = Annotated[
    int | None,
    _option(
        PICTURES,
        "--size",
        show_default="the model's own",
        help="Pixels of the longer side, to which pictures are resized.",
    ),
]
Device = Annotated[
    str | None,
    _option(
        MODEL,
        "--device",
        key="device",
        envvar="SDCORRECT_DEVICE",
        help="auto, cpu, cuda, cuda:1 or mps.",
    ),
]
Dtype = Annotated[
    str | None,
    _option(
        MODEL,
        "--dtype",
        key="dtype",
        envvar="SDCORRECT_DTYPE",
        help="auto, float32, float16 or bfloat16.",
    ),
]
Offline = Annotated[
    bool,
    _option(
        MODEL,
        "--offline",
        envvar="SDCORRECT_OFFLINE",
        help="Use what `sdcorrect prefetch` fetched; ask no hub.",
    ),
]
Format = Annotated[
    str | None, _option(PICTURES, "--format", show_default="png", help="png, jpg or webp.")
]
BatchSize = Annotated[
    str | None,
    _option(
        RUN,
        "--batch-size",
        key="batch_size",
        metavar="N|auto",
        help="Pictures at a time; auto: as many as memory takes.",
    ),
]
NumShards = Annotated[
    int | None, _option(RUN, "--num-shards", min=1, help="Divide the pictures among so many runs.")
]
ShardIndex = Annotated[
    int | None,
    _option(RUN, "--shard-index", min=0, help="Which of those runs this one is, counted from 0."),
]
Limit = Annotated[int | None, _option(PICTURES, "--limit", help="Process only the first N pictures.")]


def recipes(method: str | None, variants: str | None) -> dict[str, Any]:
    """--method and --variants as settings: either counts for more than both of a job.

    Raises:
        UsageError: both are given.
    """
    if method is not None and variants is not None:
        raise UsageError("--method and --variants: give one of them; --variants names several")
    if method is not None:
        return {"method": method, "variants": ()}
    return {"variants": names(variants) if variants is not None else None}
