from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdcorrect.errors import UsageError
from sdcorrect.output.shards import ArrayTask, Shard, choose_shard

#: Paths as the operating system gives them, bytes that are no UTF-8 included.
KEYS = st.binary(min_size=1, max_size=40).map(lambda name: name.decode("utf-8", "surrogateescape"))


def environment(array: int, ids: list[int], task: int) -> dict[str, str]:
    """What SLURM tells a task; the step is 1 where the array has holes."""
    steps = {later - earlier for earlier, later in zip(ids, ids[1:], strict=False)}
    values = {
        "JOB_ID": array,
        "TASK_ID": task,
        "TASK_COUNT": len(ids),
        "TASK_MIN": min(ids),
        "TASK_MAX": max(ids),
        "TASK_STEP": steps.pop() if len(steps) == 1 else 1,
    }
    return {f"SLURM_ARRAY_{name}": str(value) for name, value in values.items()}


def shard_of(array: int, ids: list[int], task: int, out: Path) -> Shard:
    return choose_shard(None, None, out, environment(array, ids, task))


@given(st.sets(KEYS), st.integers(1, 12))
def test_every_picture_is_in_exactly_one_shard(keys: set[str], count: int) -> None:
    shards = [Shard(index, count) for index in range(count)]
    assert all(sum(shard.has(key) for shard in shards) == 1 for key in keys)


def test_the_split_is_the_same_in_every_process_and_even() -> None:
    keys = [f"sub/{number}.jpg" for number in range(3000)]
    sizes = [sum(Shard(index, 3).has(key) for key in keys) for index in range(3)]
    assert sizes == [963, 1077, 960]


@pytest.mark.parametrize(
    "ids", [[0, 1, 2], [1, 2, 3], [5, 7, 9], [1, 3, 5, 7, 10], [0, 100], [4], list(range(1, 60, 7))]
)
def test_the_tasks_of_an_array_have_all_shards_whatever_their_numbers(
    ids: list[int], tmp_path: Path
) -> None:
    shuffled = Random(0).sample(ids, len(ids))
    shards = [shard_of(1, ids, task, tmp_path) for task in shuffled]
    assert sorted(shard.index for shard in shards) == list(range(len(ids)))
    assert {shard.count for shard in shards} == {len(ids)}


def test_tasks_of_an_array_without_holes_are_shards_by_position(tmp_path: Path) -> None:
    assert [shard_of(1, [5, 7, 9], task, tmp_path).index for task in (9, 5, 7)] == [2, 0, 1]


def test_a_requeued_task_and_a_part_submitted_again_have_their_shards(tmp_path: Path) -> None:
    ids = [1, 3, 5, 7, 10]
    before = {task: shard_of(1, ids, task, tmp_path) for task in ids}
    assert {task: shard_of(1, ids, task, tmp_path) for task in ids} == before
    again = {task: shard_of(2, [3, 10], task, tmp_path) for task in (10, 3)}
    assert again == {task: before[task] for task in (10, 3)}


def test_a_part_submitted_again_may_have_tasks_that_never_started(tmp_path: Path) -> None:
    before = [shard_of(1, [1, 3, 5, 7, 10], task, tmp_path) for task in (1, 3, 5)]
    after = [shard_of(2, [7, 10], task, tmp_path) for task in (10, 7)]
    assert sorted(shard.index for shard in before + after) == [0, 1, 2, 3, 4]


def test_a_larger_array_divides_anew(tmp_path: Path) -> None:
    shard_of(1, [0, 1], 0, tmp_path)
    assert shard_of(2, [0, 1, 2, 3], 3, tmp_path) == Shard(3, 4)


def test_a_task_in_a_hole_of_the_array_is_refused(tmp_path: Path) -> None:
    for task in (1, 3, 10):
        shard_of(1, [1, 3, 10], task, tmp_path)
    with pytest.raises(UsageError, match=r"task 4 is not one of the 3 tasks .*1, 3, 10.*--num-shards"):
        shard_of(2, [4], 4, tmp_path)


def test_flags_come_before_the_array(tmp_path: Path) -> None:
    assert choose_shard(4, 1, tmp_path, environment(1, [0, 1], 0)) == Shard(1, 4)
    assert choose_shard(None, None, tmp_path, {}) == Shard(0, 1)
    with pytest.raises(UsageError, match="give both"):
        choose_shard(4, None, tmp_path, {})
    with pytest.raises(UsageError, match="from 0 to 3"):
        choose_shard(4, 4, tmp_path, {})


