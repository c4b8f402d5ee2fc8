"""Models of the files beside the pictures: `job.json`, records, and summaries of shards.

`sdcorrect schema` publishes them; everything that is written or read is validated by them.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import fields
from functools import cached_property
from math import ceil
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    PositiveInt,
    Tag,
    TypeAdapter,
    model_validator,
)
from typing_extensions import Self

from sdcorrect.config import Job, Output
from sdcorrect.inputs.items import Item
from sdcorrect.recipes.fields import RecipeName

#: Fields of an item that do not decide its result; the hash of its content is compared separately.
_NOT_DECISIVE = {"source", "key", "problem"}
#: Fields that do not count while they are None, so that folders of earlier versions remain valid.
_LATER = {"mask_words"}

Status = Literal["done", "failed", "filtered"]
OUTPUT_SUFFIXES = {f".{name}" for name in get_args(Output.model_fields["format"].annotation)}
#: The largest translated picture; no U-Net makes larger ones.
MAX_PIXELS = 1 << 26
#: The most shards of a job; each is counted separately.
MAX_SHARDS = 100_000
ShardCount = Annotated[int, Field(ge=1, le=MAX_SHARDS)]


#: The deepest nesting of settings; jobs and recipes have four levels.
MAX_DEPTH = 16


class Written(BaseModel):
    """A file, or a part of one, that is read back exactly as it was written."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    def as_json(self, indent: int | None = None) -> bytes:
        # json escapes bytes in file names that are not UTF-8; pydantic refuses them
        return json.dumps(self.model_dump(mode="json"), indent=indent).encode() + b"\n"


class InputFile(Written):
    path: str = Field(description="relative to the input folder; bytes that are not UTF-8 are escaped")
    sha256: str | None = Field(description="of the file's content; null if it could not be read")
    companions: tuple[str, ...] | None = Field(
        None,
        description="SHA-256 of the files of ready-made hints and the mask; null in records of versions "
        "that did not record them",
    )


def _check_output(path: str) -> str:
    if os.path.isabs(path) or ".." in path.split("/") or "\0" in path:
        raise ValueError("leads outside the output folder")
    if os.path.splitext(path)[1] not in OUTPUT_SUFFIXES:
        raise ValueError(f"does not end in one of {', '.join(sorted(OUTPUT_SUFFIXES))}")
    return path


class OutputFile(Written):
    path: Annotated[str, AfterValidator(_check_output)] = Field(
        description="relative to the output folder"
    )


def _check_area(size: tuple[int, int]) -> tuple[int, int]:
    if size[0] * size[1] > MAX_PIXELS:
        raise ValueError(f"more than {MAX_PIXELS:,} px")
    return size


Size = Annotated[tuple[PositiveInt, PositiveInt], AfterValidator(_check_area)]
Count = Annotated[int, Field(ge=0, lt=2**63)]
#: A count for one picture; sums over all pictures of a job fit in a `Count`.
PictureCount = Annotated[int, Field(ge=0, lt=2**31)]
Seconds = Annotated[float, Field(ge=0, lt=1e10, allow_inf_nan=False)]


class _Record(Written):
    """Fields of all records: the picture, the variant and the prompts."""

    input: InputFile
    variant: RecipeName
    prompt: str
    negative_prompt: str
    source_prompt: str | None = None
    effective_steps: PictureCount
    fingerprint: str = Field(description="hash of all settings that decide the result")
    finished: AwareDatetime
    attempt: Annotated[int, Field(ge=1, lt=2**63)] = Field(
        1, description="counts the records of a picture and variant; the highest, then last, is valid"
    )


class Done(_Record):
    """The picture was translated, and its file written."""

    status: Literal["done"] = "done"
    output: OutputFile
    error: None = None
    seed: Count
    size: Size = Field(description="width and height of the output, px")
    edited: Annotated[float, Field(ge=0, le=1)] | None = Field(
        None, description="share of the picture inside the mask; null without a mask"
    )
    matched_colors: Literal["source"] | None = Field(
        None, description="the picture whose colours it was given; null if it kept its own"
    )
    unet_evaluations: PictureCount
    seconds: Seconds = Field(
        description="time for this variant with inversion but without encoding; a share of its batch"
    )

    @model_validator(mode="after")
    def _is_below_its_variant(self) -> Self:
        if not self.output.path.startswith(f"{self.variant}/"):
            raise ValueError("its output is not in its variant's folder")
        return self


