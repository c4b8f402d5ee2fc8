"""Which pictures are whose: a job divided over processes that share nothing but the output folder."""

import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from typing_extensions import Self

from sdcorrect.errors import UsageError
from sdcorrect.output.files import locked, write_atomically


@dataclass(frozen=True)
class Shard:
    """Part `index` (from 0) of a job divided into `count`."""

    index: int = 0
    count: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.index < self.count:
            raise UsageError(
                f"shard index {self.index} of {self.count} shards: they count from 0 to {self.count - 1}"
            )

    def __str__(self) -> str:
        return f"{self.index}-of-{self.count}"

    @classmethod
    def parse(cls, name: str) -> Self | None:
        """The shard that `str` names so, if any."""
        match = re.fullmatch(r"(\d+)-of-(\d+)", name)
        return cls(int(match[1]), int(match[2])) if match else None

    @classmethod
    def of(cls, key: str, count: int) -> Self:
        """The one of `count` shards that has the picture `key`.

        By a hash of its path: other pictures that come or go do not move it to another shard.
        """
        digest = hashlib.sha256(os.fsencode(key)).digest()
        return cls(int.from_bytes(digest[:8], "big") % count, count)

    def has(self, key: str) -> bool:
        return self == Shard.of(key, self.count)


def choose_shard(
    num_shards: int | None,
    shard_index: int | None,
    out: Path,
    environment: Mapping[str, str],
    *,
    claim: bool = True,
) -> Shard:
    """The shard that the command line names, else that of the SLURM array task, else all pictures.

    Args:
        claim: take the array task's shard in the output folder; else only say which it would be.

    Raises:
        UsageError: one flag without the other, variables of SLURM that contradict each other, or a
            task that the array of this folder lacks.
        SdcorrectError: the output folder cannot be written.
    """
    if num_shards is not None and (shard_index is not None or num_shards == 1):
        return Shard(shard_index or 0, num_shards)
    if num_shards is not None or shard_index is not None:
        raise UsageError("--num-shards and --shard-index go together; give both")
    if "SLURM_ARRAY_TASK_ID" not in environment:
        return Shard()
    task = ArrayTask.from_environment(environment)
    return task.claim(out) if claim else task.would_claim(out)


def _read(file: Path) -> list[dict[str, Any]]:
    arrays: list[dict[str, Any]] = json.loads(file.read_text()) if file.is_file() else []
    return arrays


_OVERRIDE = "give --num-shards 1 for all pictures, or --num-shards and --shard-index for a part"


@dataclass(frozen=True)
class ArrayTask:
    """A task of a SLURM array, which may start anywhere, step, and have holes.

    SLURM tells a task how many there are (`count`), never which: where there are holes the tasks do
    not know their positions. So each claims a shard of its own in the output folder, at its position
    where that can be told, and keeps it when it is requeued.
    """

    array: str  #: the array's job id
    id: int
    count: int
    first: int
    last: int
    step: int

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Self:
        """Raises UsageError where a variable of the array is missing, no number, or not of one array."""

        def number(name: str, default: str | None = None) -> int:
            text = environment.get(f"SLURM_ARRAY_TASK_{name}", default)
            if text is None or not text.isdecimal():
                raise UsageError(f"SLURM_ARRAY_TASK_{name} is {text!r}, not a number; {_OVERRIDE}")
            return int(text)

        task = cls(
            environment.get("SLURM_ARRAY_JOB_ID", ""),
            number("ID"),
            number("COUNT"),
            number("MIN"),
            number("MAX"),
            number("STEP", default="1"),
        )
        if not (
            task.first <= task.id <= task.last
            and 1 <= task.count <= task.last - task.first + 1
            and task.step >= 1
        ):
            raise UsageError(
                f"SLURM_ARRAY_TASK_*: there is no task {task.id} in an array of {task.count} from "
                f"{task.first} to {task.last} by {task.step}; {_OVERRIDE}"
            )
        return task

    def claim(self, out: Path) -> Shard:
        """This task's shard: the one it had, or a free one.

        Raises:
            UsageError: the array has as many other tasks as shards already.
            SdcorrectError: the output folder cannot be written.
        """
        file = out / "records" / "arrays.json"
        with locked(file.with_suffix(".lock"), wait=True):
            arrays = _read(file)
            shard = self._enter(arrays)
            text = json.dumps(arrays, indent=2) + "\n"
            write_atomically(file, text.encode(), temporary=file.with_suffix(".tmp"))
        return shard

    def would_claim(self, out: Path) -> Shard:
        """What `claim` would give now; nothing is written.

        Raises:
            UsageError: as `claim`.
        """
        return self._enter(_read(out / "records" / "arrays.json"))

    def _enter(self, arrays: list[dict[str, Any]]) -> Shard:
        """Add this task to the array of `arrays` that it is of, where it is not yet; its shard."""
        array = next(filter(self._is_of, reversed(arrays)), None)
        if array is None:
            array = {"jobs": [], "count": self.count, "first": self.first, "last": self.last}
            array |= {"step": self.step, "shards": {}}
            arrays.append(array)
        index = array["shards"].get(str(self.id))
        if index is None:
            index = self._free(array)
            array["shards"][str(self.id)] = index
        if self.array not in array["jobs"]:
            array["jobs"].append(self.array)
        return Shard(index, array["count"])

    def _is_of(self, array: Mapping[str, Any]) -> bool:
        """Whether this is a task of `array`, or of a part of it that was submitted again."""
        within = array["first"] <= self.first <= self.last <= array["last"]
        known = self.array in array["jobs"] and self.count == array["count"]
        return within and (known or self.count < array["count"])

    def _free(self, array: Mapping[str, Any]) -> int:
        free = sorted(set(range(array["count"])) - set(array["shards"].values()))
        if not free:
            tasks = ", ".join(array["shards"])
            raise UsageError(
                f"array task {self.id} is none of the {array['count']} tasks that share this output "
                f"folder ({tasks}); {_OVERRIDE}"
            )
        position = (self.id - array["first"]) // array["step"]
        return position if position in free else free[0]