def test_one_shard_alone_is_all_pictures_whatever_the_array(tmp_path: Path) -> None:
    assert choose_shard(1, None, tmp_path, environment(1, [0, 1], 0)) == Shard(0, 1)
    assert choose_shard(1, 0, tmp_path, environment(1, [0, 1], 0)) == Shard(0, 1)
    assert not (tmp_path / "records").exists()


@pytest.mark.parametrize("ids", [[0, 1, 2], [5, 7, 9], [1, 3, 10]])
def test_what_would_be_claimed_is_claimed_then(ids: list[int], tmp_path: Path) -> None:
    for task in ids[::-1]:
        before = sorted(tmp_path.rglob("*"))
        told = choose_shard(None, None, tmp_path, environment(1, ids, task), claim=False)
        assert sorted(tmp_path.rglob("*")) == before
        assert told == shard_of(1, ids, task, tmp_path) == shard_of(1, ids, task, tmp_path)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ID", "7"),
        ("ID", ""),
        ("ID", "4294967294"),  # which SLURM gives for none
        ("MIN", "2"),
        ("MAX", None),
        ("MAX", "x"),
        ("COUNT", None),
        ("COUNT", "0"),
        ("COUNT", "1000000000"),
        ("STEP", "0"),
    ],
)
def test_variables_that_are_of_no_array_are_refused_and_the_way_out_is_told(
    tmp_path: Path, name: str, value: str | None
) -> None:
    variables = environment(1, [0, 1, 2, 3], 1)
    del variables[f"SLURM_ARRAY_TASK_{name}"]
    if value is not None:
        variables[f"SLURM_ARRAY_TASK_{name}"] = value
    with pytest.raises(UsageError, match="SLURM_ARRAY_TASK_.*; give --num-shards 1 for all pictures"):
        choose_shard(None, None, tmp_path, variables)
    assert not list(tmp_path.iterdir())


def test_an_array_whose_variables_are_incomplete_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="SLURM_ARRAY_TASK_COUNT is not set"):
        ArrayTask.from_environment({"SLURM_ARRAY_TASK_ID": "3"})


TORCHRUN = {"RANK": "2", "WORLD_SIZE": "3", "LOCAL_RANK": "0"}
SRUN = {"SLURM_PROCID": "2", "SLURM_NTASKS": "3", "SLURM_LOCALID": "0"}
IN_STEP = SRUN | {"SLURM_JOB_ID": "7", "SLURM_STEP_ID": "0"}


@pytest.mark.parametrize("variables", [TORCHRUN, SRUN, IN_STEP], ids=["torchrun", "srun", "step"])
def test_a_launchers_processes_have_all_pictures_among_them(
    variables: dict[str, str], tmp_path: Path
) -> None:
    assert choose_shard(None, None, tmp_path, variables) == Shard(2, 3)
    of_array = {**environment(7, [5, 6], 6), **variables, "SLURM_STEP_ID": "0"}
    assert choose_shard(None, None, tmp_path, of_array) == Shard(1, 2).part(2, 3) == Shard(5, 6)
    assert choose_shard(1, None, tmp_path, variables) == Shard()


def test_a_batch_script_takes_all_pictures_whatever_tasks_its_job_has(tmp_path: Path) -> None:
    assert choose_shard(None, None, tmp_path, {**SRUN, "SLURM_JOB_ID": "7"}) == Shard()


@given(st.sets(KEYS), st.integers(1, 5), st.integers(1, 5))
def test_the_parts_of_a_shard_are_all_of_it(keys: set[str], count: int, parts: int) -> None:
    shard = Shard(count - 1, count)
    divided = [shard.part(index, parts) for index in range(parts)]
    assert {key for key in keys if shard.has(key)} == {k for k in keys for p in divided if p.has(k)}


@pytest.mark.parametrize("change", [{"RANK": "3"}, {"RANK": "-1"}, {"WORLD_SIZE": "x"}])
def test_variables_of_a_launcher_that_are_no_numbers_are_refused(
    change: dict[str, str], tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="--num-shards 1"):
        choose_shard(None, None, tmp_path, TORCHRUN | change)
