"""The job: a YAML file, `--set` and flags, merged and checked before a model is loaded.

Imports no torch.
"""

import math
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from string import Formatter
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    Field,
    StrictBool,
    StrictFloat,
    StrictInt,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import ErrorDetails
from typing_extensions import Self
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from sdcorrect.core.plan import SchedulerName, check_word_for_word, effective_steps
from sdcorrect.core.syntax import check_networks
from sdcorrect.errors import UsageError, did_you_mean, printable, shortened
from sdcorrect.paths import expand
from sdcorrect.plainyaml import LONGEST, MOST_BYTES, NotPlain, read_yaml
from sdcorrect.reading import decode, read_bytes
from sdcorrect.recipes import Inject, Recipe, built_in
from sdcorrect.recipes.built_in import RecipeField
from sdcorrect.recipes.fields import LONGEST_NAME
from sdcorrect.settings import (
    ALPHA,
    WORDS,
    WRITTEN,
    ControlNet,
    FilledIn,
    Lora,
    ModelSettings,
    Settings,
    Source,
    TextualInversion,
    anchor_sources,
)
from sdcorrect.sweep import ONE, SEVERAL, Swept, Variant, several, variants_of

#: Settings that are paths; in a YAML file they are relative to that file.
PATHS = (("input", "path"), ("input", "captions"), ("input", "classes"), ("output", "path"))
#: The names that may appear in braces in a prompt.
PLACEHOLDERS = ("caption", "class", "stem", "parameters")
#: PIE-Bench's mapping file, and the lists of Wild-TI2I and ImageNet-R-TI2I.
BENCHMARK_SUFFIXES = {".json", ".yaml", ".yml"}
LIST_SUFFIXES = {".txt", ".csv", ".jsonl", *BENCHMARK_SUFFIXES}
MOST_PIXELS = 178_956_970  #: the largest picture that Pillow itself agrees to open


def placeholders(template: str) -> set[str]:
    """The names in the braces of a prompt.

    Raises:
        ValueError: a name is not a known placeholder, or a brace is unpaired.
    """
    known = ", ".join(f"{{{name}}}" for name in PLACEHOLDERS)
    advice = f"prompts can contain {known}, and {{{{ }}}} for literal braces"
    try:
        fields = [field[1:] for field in Formatter().parse(template) if field[1] is not None]
    except ValueError:
        raise ValueError(f"{template!r} has an unpaired brace; {advice}") from None
    for name, specification, conversion in fields:
        if name not in PLACEHOLDERS or specification or conversion:
            raise ValueError(f"there is no placeholder {{{name}}}; {advice}")
    return {str(name) for name, _, _ in fields}


def _check_template(template: str) -> str:
    placeholders(template)
    return template


def _check_networks(template: str) -> str:
    check_networks(template)
    return template


def _one_text(words: Any) -> Any:
    is_list = isinstance(words, list | tuple) and all(isinstance(word, str) for word in words)
    return " ".join(words) if is_list else words


#: What a picture can have of its source's file.
Keep = Literal["exif", "profile"]
#: The formats that carry transparency.
WITH_ALPHA = ("png", "webp")
#: A prompt of a single picture may name LoRAs: then only this picture fails, unless the job loads them.
PictureTemplate = Annotated[str, AfterValidator(_check_template)]
Template = Annotated[PictureTemplate, AfterValidator(_check_networks)]
FilePath = Annotated[Path, FilledIn]


class Input(Settings):
    """The pictures to translate: a folder, a file, a glob pattern, or a list (.txt, .csv, .jsonl; for
    benchmarks .json, .yaml)."""

    path: FilePath
    """a folder, a picture, a pattern such as '**/*.jpg', or a list: .txt, .csv or .jsonl"""
    recursive: StrictBool = True
    """include subfolders"""
    captions: FilePath | None = None
    """COCO captions (.json) for {caption}; by default, the .txt file beside each picture"""
    classes: FilePath | None = None
    """names for {class} by folder: lines such as `n01440764 tench, Tinca tinca`, .csv, .json or .yaml"""
    min_side: Annotated[StrictInt, Field(ge=1)] | None = None
    """leave out pictures whose shorter side is below this, in px"""
    max_side: Annotated[StrictInt, Field(ge=1)] | None = None
    """leave out pictures whose longer side is above this, in px"""
    max_aspect: Annotated[StrictFloat, Field(ge=1)] | None = None
    """leave out pictures whose aspect ratio (longer side / shorter side) is above this"""
    max_pixels: Annotated[StrictInt, Field(ge=1, le=MOST_PIXELS)] = 64_000_000
    """refuse to read pictures with more pixels; they are recorded as failed"""


