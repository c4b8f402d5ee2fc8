"""`batch_size: auto`: as many pictures at a time as memory takes, found once for all runs of a job."""

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import Result

from sdcorrect.batch.runner import ShardRun
from sdcorrect.batch.size import DeviceMemory, largest
from sdcorrect.config import load_job
from sdcorrect.models import Model
from sdcorrect.models.memory import OUT_OF_MEMORY_WORDS
from sdcorrect.output.records import BatchSize
from sdcorrect.output.shards import ALL, Shard

Command = Callable[..., Result]
QUICK = {"prompt": "in 3d render style", "steps": 2, "strength": 1, "size": 32}
MIB = 2**20


class Limited:
    """Memory of `limit` bytes, of which a budget is to be used, for runs that take what `cost` says."""

    def __init__(self, cost: Callable[[int], int], budget: float, limit: float) -> None:
        self.cost, self.budget, self.limit = cost, budget, limit
        self.tried: list[int] = []

    def run(self, size: int) -> None:
        self.tried.append(size)

    def peak_of(self, run: Callable[[], None]) -> int:
        run()
        peak = self.cost(self.tried[-1])
        if peak > self.limit:
            raise MemoryError
        return peak


@pytest.mark.parametrize(
    ("cost", "most", "expected"),
    [
        (lambda size: 10 * size, 64, 9),
        (lambda size: 30 + size, 64, 60),
        (lambda size: 30 + size, 16, 16),
        (lambda size: 89 + size, 64, 1),
        (lambda size: 200, 64, 1),
        (lambda size: 0, 64, 64),
        (lambda size: 20 + size**2, 64, 8),
        (lambda size: 0 if size <= 5 else 200, 64, 5),
        (lambda size: 1 if size <= 2 else 95, 64, 2),
    ],
)
def test_it_is_the_largest_that_the_budget_has_room_for(
    cost: Callable[[int], int], most: int, expected: int
) -> None:
    memory = Limited(cost, budget=90, limit=100)
    assert largest(memory.run, most, memory) == expected
    assert len(set(memory.tried)) == len(memory.tried)


def test_what_grows_steadily_never_runs_out() -> None:
    memory = Limited(lambda size: 10 + 7 * size, budget=90, limit=90)
    assert largest(memory.run, 64, memory) == 11
    assert max(memory.tried) == 11


def test_the_memory_of_the_cpu_is_what_is_taken_at_most() -> None:
    memory = DeviceMemory(torch.device("cpu"))
    assert MIB < memory.budget < 2**50
    small, large = (memory.peak_of(lambda n=n: torch.ones(n, MIB)) for n in (2, 16))  # type: ignore[misc]
    assert 4 * 12 * MIB <= large - small <= 4 * 18 * MIB


@pytest.mark.parametrize("words", [*OUT_OF_MEMORY_WORDS, "CUDA error: out of memory", "any other"])
def test_what_libraries_say_of_too_little_memory_is_known(words: str) -> None:
    def run() -> None:
        raise RuntimeError(f"cuDNN error: {words} (1234 bytes)")

    with pytest.raises(RuntimeError if words == "any other" else MemoryError):
        DeviceMemory(torch.device("cpu")).peak_of(run)


@contextmanager
def memory_for(model: Model, rows: int) -> Iterator[list[int]]:
    """Within this context the U-Net has memory for so many rows at a time; how many it was given."""
    given = []

    def check(_unet: object, args: tuple[torch.Tensor, ...], _kwargs: dict[str, Any]) -> None:
        given.append(len(args[0]))
        if len(args[0]) > rows:
            raise torch.OutOfMemoryError("CUDA out of memory")

    hook = model.pipe.unet.register_forward_pre_hook(check, with_kwargs=True)
    try:
        yield given
    finally:
        hook.remove()


