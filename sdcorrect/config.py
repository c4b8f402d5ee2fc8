"""The job: what a YAML file, `--set` and flags say, checked before a model is loaded.

Imports no torch.
"""

import math
import os
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from string import Formatter
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import ErrorDetails
from typing_extensions import Self

from sdcorrect.core.plan import SchedulerName, check_word_for_word, effective_steps
from sdcorrect.core.syntax import check_networks
from sdcorrect.errors import UsageError
from sdcorrect.recipes import Inject, Recipe, RecipeField, built_in
from sdcorrect.settings import (
    ControlNet,
    Lora,
    ModelSettings,
    Settings,
    TextualInversion,
    anchor_sources,
)

#: Settings that are paths: in a YAML file they are relative to that file.
PATHS = (("input", "path"), ("input", "captions"), ("input", "classes"), ("output", "path"))
#: What may stand in braces in a prompt.
PLACEHOLDERS = ("caption", "class", "stem")
LIST_SUFFIXES = {".txt", ".csv", ".jsonl"}


def placeholders(template: str) -> set[str]:
    """The placeholders in the braces of a prompt.

    Raises:
        ValueError: something else stands in them; the message names what may.
    """
    known = ", ".join(f"{{{name}}}" for name in PLACEHOLDERS)
    advice = f"{known} may stand in a prompt, and {{{{ }}}} for braces themselves"
    try:
        fields = [field[1:] for field in Formatter().parse(template) if field[1] is not None]
    except ValueError:
        raise ValueError(f"{template!r} has a brace without its other; {advice}") from None
    for name, specification, conversion in fields:
        if name not in PLACEHOLDERS or specification or conversion:
            raise ValueError(f"there is no placeholder {{{name}}}; {advice}")
    return {str(name) for name, _, _ in fields}


def _check_template(template: str) -> str:
    placeholders(template)
    check_networks(template)
    return template


Template = Annotated[str, AfterValidator(_check_template)]


class Input(Settings):
    """Which pictures: a folder, one file, a glob pattern, or a list (.txt, .csv, .jsonl)."""

    path: Path
    recursive: bool = True
    #: COCO captions (.json) for {caption}; without them, the .txt of the same stem beside a picture
    captions: Path | None = None
    #: names for {class} by folder: `n01440764 tench, Tinca tinca` lines, .csv, .json or .yaml
    classes: Path | None = None
    #: pictures with a shorter or longer side, px, or more elongated (longer / shorter), are left out
    min_side: Annotated[int, Field(ge=1)] | None = None
    max_side: Annotated[int, Field(ge=1)] | None = None
    max_aspect: Annotated[float, Field(ge=1)] | None = None
    #: larger pictures fail; at most what Pillow itself agrees to open
    max_pixels: Annotated[int, Field(ge=1, le=178_956_970)] = 64_000_000


class Output(Settings):
    path: Path
    format: Literal["png", "jpg", "webp"] = "png"
    embed_metadata: bool = True  #: the web UIs' `parameters` inside each picture