class Failed(_Record):
    """The picture went through the model, but the result could not be kept."""

    status: Literal["failed"] = "failed"
    output: None = None
    error: str = Field(description="why it failed")
    seed: Count
    size: Size = Field(description="width and height of the output, px")
    unet_evaluations: PictureCount | None = Field(description="null if memory ran out")
    seconds: Seconds


class Refused(_Record):
    """The picture never reached the model: it could not be read, or the job's filters left it out."""

    status: Literal["failed", "filtered"]
    output: None = None
    error: str = Field(description="why it failed or was left out")
    seed: Count | None = Field(None, description="null if its content could not be read")
    size: None = None
    unet_evaluations: None = None
    seconds: None = None


def _kind(record: Any) -> str:
    def field(name: str) -> Any:
        return record.get(name) if isinstance(record, dict) else getattr(record, name, None)

    if field("status") == "done":
        return "done"
    return "refused" if field("size") is None else "failed"


#: The result of one picture in one variant: a line of `records/<shard>.jsonl`.
Record = Done | Failed | Refused
RECORD: TypeAdapter[Record] = TypeAdapter(
    Annotated[
        Annotated[Done, Tag("done")]
        | Annotated[Failed, Tag("failed")]
        | Annotated[Refused, Tag("refused")],
        Discriminator(_kind),
    ]
)


def _as_written(settings: Any) -> Any:
    """Settings as they are read back from JSON, which has no tuples, and only text as keys."""
    _check_depth(settings, MAX_DEPTH)
    return json.loads(json.dumps(settings, allow_nan=False))


def _check_depth(value: Any, left: int) -> None:
    if left == 0:
        raise ValueError(f"nested more than {MAX_DEPTH} levels")
    if isinstance(value, dict | list | tuple):
        for inner in value.values() if isinstance(value, dict) else value:
            _check_depth(inner, left - 1)


class OfSweep(Written):
    """A variant's place in a sweep: its recipe, and its values from the lists of the job."""

    recipe: RecipeName
    strength: float | None = Field(None, description="null if all variants have the same")
    seed: Count | None = Field(None, description="null if all variants have the same")

    @property
    def label(self) -> str:
        """The shortest name that tells it from the others: `correct 0.5 seed 1`."""
        strength = "" if self.strength is None else f" {self.strength:.12g}"
        return f"{self.recipe}{strength}{'' if self.seed is None else f' seed {self.seed}'}"


class Fingerprint(Written):
    """All settings that decide the results; all pictures in an output folder share one such set."""

    settings: Annotated[dict[str, Any], BeforeValidator(_as_written)]
    variants: Annotated[dict[RecipeName, dict[str, Any]], BeforeValidator(_as_written)] = Field(
        description="the recipes by name, in full"
    )
    sweep: dict[RecipeName, OfSweep] = Field({}, description="by variant, for those of a sweep")

    @cached_property
    def _of_variants(self) -> dict[str, str]:
        return {
            name: _digest({"settings": self.settings, "recipe": recipe, **self._swept(name)})
            for name, recipe in self.variants.items()
        }

    def _swept(self, variant: str) -> dict[str, Any]:
        return {"sweep": self.sweep[variant].model_dump()} if variant in self.sweep else {}

    def of_sweep(self, variant: str) -> OfSweep:
        """The place of a variant in the sweep; without a sweep, its recipe alone."""
        return self.sweep.get(variant, OfSweep(recipe=variant))

    def in_order(self, variants: Iterable[str]) -> list[str]:
        """`variants` in the order of their recipes, then by strength and seed."""
        of = {variant: self.of_sweep(variant) for variant in variants}
        recipes = {
            name: place for place, name in enumerate(dict.fromkeys(o.recipe for o in of.values()))
        }
        return sorted(of, key=lambda v: (recipes[of[v].recipe], of[v].strength or 0, of[v].seed or 0))

    def grown(self, other: "Fingerprint") -> "Fingerprint":
        """This fingerprint and the variants of `other`, which has the same settings."""
        return Fingerprint(
            settings=self.settings,
            variants={**self.variants, **other.variants},
            sweep={**self.sweep, **other.sweep},
        )

    def mark(self, item: Item, variant: str) -> str:
        """The fingerprint of a record: these settings, and the picture's own prompts and seed."""
        left_out = _NOT_DECISIVE | {name for name in _LATER if getattr(item, name) is None}
        own = {f.name: str(getattr(item, f.name)) for f in fields(item) if f.name not in left_out}
        return _digest({"variant": self._of_variants[variant], **own})