class Output(Settings):
    """Where pictures are saved, and in which format."""

    path: FilePath
    """the output folder"""
    format: Literal["png", "jpg", "webp"] = "png"
    """image format"""
    png_compression: Literal["fast"] | Annotated[StrictInt, Field(ge=0, le=9)] = "fast"
    """zlib's level, 0 to 9, or fast: half the time of level 6 for hardly larger files"""
    embed_metadata: StrictBool = True
    """save prompt and settings in each picture, as the `parameters` that web UIs read"""
    keep: tuple[Keep, ...] = ()
    """what each output takes from its source: exif, and profile, to which its colours are converted"""


class Job(ModelSettings):
    """A translation job: which pictures, which prompt, which method and model, which output folder."""

    input: Input
    """the pictures to translate; see the keys of `input`"""
    output: Output
    """where the results are saved; see the keys of `output`"""
    prompt: Template = Field("", validate_default=True)
    """what the pictures should become; {caption}, {class}, {stem} and {parameters} are filled in"""
    negative_prompt: Template = ""
    """what the pictures should not become; the same are filled in"""
    source_prompt: Template | None = None
    """what the pictures show, for recipes that need it, such as p2p"""
    equalizer: dict[str, Annotated[StrictFloat, Field(ge=0)]] = Field(default_factory=dict)
    """weights for words of the prompt in p2p-reweight, such as {snowy: 2}"""
    mask: Source | None = None
    """where to edit: a folder of masks (white is edited), PIE-Bench's mapping file, alpha, or words"""
    mask_words: Annotated[Template, BeforeValidator(_one_text)] | None = None
    """with mask: words, the words of source_prompt (or prompt) whose attention becomes the mask"""
    mask_threshold: Annotated[StrictFloat, Field(gt=0, lt=1)] = 0.5
    """with mask: words, the attention that counts as inside, from 0 (picture's least) to 1 (its most)"""
    mask_feather: Annotated[StrictFloat, Field(ge=0, le=1024)] = 0.0
    """width in px over which the edit fades in, inwards from the mask's edge"""
    invert_mask: StrictBool = False
    """edit outside the mask instead of inside"""
    method: RecipeField = Field(default_factory=lambda: built_in("correct"))
    """the name of a recipe, or a recipe of your own"""
    variants: tuple[RecipeField, ...] = ()
    """several recipes to compare, instead of method; they share encoding and inversion"""
    strength: Swept[Annotated[StrictFloat, Field(gt=0, le=1)]] = 0.8
    """how far to go from the source; a list sweeps over its strengths, a folder for each"""
    steps: Annotated[StrictInt, Field(ge=1, le=999)] = 20
    """sampling steps at strength 1; at strength 0.8, 16 of 20 are run"""
    guidance_scale: Annotated[StrictFloat, Field(ge=0)] = 7.5
    """scale of classifier-free guidance; 1 or less turns guidance off"""
    scheduler: SchedulerName = "ddim"
    """the sampler"""
    steps_offset: Literal[0, 1] = 1
    """added to every timestep: 1 as in the paper, 0 as in PnPInversion's Prompt-to-Prompt, MasaCtrl"""
    seed: Swept[Annotated[StrictInt, Field(ge=0, lt=2**63)]] = 0
    """random seed; each picture's noise is drawn from it and the picture's content; a list sweeps"""
    size: Annotated[StrictInt, Field(ge=8, le=16_384)] | None = None
    """longer side in px, by default what the model was trained on; SD takes multiples of 64"""
    resize: Literal["fit", "crop", "none"] = "fit"
    """fit: scale the longer side to `size`; crop: take a square from the centre; none: keep the size"""
    background: Literal["white", "transparent"] = "white"
    """behind transparent sources: white, or their own alpha channel in the output too"""
    match_colors: Literal["source"] | None = None
    """source: give each picture the colours of its source, by matching the histogram of each channel"""
    batch_size: Literal["auto"] | Annotated[StrictInt, Field(ge=1)] = 1
    """pictures per batch; auto: as many as fit in memory, found once per job"""
    limit: Annotated[StrictInt, Field(ge=1)] | None = None
    """process only the first N pictures"""
    spill: FilePath | None = None
    """a folder to keep the latents of full inversions in; by default, they stay in memory"""

    @field_validator("prompt")
    @classmethod
    def _is_given(cls, prompt: str, info: ValidationInfo) -> str:
        """A list may do without a prompt, because it can give each picture its own."""
        given: Input | None = info.data.get("input")
        if not prompt and (given is None or given.path.suffix.lower() not in LIST_SUFFIXES):
            raise ValueError('is missing; give -p "...", or `prompt: ...` in the job')
        return prompt

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        listed = self.input.path.suffix.lower() in LIST_SUFFIXES
        if effective_steps(self.steps, least := min(self.strengths)) == 0:
            raise ValueError(
                f"strength {least:g} of {self.steps} steps is less than one step; "
                f"raise strength to {math.ceil(1000 / self.steps) / 1000} or more, or raise steps"
            )
        names = [recipe.name for recipe in self.recipes]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"variants: {twice[0]!r} is listed twice; give each variant its own name")
        self._check_names_of_sweep()
        for recipe in self.recipes:
            if recipe.needs_source_prompt and not self.source_prompt and not listed:
                raise ValueError(
                    f"recipe {recipe.name} needs source_prompt, which says what the pictures show, "
                    f'such as source_prompt: "a photo of a cat"'
                )
            if recipe.words and self.prompt_syntax != "plain":
                raise ValueError(
                    f"recipe {recipe.name} aligns the words of two plain prompts; "
                    "set prompt_syntax: plain"
                )
            if recipe.words == "replace" and not listed and not self._has_placeholders:
                try:
                    check_word_for_word(self.source_prompt or "", self.prompt)
                except UsageError as error:
                    raise ValueError(f"recipe {recipe.name}: {error}") from None
            if recipe.words == "reweight" and not self.equalizer:
                raise ValueError(f"recipe {recipe.name} needs equalizer, such as {{snowy: 2}}")
        self._check_mask(listed)
        if self.background == "transparent" and self.output.format not in WITH_ALPHA:
            raise ValueError(
                f"background: transparent takes a format that carries it, and {self.output.format} does "
                f"not; set output.format: {' or '.join(WITH_ALPHA)}"
            )
        if self.equalizer and not any(recipe.words for recipe in self.recipes):
            raise ValueError(
                "equalizer: no recipe of this job uses it, because none edits cross-attention; "
                "use p2p-reweight"
            )
        return self

    def _check_names_of_sweep(self) -> None:
        for name, times in Counter(variant.name for variant in self.expanded).items():
            if times > 1:
                raise ValueError(
                    f"variants: the sweep names a variant {name}, and there is a recipe of that name; "
                    "rename the recipe"
                )
            if len(name) > LONGEST_NAME:
                raise ValueError(
                    f"variants: the sweep names a variant {name}, longer than {LONGEST_NAME} letters; "
                    "give the recipe a shorter name"
                )

    def _check_mask(self, listed: bool) -> None:
        for key in ("mask_words", "mask_threshold", "mask_feather", "invert_mask"):
            of_words = key in ("mask_words", "mask_threshold")
            if getattr(self, key) == type(self).model_fields[key].default:
                continue
            if self.mask is None or (of_words and self.mask != WORDS):
                raise ValueError(f"{key} needs mask{f': {WORDS}' if of_words else ''}")
        if self.mask == WORDS and self.prompt_syntax != "plain":
            raise ValueError("mask: words works only with plain prompts; set prompt_syntax: plain")
        if self.mask == WORDS and not self.mask_words and not listed:
            raise ValueError('mask: words needs mask_words, such as mask_words: "cat"')

    @property
    def _has_placeholders(self) -> bool:
        """Whether the prompts differ from picture to picture."""
        return bool(placeholders(self.prompt) | placeholders(self.source_prompt or ""))

    @property
    def recipes(self) -> tuple[Recipe, ...]:
        """The recipes to run: `variants` where given, else `method` alone."""
        return self.variants or (self.method,)

    @property
    def expanded(self) -> tuple[Variant, ...]:
        """All that has a folder of its own: the recipes, in a sweep at each strength and seed."""
        return variants_of(self.recipes, self.strength, self.seed)

    @property
    def sweeps(self) -> bool:
        """Whether it has a list of strengths or of seeds."""
        return isinstance(self.strength, tuple) or isinstance(self.seed, tuple)

    @property
    def strengths(self) -> tuple[float, ...]:
        return several(self.strength)

    @property
    def seeds(self) -> tuple[int, ...]:
        return several(self.seed)

    @property
    def effective_steps(self) -> int:
        """At the highest strength."""
        return effective_steps(self.steps, max(self.strengths))