class Job(ModelSettings):
    """One translation job: pictures in, the same pictures under a new prompt out."""

    input: Input
    output: Output
    prompt: Template = Field("", validate_default=True)
    negative_prompt: Template = ""
    source_prompt: Template | None = None
    equalizer: dict[str, Annotated[float, Field(ge=0)]] = Field(default_factory=dict)
    method: RecipeField = Field(default_factory=lambda: built_in("correct"))
    variants: tuple[RecipeField, ...] = ()
    strength: Annotated[float, Field(gt=0, le=1)] = 0.8
    steps: Annotated[int, Field(ge=1, le=999)] = 20
    guidance_scale: Annotated[float, Field(ge=0)] = 7.5
    scheduler: SchedulerName = "ddim"
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    size: Annotated[int, Field(ge=8)] | None = None
    resize: Literal["fit", "crop", "none"] = "fit"
    batch_size: Annotated[int, Field(ge=1)] = 1
    limit: Annotated[int, Field(ge=1)] | None = None
    #: a folder for the latents of full inversions, which are kept in memory without it
    spill: Path | None = None

    @field_validator("prompt")
    @classmethod
    def _is_given(cls, prompt: str, info: ValidationInfo) -> str:
        """Only a list can do without: it may give each picture its own."""
        given: Input | None = info.data.get("input")
        if not prompt and (given is None or given.path.suffix.lower() not in LIST_SUFFIXES):
            raise ValueError('is missing; give -p "...", or `prompt: ...` in the job')
        return prompt

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        listed = self.input.path.suffix.lower() in LIST_SUFFIXES
        if effective_steps(self.steps, self.strength) == 0:
            raise ValueError(
                f"strength {self.strength:g} of {self.steps} steps is not one whole step; "
                f"raise strength to {math.ceil(1000 / self.steps) / 1000} or more, or raise steps"
            )
        names = [recipe.name for recipe in self.recipes]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"variants: {twice[0]!r} stands there twice; give each its own name")
        for recipe in self.recipes:
            if recipe.needs_source_prompt and not self.source_prompt and not listed:
                raise ValueError(
                    f"recipe {recipe.name} needs source_prompt: what the pictures show before, "
                    f'such as source_prompt: "a photo of a cat"'
                )
            if recipe.words == "replace" and not listed and not self._has_placeholders:
                try:
                    check_word_for_word(self.source_prompt or "", self.prompt)
                except UsageError as error:
                    raise ValueError(f"recipe {recipe.name}: {error}") from None
            if recipe.words == "reweight" and not self.equalizer:
                raise ValueError(f"recipe {recipe.name} needs equalizer, such as {{snowy: 2}}")
        if self.equalizer and not any(recipe.words for recipe in self.recipes):
            raise ValueError(
                "equalizer: weighs the words of cross-attention, which no recipe of this job puts back; "
                "use p2p-reweight"
            )
        return self

    @property
    def _has_placeholders(self) -> bool:
        """Whether the prompts are other ones for each picture."""
        return bool(placeholders(self.prompt) | placeholders(self.source_prompt or ""))

    @property
    def recipes(self) -> tuple[Recipe, ...]:
        """The recipes to run: `variants` where given, else `method` alone."""
        return self.variants or (self.method,)

    @property
    def effective_steps(self) -> int:
        return effective_steps(self.steps, self.strength)


def load_job(file: Path | None, overrides: Mapping[str, Any]) -> Job:
    """Read `file`, lay `overrides` (dotted key -> value) over it, and check the whole.

    Paths in the file are relative to the file, paths in `overrides` to the working directory.

    Raises:
        UsageError: it cannot be read or is not a valid job; a line for each thing that is wrong.
    """
    text = _read(file) if file else ""
    try:
        raw = yaml.safe_load(text) or {}
        tree = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise UsageError(f"{file}:{line}: not YAML: {error.problem}") from None
    except yaml.YAMLError as error:
        raise UsageError(f"{file}: not YAML: {' '.join(str(error).split())}") from None
    _refuse_second_keys(file, tree)
    if not isinstance(raw, dict):
        raise UsageError(f"{file}: expected settings such as `prompt: ...`, found {_kind(raw)}")
    if file:
        anchor_paths(raw, file.parent)
    settings = raw
    for key, value in overrides.items():
        settings = _overlay(settings, key, value)
    try:
        return Job.model_validate(settings)
    except ValidationError as errors:
        lines = [_explain(error, file, tree, overrides) for error in errors.errors()]
        raise UsageError("\n".join(lines)) from None


def parse_set(assignments: Sequence[str]) -> dict[str, Any]:
    """`key.sub=value` as the shell gives it; values are YAML.

    Raises:
        UsageError: no `=`, or a value that is not YAML.
    """
    parsed: dict[str, Any] = {}
    for assignment in assignments:
        key, equals, value = assignment.partition("=")
        if not equals or not key:
            raise UsageError(f"--set {assignment}: expected key=value, such as --set output.format=jpg")
        try:
            parsed[key] = yaml.safe_load(value)
        except yaml.YAMLError:
            raise UsageError(f"--set {assignment}: the value is not YAML; quote it") from None
    return parsed


