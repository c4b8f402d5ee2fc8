"""The rendered script as text, run by bash alone, and as an array on a real SLURM."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import yaml
from click.testing import Result
from PIL import Image

from sdcorrect.batch.slurm import render_array

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "sdcorrect" / "assets" / "pictures"
SDCORRECT = Path(sys.executable).with_name("sdcorrect")
PICTURES = 30
HOSTILE = ["a b", "quote'\"", "$HOME `id` $(id)", "new\nline", "*", "-n", "ü \udcff", "{tasks}", "\\"]


def test_the_script_is_the_golden_one() -> None:
    golden = (ROOT / "scripts" / "slurm" / "array.sbatch").read_text()
    assert render_array("sdcorrect", "configs/quickstart.yaml", 4) == golden


def test_the_command_checks_the_job_and_writes_the_script(
    sdcorrect: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", [str(SDCORRECT)])
    job = tmp_path / "a job.yaml"
    job.write_text("input: {path: in}\noutput: {path: out}\nprompt: in oil\n")
    assert sdcorrect("slurm", "-c", job, "--tasks", 7).stdout == render_array(
        str(SDCORRECT), str(job), 7
    )
    monkeypatch.setenv("PATH", str(SDCORRECT.parent), prepend=":")
    assert "\nsdcorrect translate -c" in sdcorrect("slurm", "-c", job, "--tasks", 7).stdout
    job.write_text("input: {path: in}\n")
    result = sdcorrect("slurm", "-c", job, "--tasks", 7)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "output: is missing" in result.stderr


def test_flags_of_sbatch_and_what_runs_first_stand_in_the_script(
    sdcorrect: Callable[..., Result], tmp_path: Path
) -> None:
    job = tmp_path / "job.yaml"
    job.write_text("input: {path: in}\noutput: {path: out}\nprompt: in oil\n")
    flags = ("--time", "4:00:00", "--gres", "gpu:a100:1", "--partition", "long", "--account", "lab")
    setup = ("--setup", "module load cuda # 12", "--setup", "source env/bin/activate")
    script = sdcorrect("slurm", "-c", job, "--tasks", 2, *flags, *setup).stdout
    head, _, body = script.partition("\necho ")
    for line in ("time=4:00:00", "gres=gpu:a100:1", "partition=long", "account=lab"):
        assert f"\n#SBATCH --{line}\n" in head
    assert body.index("module load") < body.index("source env") < body.index(" translate ")
    for hostile in ("4 h", "x\n#SBATCH --uid=0", "", "gpü"):
        result = sdcorrect("slurm", "-c", job, "--tasks", 2, "--time", hostile)
        assert (result.exit_code, result.stdout) == (2, "")
        assert "expected a single word" in result.stderr and result.stderr.count("\n") == 1
    for limit, is_read in {"90": 1, "1-12": 1, "UNLIMITED": 1, "4h": 0, "1:2:3:4": 0}.items():
        result = sdcorrect("slurm", "-c", job, "--tasks", 2, "--time", limit)
        assert (result.exit_code == 0) == bool(is_read)
        assert ("expected a limit as sbatch reads it" in result.stderr) != bool(is_read)


def test_a_task_ends_where_its_setup_fails(tmp_path: Path) -> None:
    for setup, code in ((["false # no"], 1), (["true", "(exit 7)"], 7), (["cd /; :"], 0)):
        script = render_array("true", "job.yaml", 1, setup=setup)
        assert subprocess.run(["bash", "-c", script], capture_output=True).returncode == code


def stub(file: Path, body: str) -> None:
    """A program that notes its arguments, each ended by a NUL, in the file of its name and `.log`."""
    file.parent.mkdir(exist_ok=True)
    file.write_text(f'#!/usr/bin/env bash\nprintf "%s\\0" "$@" >>"${{BASH_SOURCE[0]}}.log"\n{body}\n')
    file.chmod(0o755)


def calls(file: Path) -> list[str]:
    return os.fsdecode(Path(f"{file}.log").read_bytes()).split("\0")[:-1]


@pytest.fixture
def task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., "subprocess.Popen[str]"]:
    """Start the script as SLURM starts a task, with a stub for scontrol."""
    stub(tmp_path / "bin" / "scontrol", "")
    monkeypatch.setenv("PATH", f"{tmp_path}/bin", prepend=":")
    monkeypatch.setenv("SLURM_JOB_ID", "42")

    def start(program: Path, config: str, *arguments: str) -> "subprocess.Popen[str]":
        script = tmp_path / "job.sbatch"
        script.write_bytes(os.fsencode(render_array(str(program), config, 3)))
        return subprocess.Popen(["bash", script, *arguments], stdout=subprocess.PIPE, text=True)

    return start


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_paths_reach_the_program_unchanged(
    task: Callable[..., "subprocess.Popen[str]"], tmp_path: Path, name: str
) -> None:
    program = tmp_path / "bin" / f"sdcorrect {name}"
    stub(program, "exit 3")
    assert task(program, f"{name}.yaml", "--limit", name).wait(timeout=20) == 3
    assert calls(program) == ["translate", "-c", f"{name}.yaml", "--limit", name]


def await_(condition: Callable[[], object], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.1)


@pytest.mark.parametrize(
    ("stopped_by", "code", "requeues"), [("USR1", 142, [["requeue", "42"]]), ("TERM", 143, [])]
)
def test_the_task_hands_signals_on_and_requeues_itself(
    task: Callable[..., "subprocess.Popen[str]"],
    tmp_path: Path,
    stopped_by: str,
    code: int,
    requeues: list[list[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    program = tmp_path / "bin" / "sdcorrect"
    stub(program, "trap 'exit 142' USR1; trap 'exit 143' TERM; touch ready; while :; do sleep 0.1; done")
    monkeypatch.chdir(tmp_path)
    process = task(program, "job.yaml")
    await_((tmp_path / "ready").exists)
    if stopped_by == "TERM":  # as SLURM does: to every process of the task
        subprocess.run(["pkill", "-TERM", "-P", str(process.pid)], check=True)
    subprocess.run(["kill", f"-{stopped_by}", str(process.pid)], check=True)
    assert process.wait(timeout=20) == code
    log = tmp_path / "bin" / "scontrol.log"
    assert ([calls(tmp_path / "bin" / "scontrol")] if log.exists() else []) == requeues


@pytest.fixture
def slurm(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A real SLURM of one node, installed where it is missing."""
    scripts = ROOT / "scripts" / "slurm"
    # not in pytest's folder: munged wants its socket where everybody can reach it
    with TemporaryDirectory(prefix="slurm-box-") as box:
        subprocess.run([scripts / "box-up.sh", box], check=True, timeout=300)
        monkeypatch.setenv("SLURM_CONF", f"{box}/slurm.conf")
        yield
        subprocess.run([scripts / "box-down.sh", box], check=True, timeout=120)