def load_job(file: Path | None, overrides: Mapping[str, Any]) -> Job:
    """Read a job from `file`, apply `overrides` (dotted key -> value), and validate it.

    Paths in the file are relative to the file, paths in `overrides` to the working directory.

    Raises:
        UsageError: the file cannot be read, or the job is invalid; one line for each fault.
    """
    raw, tree = read_yaml_file(file, "cannot read the job") if file else ({}, None)
    raw = {} if raw is None else raw
    if not isinstance(raw, dict):
        raise UsageError(
            f"{printable(file)}: expected settings such as `prompt: ...`, found {_kind(raw)}"
        )
    if file:
        anchor_paths(raw, file.parent)
    settings = raw
    for key, value in overrides.items():
        settings = _overlay(settings, key, value)
    try:
        return Job.model_validate(settings, context=WRITTEN)
    except ValidationError as errors:
        told = _joined(errors.errors(), settings)
        lines = [_explain(error, file, tree, overrides) for error in told]
        raise UsageError("\n".join(lines)) from None


def parse_set(assignments: Sequence[str]) -> dict[str, Any]:
    """Parse assignments such as `output.format=jpg` from the command line; values are YAML.

    Raises:
        UsageError: an assignment has no `=`, or its value is not YAML.
    """
    parsed: dict[str, Any] = {}
    for assignment in assignments:
        key, equals, value = assignment.partition("=")
        if not equals or not key:
            raise UsageError(
                f"--set {shortened(assignment, LONGEST)}: expected key=value, such as "
                "--set output.format=jpg"
            )
        try:
            parsed[key], _ = read_yaml(value)
        except NotPlain as error:
            raise UsageError(f"--set {printable(key)}: {error}") from None
    return parsed


