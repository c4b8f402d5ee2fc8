"""Every call to the file system that a job makes of its output folder fails once, in each way."""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from drill import QUICK, make_pictures, servers
from faults import Fault, Faults, serve

FAULTS: tuple[Fault, ...] = ("SIGKILL", "ENOSPC", "EIO", "short write")
PROCESSES = 2
#: Of the calls of a default run, each so many-th; all of them in the slow suite.
SOME = 97


class Matrix:
    """Runs of one job, each into an output folder of its own, and what became of them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.pictures = make_pictures(root / "pictures", 2)

    def log(self, name: str) -> Path:
        return self.root / name

    def out(self, name: str) -> Path:
        return self.root / f"{name}-out"

    def run(self, faults: dict[str, tuple[Fault | None, int]]) -> dict[str, int]:
        """Run a job for each, by several processes; the exit codes."""
        results = servers.Queue()
        jobs = [
            (
                ["translate", str(self.pictures), "-o", str(self.out(name)), *QUICK],
                Faults(str(self.out(name)), fault, at),
                str(self.log(name)),
            )
            for name, (fault, at) in faults.items()
        ]
        processes = [
            servers.Process(target=serve, args=(jobs[number::PROCESSES], results))
            for number in range(PROCESSES)
        ]
        for process in processes:
            process.start()
        codes = dict(reversed(results.get(timeout=120)) for _ in jobs)
        for process in processes:
            process.join()
        return {name: codes[str(self.log(name))] for name in faults}

    def calls(self, name: str) -> list[str]:
        return Path(f"{self.log(name)}.calls").read_text().split("\n")

    def messages(self, name: str) -> str:
        return Path(f"{self.log(name)}.err").read_text()

    def outputs(self, name: str) -> dict[str, bytes]:
        out = self.out(name)
        return {p.relative_to(out).as_posix(): p.read_bytes() for p in out.rglob("*.png")}

    def records(self, name: str) -> list[dict[str, Any]]:
        """Of the records, all that are whole."""
        lines = [line for file in self.out(name).glob("records/*.jsonl") for line in file.open("rb")]
        return [json.loads(line) for line in lines if line.endswith(b"\n")]

    def leftovers(self, name: str) -> list[Path]:
        return [p for p in self.out(name).rglob("*") if p.suffix in (".tmp", ".lock")]


def problems_after(
    matrix: Matrix, name: str, fault: Fault, code: int, expected: dict[str, bytes]
) -> Iterator[str]:
    """What is wrong with a run that was struck by `fault`."""
    outputs = matrix.outputs(name)
    if any(content != expected[file] for file, content in outputs.items()):
        yield "a picture is torn"
    job = matrix.out(name) / "job.json"
    if job.exists():
        json.loads(job.read_text())
    errors = [line for line in matrix.messages(name).split("\n") if line.startswith("error: ")]
    if fault == "SIGKILL":
        if code != -9:
            yield "it was not killed"
    elif code == 0:
        # what was written less of at first, or was not needed after all
        if errors or outputs != expected:
            yield "it failed unsaid"
    elif code != 1 or len(errors) != 1 or "(--debug" in errors[0]:
        yield "it did not end with one line"


def problems_at_the_end(
    matrix: Matrix, name: str, code: int, expected: dict[str, bytes]
) -> Iterator[str]:
    """What is wrong with the run after it, that nothing has struck."""
    if code != 0 or matrix.outputs(name) != expected:
        return (yield "it is not done")
    if left := matrix.leftovers(name):
        yield f"left: {left}"
    done = {record["input"]["path"] for record in matrix.records(name) if record["status"] == "done"}
    if done != {"0000.png", "0001.png"}:
        yield f"recorded are {done}"
    job = json.loads((matrix.out(name) / "job.json").read_text())
    if job["counts"] != {"correct": {"done": 2, "failed": 0}}:
        yield f"counted are {job['counts']}"
    if "Traceback" in matrix.messages(name):
        yield "a traceback"


@pytest.mark.parametrize("step", [SOME, pytest.param(1, marks=pytest.mark.slow)])
def test_whatever_call_fails_the_next_run_ends_as_an_undisturbed_one(
    tmp_path: Path, step: int, capsys: pytest.CaptureFixture[str]
) -> None:
    matrix = Matrix(tmp_path)
    assert matrix.run({"undisturbed": (None, -1)}) == {"undisturbed": 0}
    calls, expected = matrix.calls("undisturbed"), matrix.outputs("undisturbed")
    assert len(expected) == 2

    struck = {
        f"{fault} at {at} {call}": (fault, at)
        for at, call in list(enumerate(calls))[::step]
        for fault in FAULTS
        if call == "write" or fault != "short write"
    }
    codes = matrix.run(struck)
    wrong = [
        f"{name}: {problem}: exit {codes[name]}: {matrix.messages(name)}"
        for name, (fault, _) in struck.items()
        for problem in problems_after(matrix, name, fault, codes[name], expected)
    ]
    codes = matrix.run(dict.fromkeys(struck, (None, -1)))
    wrong += [
        f"{name}, again: {problem}: exit {codes[name]}: {matrix.messages(name)}"
        for name in struck
        for problem in problems_at_the_end(matrix, name, codes[name], expected)
    ]
    assert not wrong, "\n".join(wrong)

    kinds = Counter(fault for fault, _ in struck.values())
    with capsys.disabled():
        print(f"\n{len(calls)} calls ({dict(Counter(calls))}); struck: {dict(kinds)}")  # noqa: T201