def _digest(content: Mapping[str, Any]) -> str:
    canonical = json.dumps(content, sort_keys=True)
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


class ModelInfo(Written):
    name: str
    identity: str = Field(description="SHA-256 of its files, or the revision of a hub id")


class Evaluations(Written):
    per_picture: PictureCount
    total: Count


class Summary(Written):
    """`records/<shard>.json`: where a shard was computed, and how long it took."""

    shard: str
    host: str
    device: str
    device_name: str
    versions: dict[str, str]
    seconds: dict[str, Seconds] = Field(description="by phase, over all runs that ended cleanly")


class BatchSize(Written):
    """The result of `batch_size: auto`, for all runs and shards of a job."""

    size: PositiveInt = Field(description="pictures per batch, so that batches are filled evenly")
    takes: PositiveInt = Field(description="the largest batch possible")
    bound: Literal["memory", "pictures", "gain"] = Field(
        description="what limits it: memory, the pictures of a shard, or that more is no faster"
    )
    pictures: PositiveInt = Field(description="average number of pictures in a shard")

    def is_for(self, pictures: int) -> bool:
        """Whether it holds for a shard with this many pictures: not if fewer pictures limited it."""
        return pictures <= self.pictures or self.bound != "pictures"

    def __str__(self) -> str:
        reasons = {
            "memory": f"memory takes {self.takes} at a time",
            "pictures": "all at once",
            "gain": f"more than {self.takes} at a time are no faster",
        }
        batches = ceil(self.pictures / self.size)
        even = f"; {self.pictures} pictures are {batches} batches" if self.size < self.takes else ""
        return f"Batch size {self.size} (auto: {reasons[self.bound]}{even})"


class ArrayShards(Written):
    """The shards of the tasks of a SLURM array: an entry of `records/arrays.json`."""

    jobs: tuple[str, ...] = Field(description="job ids of the array, and of resubmitted parts of it")
    count: ShardCount
    first: Count
    last: Count
    step: Annotated[int, Field(ge=1, lt=2**63)]
    shards: dict[str, Count] = Field(description="the index of each task's shard")

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        indices = list(self.shards.values())
        if any(index >= self.count for index in indices) or len(set(indices)) < len(indices):
            raise ValueError("each task of an array must have its own shard, counted from 0")
        return self


class JobFile(Written):
    """`job.json`: the resolved job, and its results.

    With several shards, counts, evaluations and seconds are those of the last `sdcorrect merge`.
    """

    sdcorrect: str = Field(description="the version that wrote this")
    written: AwareDatetime
    job: Job
    fingerprint: Fingerprint
    model: ModelInfo
    device: str
    device_name: str
    versions: dict[str, str]
    num_shards: ShardCount
    batch_size: BatchSize | None = Field(None, description="result of batch_size: auto")
    pictures: Count
    effective_steps: dict[str, Count] = Field(description="by variant")
    counts: dict[str, dict[Status, Count]] = Field({}, description="pictures by variant and status")
    unet_evaluations: dict[str, Evaluations] = {}
    seconds: dict[str, Seconds] = {}
    shards: tuple[Summary, ...] = ()
