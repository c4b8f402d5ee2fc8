"""Divide a job among processes that share only the output folder."""

import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from math import gcd
from pathlib import Path

from pydantic import TypeAdapter
from typing_extensions import Self

from sdcorrect.errors import UsageError, listed, printable
from sdcorrect.output.files import locked, read_plain, write_atomically
from sdcorrect.output.records import MAX_SHARDS, ArrayShards

ARRAYS = TypeAdapter(list[ArrayShards])
MAX_ARRAYS = 1 << 26  #: bytes


@dataclass(frozen=True)
class Shard:
    """Part `index` (from 0) of a job that is divided into `count` parts."""

    index: int = 0
    count: int = 1

    def __post_init__(self) -> None:
        if self.count > MAX_SHARDS:
            raise UsageError(f"{self.count} shards: a job can have at most {MAX_SHARDS}")
        if not 0 <= self.index < self.count:
            raise UsageError(
                f"shard index {self.index} of {self.count} shards: choose from 0 to {self.count - 1}"
            )

    def __str__(self) -> str:
        return f"{self.index}-of-{self.count}"

    @classmethod
    def parse(cls, name: str) -> Self | None:
        """The shard with this name, as from `str`, or None."""
        match = re.fullmatch(r"([0-9]+)-of-([0-9]+)", name)
        if not match or not int(match[1]) < int(match[2]) <= MAX_SHARDS:
            return None
        return cls(int(match[1]), int(match[2]))

    @classmethod
    def of(cls, key: str, count: int) -> Self:
        """The shard, of `count`, that the picture `key` belongs to.

        It depends on a hash of the path, so that adding or removing other pictures does not change it.
        """
        digest = hashlib.sha256(os.fsencode(key)).digest()
        return cls(int.from_bytes(digest[:8], "big") % count, count)

    def has(self, key: str) -> bool:
        return self.count == 1 or self == Shard.of(key, self.count)

    def part(self, index: int, count: int) -> "Shard":
        """Part `index` of this shard, divided into `count` parts."""
        return Shard(self.index + self.count * index, self.count * count)

    def meets(self, other: "Shard") -> bool:
        """Whether a picture can belong to both: a number can have both remainders."""
        return (self.index - other.index) % gcd(self.count, other.count) == 0


ALL = Shard()  #: all pictures


def choose_shard(
    num_shards: int | None,
    shard_index: int | None,
    out: Path,
    environment: Mapping[str, str],
    *,
    claim: bool = True,
) -> Shard:
    """The shard that the command line names; else that of the SLURM array task, or all pictures,
    divided among the processes of a launcher.

    Args:
        claim: whether to claim the array task's shard in the output folder, or only find out which.

    Raises:
        UsageError: one flag is given without the other, SLURM's variables contradict each other, or the
            array of this folder lacks the task.
        SdcorrectError: the output folder cannot be written.
    """
    if num_shards is not None and (shard_index is not None or num_shards == 1):
        return Shard(shard_index or 0, num_shards)
    if num_shards is not None or shard_index is not None:
        raise UsageError("--num-shards and --shard-index belong together; give both")
    shard = Shard()
    if "SLURM_ARRAY_TASK_ID" in environment:
        task = ArrayTask.from_environment(environment)
        shard = task.claim(out) if claim else task.would_claim(out)
    place = Place.from_environment(environment)
    return shard.part(place.rank, place.count) if place else shard


_OVERRIDE = "give --num-shards 1 for all pictures, or --num-shards and --shard-index for a part"


@dataclass(frozen=True)
class Place:
    """The number of this process among those of a launcher: torchrun, accelerate launch or srun."""

    launcher: str
    rank: int
    count: int
    local_rank: int  #: among the processes on this machine

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Self | None:
        """Read the launcher's variables; None if no launcher has started several processes.

        Raises:
            UsageError: a variable of a launcher is not a number, or they contradict each other.
        """
        in_batch_script = "SLURM_JOB_ID" in environment and "SLURM_STEP_ID" not in environment
        for launcher, names in LAUNCHERS.items():
            if not all(name in environment for name in names):
                continue
            if launcher == "srun" and in_batch_script:
                continue  # a batch script runs once, whatever tasks its job has
            values = [environment[name] for name in names]
            if not all(value.isdecimal() and len(value) < 10 for value in values):
                told = ", ".join(f"{n}={printable(environment[n])}" for n in names)
                raise UsageError(f"{told}: not numbers, as {launcher} sets them; {_OVERRIDE}")
            rank, count, local = map(int, values)
            if rank >= count:
                raise UsageError(f"{launcher} has no process {rank} of {count}; {_OVERRIDE}")
            return cls(launcher, rank, count, local) if count > 1 else None
        return None


