"""What is written beside the pictures: the models of `job.json`, of a record and of a shard's summary.

`sdcorrect schema` publishes them; everything that is written or read goes through them.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import fields
from datetime import datetime
from functools import cached_property
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from sdcorrect.config import Job
from sdcorrect.inputs.items import Item

#: What of an item does not decide what becomes of it; its content's hash is compared for itself.
_NOT_DECISIVE = {"source", "key", "problem"}

Status = Literal["done", "failed", "filtered"]


class Written(BaseModel):
    """What is read back must be just what was written."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    def as_json(self, indent: int | None = None) -> bytes:
        # json, for it escapes what a file name holds that is no UTF-8, where pydantic refuses
        return json.dumps(self.model_dump(mode="json"), indent=indent).encode() + b"\n"


class InputFile(Written):
    path: str = Field(description="relative to the input folder; bytes that are no UTF-8 are escaped")
    sha256: str | None = Field(description="of the file's content; null where it cannot be read")


class OutputFile(Written):
    path: str = Field(description="relative to the output folder")


class Record(Written):
    """What came of one picture in one variant: a line of `records/<shard>.jsonl`.

    Where several lines are of the same picture and variant, the one that finished last counts.
    """

    input: InputFile
    output: OutputFile | None = None
    variant: str
    status: Status
    error: str | None = Field(None, description="why it failed or was left out")
    seed: int | None = None
    prompt: str
    negative_prompt: str
    source_prompt: str | None = None
    size: tuple[int, int] | None = Field(None, description="width and height, px, as translated")
    effective_steps: int
    unet_evaluations: int | None = None
    seconds: float | None = Field(None, description="the picture's share of its batch")
    fingerprint: str = Field(description="of all settings that decide what the picture becomes")
    finished: datetime


class Fingerprint(Written):
    """All settings that decide what pictures become: an output folder has pictures of one such set."""

    settings: dict[str, Any]
    variants: dict[str, dict[str, Any]] = Field(description="the recipes by name, written out")

    @cached_property
    def _of_variants(self) -> dict[str, str]:
        return {
            name: _digest({"settings": self.settings, "recipe": recipe})
            for name, recipe in self.variants.items()
        }

    def mark(self, item: Item, variant: str) -> str:
        """The fingerprint of a record: these settings and what is asked of the one picture."""
        own = {f.name: str(getattr(item, f.name)) for f in fields(item) if f.name not in _NOT_DECISIVE}
        return _digest({"variant": self._of_variants[variant], **own})


def _digest(content: Mapping[str, Any]) -> str:
    canonical = json.dumps(content, sort_keys=True)
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


class ModelInfo(Written):
    name: str
    identity: str = Field(description="SHA-256 of its files, or the revision of a hub id")


class Evaluations(Written):
    per_picture: int
    total: int


class Summary(Written):
    """Where a shard was computed and how long it took: `records/<shard>.json`."""

    shard: str
    host: str
    device: str
    device_name: str
    versions: dict[str, str]
    seconds: dict[str, float] = Field(description="by phase, over all runs that ended in good order")


class JobFile(Written):
    """`job.json`: the job as it was resolved, and what came of it.

    Counts, evaluations and seconds of a job in shards are those of the last `sdcorrect merge`.
    """

    sdcorrect: str = Field(description="the version that wrote this")
    written: datetime
    job: Job
    fingerprint: Fingerprint
    model: ModelInfo
    device: str
    device_name: str
    versions: dict[str, str]
    num_shards: int
    pictures: int
    effective_steps: dict[str, int] = Field(description="by variant")
    counts: dict[str, dict[Status, int]] = Field({}, description="pictures by variant and status")
    unet_evaluations: dict[str, Evaluations] = {}
    seconds: dict[str, float] = {}
    shards: tuple[Summary, ...] = ()