def absolute_paths(job: Job) -> Job:
    """`job` as it is in any working directory."""
    raw = job.model_dump(mode="json")
    anchor_paths(raw, Path.cwd())
    return Job.model_validate(raw)


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{file}: cannot read the job: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UsageError(f"{file}: cannot read the job: it is not UTF-8 text") from None


def anchor_paths(raw: dict[str, Any], folder: Path) -> None:
    """Make paths that are relative to `folder` relative to the working directory, in place."""
    for section, key in PATHS:
        inner = raw.get(section)
        if isinstance(inner, dict) and isinstance(inner.get(key), str):
            inner[key] = os.path.normpath(folder / Path(inner[key]).expanduser())
    if isinstance(raw.get("spill"), str):
        raw["spill"] = os.path.normpath(folder / Path(raw["spill"]).expanduser())
    anchor_sources(raw, folder)


def _refuse_second_keys(file: Path | None, node: yaml.Node | None) -> None:
    """YAML lets the last of two equal keys win in silence."""
    if isinstance(node, yaml.SequenceNode):
        for item in node.value:
            _refuse_second_keys(file, item)
    elif isinstance(node, yaml.MappingNode):
        seen = set()
        for key, value in node.value:
            if key.value in seen:
                line = key.start_mark.line + 1
                raise UsageError(f"{file}:{line}: {key.value}: stands here a second time; keep one")
            seen.add(key.value)
            _refuse_second_keys(file, value)


def _overlay(settings: dict[str, Any], key: str, value: Any) -> dict[str, Any]:
    head, _, rest = key.partition(".")
    if rest:
        inner = settings.get(head)
        value = _overlay(inner if isinstance(inner, dict) else {}, rest, value)
    return {**settings, head: value}


def _explain(
    error: ErrorDetails, file: Path | None, tree: yaml.Node | None, overrides: Mapping[str, Any]
) -> str:
    location = error["loc"]
    key = ".".join(map(str, location))
    overridden = any(key == name or key.startswith(f"{name}.") for name in overrides)
    where = "" if overridden or not file else f"{file}:{_line_of(tree, location)}: "
    match error["type"]:
        case "extra_forbidden":
            known = _known_keys(location[:-1])
            near = get_close_matches(str(location[-1]), known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(known)}"
            return f"{where}{key}: there is no such setting; {hint}"
        case "missing":
            return f"{where}{key}: is missing; {_HOW_TO_GIVE.get(key, 'add it')}"
        case "value_error":
            message = error["msg"].removeprefix("Value error, ")
            return f"{where}{key}: {message}" if key else f"{where}{message}"
        case _:
            expected = error["msg"].replace("Input should", "should", 1)
            return f"{where}{key}: {expected}; found {_shown(error['input'])}"


_HOW_TO_GIVE = {
    "input": "give a folder of pictures, or `input: {path: ...}` in the job",
    "output": "give -o DIR, or `output: {path: ...}` in the job",
}


def _known_keys(location: Sequence[int | str]) -> list[str]:
    sections: dict[int | str, type[BaseModel]] = {
        "input": Input,
        "output": Output,
        "method": Recipe,
        "variants": Recipe,
        "inject": Inject,
        "loras": Lora,
        "textual_inversions": TextualInversion,
        "controlnets": ControlNet,
    }
    innermost = next((sections[part] for part in reversed(location) if part in sections), Job)
    return list(innermost.model_fields)


def _line_of(node: yaml.Node | None, location: Sequence[int | str]) -> int:
    """The line, counted from 1, of the deepest part of `location` that the file has."""
    line = 1
    for part in location:
        if isinstance(node, yaml.MappingNode):
            pair = next((pair for pair in node.value if pair[0].value == part), None)
            if pair is None:
                break
            line, node = pair[0].start_mark.line + 1, pair[1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int):
            node = node.value[part]
            line = node.start_mark.line + 1
        else:
            break
    return line


def _kind(value: object) -> str:
    return {list: "a list", str: "text", int: "a number", float: "a number"}.get(type(value), "a value")


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