#: The launchers, and their variables for a process's number, the number of processes, and its number on
#: its machine. accelerate launch uses torchrun.
LAUNCHERS = {
    "torchrun": ("RANK", "WORLD_SIZE", "LOCAL_RANK"),
    "srun": ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID"),
}


@dataclass(frozen=True)
class ArrayTask:
    """A task of a SLURM array, which may start at any number, have steps, and have holes.

    SLURM tells a task how many tasks there are (`count`), but not which, so that in an array with holes
    no task knows its position. So each task claims a shard in the output folder, at its position if that
    is free, and keeps it when it is requeued.
    """

    array: str  #: the array's job id
    id: int
    count: int
    first: int
    last: int
    step: int

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Self:
        """Read SLURM's variables. Raises UsageError if one is missing, no number, or contradictory."""

        def number(name: str, default: str | None = None) -> int:
            text = environment.get(f"SLURM_ARRAY_TASK_{name}", default)
            if text is None:
                raise UsageError(f"SLURM_ARRAY_TASK_{name} is not set; {_OVERRIDE}")
            if not text.isdecimal() or len(text) > 18:
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
                f"SLURM_ARRAY_TASK_*: no task {task.id} in an array of {task.count} from "
                f"{task.first} to {task.last} by {task.step}; {_OVERRIDE}"
            )
        if task.count > MAX_SHARDS:
            raise UsageError(
                f"an array of {task.count} tasks: a job has at most {MAX_SHARDS} shards; {_OVERRIDE}"
            )
        return task

    def claim(self, out: Path) -> Shard:
        """Claim a shard for this task: the one it had, or a free one.

        Raises:
            UsageError: all shards of the array belong to other tasks.
            SdcorrectError: the output folder cannot be written.
        """
        file = out / "records" / "arrays.json"
        with locked(file.with_suffix(".lock"), wait=True):
            arrays, own = self._entered(_read_arrays(file))
            text = ARRAYS.dump_json([*arrays, own], indent=2) + b"\n"
            write_atomically(file, text, temporary=file.with_suffix(".tmp"))
        return self._shard_of(own)

    def would_claim(self, out: Path) -> Shard:
        """The shard that `claim` would give now; nothing is written.

        Raises:
            UsageError: as `claim`.
        """
        _, own = self._entered(_read_arrays(out / "records" / "arrays.json"))
        return self._shard_of(own)

    def _entered(self, arrays: list[ArrayShards]) -> tuple[list[ArrayShards], ArrayShards]:
        """The other arrays, and this task's array with its shard entered."""
        array = next(filter(self._is_of, reversed(arrays)), None)
        others = [other for other in arrays if other is not array]
        array = array or self._new()
        index = array.shards.get(str(self.id))
        shards = {**array.shards, str(self.id): self._free(array) if index is None else index}
        jobs = tuple(dict.fromkeys([*array.jobs, self.array]))
        return others, array.model_copy(update={"jobs": jobs, "shards": shards})

    def _shard_of(self, array: ArrayShards) -> Shard:
        return Shard(array.shards[str(self.id)], array.count)

    def _new(self) -> ArrayShards:
        return ArrayShards(
            jobs=(), count=self.count, first=self.first, last=self.last, step=self.step, shards={}
        )

    def _is_of(self, array: ArrayShards) -> bool:
        """Whether this is a task of `array`, or of a part of it that was resubmitted."""
        within = array.first <= self.first <= self.last <= array.last
        known = self.array in array.jobs and self.count == array.count
        return within and (known or self.count < array.count)

    def _free(self, array: ArrayShards) -> int:
        free = sorted(set(range(array.count)) - set(array.shards.values()))
        if not free:
            raise UsageError(
                f"array task {self.id} is not one of the {array.count} tasks that share this output "
                f"folder ({listed(array.shards)}); {_OVERRIDE}"
            )
        position = (self.id - array.first) // array.step
        return position if position in free else free[0]


def _read_arrays(file: Path) -> list[ArrayShards]:
    try:
        return ARRAYS.validate_json(read_plain(file, MAX_ARRAYS))
    except FileNotFoundError:
        return []
    except (OSError, ValueError):
        raise UsageError(
            f"{printable(file)}: not a list of arrays that this version can read; {_OVERRIDE}"
        ) from None