def run(*command: object) -> str:
    return subprocess.run(
        [str(word) for word in command], check=True, capture_output=True, text=True, timeout=300
    ).stdout.strip()


def described(task: str, field: str) -> str:
    """What SLURM says of an array task: its JobId, its JobState."""
    return run("scontrol", "show", "job", task).partition(f"{field}=")[2].split()[0]


def outputs(folder: Path) -> dict[str, bytes]:
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*.png")}


@pytest.mark.slow
@pytest.mark.usefixtures("slurm")
def test_array_drill(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A task is killed, one is requeued, the node goes down: in the end nothing tells."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    (tmp_path / "pictures").mkdir()
    examples = sorted(EXAMPLES.glob("*.png"))
    for number in range(PICTURES):
        with Image.open(examples[number % len(examples)]) as picture:
            picture.rotate(number).convert("RGB").save(tmp_path / "pictures" / f"{number}.png")
    job = {"input": {"path": "pictures"}, "output": {"path": "array"}, "prompt": "in 3d render style"}
    job |= {"size": 32, "steps": 40, "strength": 1.0, "batch_size": 1}
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(job))
    alone = run(SDCORRECT, "translate", "-c", tmp_path / "job.yaml", "-o", tmp_path / "alone")
    assert str(PICTURES) in alone

    (tmp_path / "job.sbatch").write_text(
        run(SDCORRECT, "slurm", "-c", tmp_path / "job.yaml", "--tasks", 5)
    )
    monkeypatch.chdir(tmp_path)
    array = run("sbatch", "--parsable", "--array=1-7:2,10%2", "job.sbatch")

    def translated() -> int:
        return len(outputs(tmp_path / "array"))

    def goes_on(seen: int) -> Callable[[], bool]:
        return lambda: translated() > seen

    def log(task: object) -> str:
        file = tmp_path / f"slurm-{array}_{task}.out"
        return file.read_text() if file.exists() else ""

    await_(lambda: "done correct" in log(1), 60)
    _, *processes = run("scontrol", "listpids", described(f"{array}_1", "JobId")).splitlines()
    run("kill", "-KILL", *(line.split()[0] for line in processes))
    await_(lambda: described(f"{array}_1", "JobState") == "FAILED", 30)
    run("scontrol", "requeue", f"{array}_1")

    await_(lambda: "done correct" in log(3), 60)
    run("scancel", "--signal=USR1", "--batch", f"{array}_3")
    await_(lambda: "requeued to go on" in log(3), 30)

    await_(lambda: "done correct" in log(10), 120)
    hit = run("squeue", "--noheader", "--states=RUNNING", "--format=%K").split()
    starts = {task: log(task).count("restart") for task in hit}
    assert starts
    node = run("sinfo", "--noheader", "--format=%n")
    run("scontrol", "update", f"NodeName={node}", "State=DOWN", "Reason=drill")
    await_(lambda: not run("squeue", "--noheader", "--states=RUNNING,COMPLETING"), 60)
    seen = translated()
    assert seen < PICTURES
    run("scontrol", "update", f"NodeName={node}", "State=RESUME")
    await_(goes_on(seen), 60)

    await_(lambda: not run("squeue", "--noheader"), 240)
    assert {described(f"{array}_{task}", "JobState") for task in (1, 3, 5, 7, 10)} == {"COMPLETED"}
    assert all("restart 1" in log(task) for task in (1, 3))
    assert {task: log(task).count("restart") - 1 for task in hit} == starts
    assert outputs(tmp_path / "array") == outputs(tmp_path / "alone")
    run(SDCORRECT, "merge", tmp_path / "array")
    records = [
        json.loads(line)
        for file in (tmp_path / "array" / "records").glob("*.jsonl")
        for line in file.read_text().splitlines()
    ]
    assert sorted(record["input"]["path"] for record in records) == sorted(
        f"{number}.png" for number in range(PICTURES)
    )