def absolute_paths(job: Job) -> Job:
    """`job` with absolute paths, so that it holds in any working directory."""
    raw = job.model_dump(mode="json")
    anchor_paths(raw, Path.cwd())
    return Job.model_validate(raw)


def read_yaml_file(file: Path, failing: str = "cannot be read") -> tuple[Any, Node | None]:
    """The content of a YAML file, and its node tree.

    Raises:
        UsageError: it cannot be read (the message says `failing`), or is not plain YAML.
    """
    try:
        return read_yaml(decode(read_bytes(file, MOST_BYTES)))
    except OSError as error:
        raise UsageError(f"{printable(file)}: {failing}: {error.strerror}") from None
    except NotPlain as error:
        raise UsageError(f"{printable(file)}:{error.line}: {error}") from None
    except ValueError as error:
        raise UsageError(f"{printable(file)}: {failing}: {error}") from None


def anchor_paths(raw: dict[str, Any], folder: Path) -> None:
    """Make paths that are relative to `folder` relative to the working directory, in place."""
    for section, key in PATHS:
        inner = raw.get(section)
        if isinstance(inner, dict) and key in inner:
            inner[key] = _anchored(inner[key], folder)
    if "spill" in raw:
        raw["spill"] = _anchored(raw["spill"], folder)
    if raw.get("mask") not in (None, ALPHA, WORDS):
        mask = _anchored(raw["mask"], folder)
        raw["mask"] = f"./{mask}" if mask in (ALPHA, WORDS) else mask
    anchor_sources(raw, folder)