def translated(
    model: Model, folder: Path, out: Path, batch_size: int | str, shard: Shard = ALL, **options: Any
) -> tuple[ShardRun, dict[str, bytes]]:
    paths = {"input.path": str(folder), "output.path": str(out), "method": "sdedit"}
    run = ShardRun(load_job(None, {**QUICK, **paths, "batch_size": batch_size}), model, shard, **options)
    list(run.records())
    return run, {file.name: file.read_bytes() for file in out.rglob("*.png")}


def recorded(out: Path) -> BatchSize:
    return BatchSize.model_validate(json.loads((out / "job.json").read_text())["batch_size"])


def test_it_is_found_once_and_all_runs_take_it(model: Model, pictures: Path, tmp_path: Path) -> None:
    for name in ("0.png", "again.png"):
        shutil.copy(pictures / "bicycle.png", pictures / name)
    (pictures / "0.png").write_bytes(b"no picture")
    with memory_for(model, rows=5):  # two of a picture
        run, _ = translated(model, pictures, tmp_path, "auto", Shard(0, 2))
    found = BatchSize(size=2, takes=2, bound="memory", pictures=3)
    assert run.found_batch_size == recorded(tmp_path) == found
    for shard in (Shard(1, 2), ALL):
        with memory_for(model, rows=99) as given:
            run, _ = translated(model, pictures, tmp_path, "auto", shard, retry_failed=True)
        assert set(given) <= {4}  # nothing is tried, though more would fit
    assert recorded(tmp_path) == found


@pytest.mark.slow
def test_it_makes_what_the_size_makes_that_was_found(
    model: Model, pictures: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(5):
        shutil.copy(pictures / "bicycle.png", pictures / f"{number}.png")
    for cards in (7, 3):  # another one takes less: there it is halved
        with memory_for(model, rows=cards):
            _, made = translated(model, pictures, tmp_path / "auto", "auto", retry_failed=True)
        (tmp_path / "auto" / "sdedit" / "0.png").unlink()
    assert "out of memory with 3 pictures per batch; continuing with 1" in caplog.text
    assert recorded(tmp_path / "auto").size == 3
    _, expected = translated(model, pictures, tmp_path / "three", 3)
    assert {name: data for name, data in made.items() if name != "0.png"} == {
        name: data for name, data in expected.items() if name != "0.png"
    }
    translated(model, pictures, tmp_path / "auto", "auto", overwrite=True)
    assert recorded(tmp_path / "auto") == BatchSize(size=8, takes=8, bound="gain", pictures=8)


@pytest.mark.slow
def test_pictures_bind_it_until_there_are_more(
    translate: Command, pictures: Path, tmp_path: Path
) -> None:
    out, command = tmp_path / "out", (pictures, "--batch-size", "auto")
    assert "Batch size 1 (auto: all at once)" in translate(*command, "-o", out, "--limit", 1).stderr
    assert "Batch size 3 (auto: all at once)" in translate(*command, "-o", out).stderr
    assert "Batch size" not in translate(*command, "-o", out).stderr


@pytest.mark.parametrize("value", ["many", "0", "-1", "2.5", "Auto", ""])
def test_any_other_word_is_refused_in_a_line(
    translate: Command, pictures: Path, tmp_path: Path, value: str
) -> None:
    refused = translate(pictures, "-o", tmp_path / "out", f"--batch-size={value}")
    assert refused.exit_code == 2
    assert refused.stderr.startswith("error: batch_size: should be 'auto' or ")
    assert refused.stderr.count("\n") == 1


def test_it_is_told_in_a_line() -> None:
    told = BatchSize(size=33, takes=64, bound="gain", pictures=65)
    assert (
        str(told)
        == "Batch size 33 (auto: more than 64 at a time are no faster; 65 pictures are 2 batches)"
    )
    bound = BatchSize(size=12, takes=12, bound="memory", pictures=30_000)
    assert str(bound) == "Batch size 12 (auto: memory takes 12 at a time)"