def _anchored(path: Any, folder: Path) -> Any:
    if not isinstance(path, str) or not path.strip():
        return path
    try:
        return os.path.normpath(folder / expand(path, folder))
    except ValueError:
        return path  # validation reports it, with its line


def _overlay(settings: dict[str, Any], key: str, value: Any) -> dict[str, Any]:
    head, _, rest = key.partition(".")
    if rest:
        inner = settings.get(head)
        value = _overlay(inner if isinstance(inner, dict) else {}, rest, value)
    return {**settings, head: value}


def _joined(errors: Sequence[ErrorDetails], settings: Any) -> Iterator[ErrorDetails]:
    """Join the `errors` about one value that may be of several kinds."""
    by_place: dict[tuple[int | str, ...], list[ErrorDetails]] = {}
    for error in errors:
        by_place.setdefault(_place(error["loc"], settings), []).append(error)
    for place, alike in by_place.items():
        expected = [error["msg"].removeprefix("Input should be ") for error in alike]
        message = alike[0]["msg"] if len(alike) == 1 else f"should be {' or '.join(expected)}"
        yield {**alike[0], "loc": place, "msg": message}


def _place(location: tuple[int | str, ...], settings: Any) -> tuple[int | str, ...]:
    """Where in `settings` an error is: below one value there are but the kinds that it may be of."""
    value, location = settings, tuple(part for part in location if part not in (ONE, SEVERAL))
    for depth, part in enumerate(location):
        if not isinstance(value, dict | list | tuple):
            return location[:depth]
        try:
            value = value[part]  # type: ignore[index]
        except LookupError:
            return location
    return location


def _explain(
    error: ErrorDetails, file: Path | None, tree: Node | None, overrides: Mapping[str, Any]
) -> str:
    location = error["loc"]
    key = ".".join(map(str, location))
    overridden = any(key == name or key.startswith(f"{name}.") for name in overrides)
    line, node = _find(None if overridden else tree, location)
    where = "" if overridden or not file else f"{printable(file)}:{line}: "
    key = printable(key)
    match error["type"]:
        case "extra_forbidden":
            known = _known_keys(location[:-1])
            return f"{where}{key}: there is no such setting; {did_you_mean(location[-1], known)}"
        case "missing":
            return f"{where}{key}: is missing; {_HOW_TO_GIVE.get(key, 'add it')}"
        case "value_error":
            message = error["msg"].removeprefix("Value error, ")
            return f"{where}{key}: {message}" if key else f"{where}{message}"
        case "path_type":
            return f"{where}{key}: should be a path; found {_found(error['input'], node)}"
        case _:
            expected = error["msg"].removeprefix("Input ")
            return f"{where}{key}: {expected}; found {_found(error['input'], node)}"


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


def _find(node: Node | None, location: Sequence[int | str]) -> tuple[int, Node | None]:
    """The line, from 1, of the deepest part of `location` in the file, and the node if all is there."""
    line = 1
    for part in location:
        if isinstance(node, MappingNode):
            pair = next((pair for pair in node.value if pair[0].value == part), None)
            if pair is None:
                return line, None
            line, node = pair[0].start_mark.line + 1, pair[1]
        elif isinstance(node, SequenceNode) and isinstance(part, int):
            node = node.value[part]
            line = node.start_mark.line + 1
        else:
            return line, None
    return line, node


def _kind(value: object) -> str:
    return {list: "a list", str: "text", int: "a number", float: "a number"}.get(type(value), "a value")


def _found(value: object, node: Node | None) -> str:
    """`value` as YAML, preceded by its spelling in the file where that differs."""
    words = {True: "true", False: "false", None: "null"}
    shown = words[value] if value is None or isinstance(value, bool) else shortened(repr(value), LONGEST)
    if isinstance(node, ScalarNode) and shown in words.values() and node.value.lower() != shown:
        return f"{node.value or 'nothing'}, which YAML reads as {shown}"
    return shown
