"""What a run survives, and what it leaves in its output folder."""

import json
import logging
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
import torch
from click.testing import Result
from PIL import Image

from sdcorrect.batch.attempts import OUT_OF_MEMORY
from sdcorrect.batch.runner import ShardRun
from sdcorrect.config import load_job
from sdcorrect.models import Model, load
from sdcorrect.output.shards import Shard
from sdcorrect.settings import ModelSettings

Command = Callable[..., Result]
QUICK = {"prompt": "in 3d render style", "steps": 2, "strength": 1, "size": 32}


def run(model: Model, folder: Path, out: Path, *, batch_size: int = 1, **options: Any) -> ShardRun:
    paths = {"input.path": str(folder), "output.path": str(out)}
    job = load_job(None, {**QUICK, **paths, "batch_size": batch_size})
    return ShardRun(job, model, Shard(), **options)


def statuses(run: ShardRun) -> list[tuple[str, str | None, int | None]]:
    """Status, error and U-Net evaluations of all that was not done before."""
    return [(r.status, r.error, r.unet_evaluations) for r in run.records() if r]


def files_of(out: Path) -> dict[str, bytes]:
    return {p.relative_to(out).as_posix(): p.read_bytes() for p in out.rglob("*.png")}


def lines_of(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for file in sorted(out.glob("records/*.jsonl")) for line in file.open()]


@pytest.fixture
def half() -> Model:
    """A model of lower precision, the test's own."""
    return load(ModelSettings(device="cpu", dtype="bfloat16"))


def out_of_cuda() -> None:
    raise torch.OutOfMemoryError("CUDA out of memory")


def out_of_cpu() -> None:
    torch.empty(1 << 60)  # more than any machine has: what torch says of it is torch's own


def test_any_number_of_threads_makes_the_same_bytes_in_the_same_order(
    model: Model, pictures: Path, tmp_path: Path
) -> None:
    made = []
    for threads in (1, 4):
        of_so_many = run(model, pictures, tmp_path / str(threads))
        of_so_many.threads = threads
        order = [record.input.path for record in of_so_many.records() if record]
        made.append((order, files_of(tmp_path / str(threads))))
    assert made[0] == made[1]
    assert made[0][0] == sorted(made[0][0])


def out_of_numpy() -> None:
    np.empty(1 << 50)


@contextmanager
def memory_for(model: Model, rows: int, exhausted: Callable[[], None] = out_of_cuda) -> Iterator[None]:
    """Within this context the U-Net has memory for so many rows at a time."""

    def check(_unet: object, args: tuple[torch.Tensor, ...], kwargs: dict[str, Any]) -> None:
        if len(args[0]) > rows:
            exhausted()

    hook = model.pipe.unet.register_forward_pre_hook(check, with_kwargs=True)
    try:
        yield
    finally:
        hook.remove()


@pytest.mark.parametrize("exhausted", [out_of_cuda, out_of_cpu, out_of_numpy])
def test_out_of_memory_halves_the_batch_and_says_so_once(
    model: Model,
    pictures: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    exhausted: Callable[[], None],
) -> None:
    shutil.copy(pictures / "bicycle.png", pictures / "again.png")
    halved = run(model, pictures, tmp_path / "halved", batch_size=4)
    with memory_for(model, 4, exhausted), caplog.at_level(logging.WARNING):
        assert statuses(halved) == [("done", None, 5)] * 4
    assert [r.message for r in caplog.records if "memory" in r.message] == [
        "out of memory with 4 pictures per batch; continuing with 2"
    ]
    list(run(model, pictures, tmp_path / "two", batch_size=2).records())
    assert files_of(tmp_path / "halved") == files_of(tmp_path / "two")


def test_a_picture_that_memory_does_not_suffice_for_fails_alone(
    model: Model, pictures: Path, tmp_path: Path
) -> None:
    starved = run(model, pictures, tmp_path / "out", batch_size=2)
    with memory_for(model, rows=1):
        assert statuses(starved) == [("failed", OUT_OF_MEMORY, None)] * 3


@contextmanager
def poisoned(model: Model, value: float) -> Iterator[None]:
    """Within this context a bias of the VAE is of use in float32 alone."""
    decoder = model.pipe.vae.decoder.conv_out

    def poison(module: torch.nn.Module, _args: object, pixels: torch.Tensor) -> torch.Tensor:
        return pixels if pixels.dtype == torch.float32 else torch.full_like(pixels, value)

    hook = decoder.register_forward_hook(poison)
    try:
        yield
    finally:
        hook.remove()


@pytest.mark.parametrize("value", [float("nan"), -5.0])
def test_a_result_that_precision_spoils_is_computed_once_more_in_float32(
    half: Model, pictures: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, value: float
) -> None:
    with poisoned(half, value), caplog.at_level(logging.WARNING):
        assert statuses(run(half, pictures, tmp_path / "out")) == [("done", None, 10)] * 3
    problem = "all black" if value < 0 else "not finite (NaN)"
    assert f"bicycle.png (correct): the result is {problem}; retrying in float32" in caplog.text
    assert half.dtype == torch.bfloat16
    for content in files_of(tmp_path / "out"):
        with Image.open(tmp_path / "out" / content) as picture:
            assert picture.getbbox() is not None


def test_a_result_that_float32_spoils_too_is_a_failure_with_its_reason(
    half: Model, pictures: Path, tmp_path: Path
) -> None:
    weight = half.pipe.unet.conv_out.weight
    whole = weight.clone()
    weight[0, 0, 0, 0] = float("nan")
    out = tmp_path / "out"
    failed = [("failed", "the result is not finite (NaN)", 10)] * 3
    assert statuses(run(half, pictures, out)) == failed
    assert not files_of(out)

    # it is not tried again, and told again, until one asks for it
    weight.copy_(whole)
    again = run(half, pictures, out)
    assert statuses(again) == failed
    assert not again.recorder.wrote
    assert statuses(run(half, pictures, out, retry_failed=True)) == [("done", None, 5)] * 3
    assert not statuses(run(half, pictures, out))


def test_a_black_picture_may_become_black(half: Model, tmp_path: Path) -> None:
    folder = tmp_path / "black"
    folder.mkdir()
    Image.new("RGB", (32, 32)).save(folder / "black.png")
    with poisoned(half, -5.0):
        assert statuses(run(half, folder, tmp_path / "out")) == [("done", None, 5)]


def test_what_stops_a_run_loses_only_the_batch_in_hand(
    model: Model, pictures: Path, tmp_path: Path
) -> None:
    calls = 0

    def check() -> None:
        nonlocal calls
        calls += 1
        if calls == 9:
            raise ZeroDivisionError

    hooks = len(model.pipe.unet._forward_pre_hooks)
    with pytest.raises(ZeroDivisionError):
        list(run(model, pictures, tmp_path / "out", check=check).records())
    assert len(model.pipe.unet._forward_pre_hooks) == hooks
    lines = lines_of(tmp_path / "out")
    assert 1 <= len(lines) == len(files_of(tmp_path / "out"))
    assert len(statuses(run(model, pictures, tmp_path / "out"))) == 3 - len(lines)


def test_fail_fast_stops_at_the_first_failure(
    translate: Command, pictures: Path, tmp_path: Path
) -> None:
    (pictures / "a.png").write_bytes(b"no picture")
    result = translate(pictures, "-o", tmp_path / "out", "--fail-fast")
    assert result.exit_code == 1
    assert "a.png (correct)" in result.stderr and "--fail-fast" in result.stderr
    assert len(lines_of(tmp_path / "out")) < 4


def test_a_failure_is_told_again_but_recorded_once(
    translate: Command, pictures: Path, tmp_path: Path
) -> None:
    (pictures / "a.png").write_bytes(b"no picture")
    for _ in range(2):
        result = translate(pictures, "-o", tmp_path / "out")
        assert result.exit_code == 3
        assert "failed: a.png (correct)" in result.stderr
    assert "nothing to do" in result.stdout
    assert len(lines_of(tmp_path / "out")) == 4
    shutil.copy(pictures / "bicycle.png", pictures / "a.png")
    assert translate(pictures, "-o", tmp_path / "out").exit_code == 0


def test_shards_make_what_one_run_makes_and_merge_joins_them(
    translate: Command, sdcorrect: Command, pictures: Path, tmp_path: Path
) -> None:
    for name in "abc":
        shutil.copy(pictures / "bicycle.png", pictures / f"{name}.png")
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    translate(pictures, "-o", whole)
    translate(pictures, "-o", parts, "--num-shards", 2, "--shard-index", 0)

    early = sdcorrect("merge", parts)
    assert early.exit_code == 1
    assert "pictures are missing" in early.stderr and "in shards 1-of-2" in early.stderr

    translate(pictures, "-o", parts, "--num-shards", 2, "--shard-index", 1)
    assert files_of(parts) == files_of(whole)
    assert {file.name for file in parts.glob("records/*.jsonl")} == {"0-of-2.jsonl", "1-of-2.jsonl"}
    assert sdcorrect("merge", parts).exit_code == 0
    merged, single = (json.loads((out / "job.json").read_text()) for out in (parts, whole))
    assert merged["counts"] == single["counts"] == {"correct": {"done": 6, "failed": 0}}
    assert merged["unet_evaluations"] == single["unet_evaluations"]
    assert [shard["shard"] for shard in merged["shards"]] == ["0-of-2", "1-of-2"]
    assert merged["seconds"]["denoise"] > 0

    # another division takes up what is done
    assert "nothing to do" in translate(pictures, "-o", parts).stdout
    (parts / "correct" / "a.png").unlink()
    gone = sdcorrect("merge", parts)
    assert gone.exit_code == 1 and "1 picture is missing (correct/a.png)" in gone.stderr


def test_status_counts_by_shard_and_in_all(
    translate: Command, sdcorrect: Command, pictures: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    (pictures / "a.png").write_bytes(b"no picture")
    translate(pictures, "-o", out, "--num-shards", 2, "--shard-index", 1)
    mine = len(lines_of(out))
    shown = sdcorrect("status", out)
    assert shown.exit_code == 0
    rows = [line.replace("│", " ").split() for line in shown.stdout.splitlines() if "│" in line]
    assert rows[0][:2] == ["0-of-2", "0"] and rows[0][-1] == str(4 - mine)
    assert rows[1][0] == "1-of-2" and rows[1][-1] == "0"
    assert rows[2][0] == "total" and rows[2][-1] == str(4 - mine)
    for command in ("status", "merge"):
        nothing = sdcorrect(command, tmp_path)
        assert nothing.exit_code == 2
        assert "no job.json" in nothing.stderr
    assert not (tmp_path / "records").exists()


def test_what_is_written_is_what_the_schemas_say(
    translate: Command, sdcorrect: Command, pictures: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    (pictures / "a.png").write_bytes(b"no picture")
    translate(pictures, "-o", out, "--set", "variants=[sdedit, correct]")
    schemas = {of: json.loads(sdcorrect("schema", of).stdout) for of in ("job", "record")}
    for schema in schemas.values():
        jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(json.loads((out / "job.json").read_text()), schemas["job"])
    lines = lines_of(out)
    assert len(lines) == 8
    for line in lines:
        jsonschema.validate(line, schemas["record"])
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({**line, "status": "perhaps"}, schemas["record"])


def test_pictures_tell_what_made_them_unless_told_not_to(
    translate: Command, pictures: Path, tmp_path: Path
) -> None:
    translate(pictures, "-o", tmp_path / "with", "--limit", 1)
    translate(pictures, "-o", tmp_path / "without", "--limit", 1, "--no-embed-metadata")
    (line,) = lines_of(tmp_path / "with")
    with Image.open(tmp_path / "with" / "correct" / "bicycle.png") as picture:
        prompt, settings = picture.info["parameters"].split("\n")
    assert prompt == "in 3d render style"
    assert f"Seed: {line['seed']}, Size: 32x32" in settings
    assert settings.startswith("Steps: 2, Sampler: DDIM, CFG scale: 7.5")
    with Image.open(tmp_path / "without" / "correct" / "bicycle.png") as picture:
        assert "parameters" not in picture.info


def test_a_limit_that_is_raised_goes_on(
    translate: Command, sdcorrect: Command, pictures: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    translate(pictures, "-o", out, "--limit", 1)
    assert sdcorrect("merge", out).exit_code == 0
    translate(pictures, "-o", out)
    assert json.loads((out / "job.json").read_text())["counts"]["correct"]["done"] == 3
    assert len(lines_of(out)) == 3


def test_a_prompt_that_changes_in_a_list_redoes_its_picture_alone(
    translate: Command, pictures: Path, tmp_path: Path
) -> None:
    table, out = tmp_path / "list.csv", tmp_path / "out"
    table.write_text("path,prompt\npictures/bicycle.png,a\npictures/church.jpg,b\n")
    translate(table, "-o", out)
    before = files_of(out)
    table.write_text("path,prompt\npictures/bicycle.png,a\npictures/church.jpg,c\n")
    result = translate(table, "-o", out)
    assert result.exit_code == 0, result.stderr
    after = files_of(out)
    assert [name for name in before if before[name] != after[name]] == ["correct/pictures/church.png"]


def test_prompts_that_one_recipe_cannot_work_with_fail_that_recipe_alone(
    translate: Command, pictures: Path, tmp_path: Path
) -> None:
    table, out = tmp_path / "list.csv", tmp_path / "out"
    rows = "pictures/bicycle.png,a red cat,a cat", "pictures/church.jpg,a dog,a cat"
    table.write_text("\n".join(["path,prompt,source_prompt", *rows]))
    words = {"name": "words", "inversion": "full", "inversion_steps": 2, "start": "inverted"}
    words |= {"source": "sampled", "words": "replace", "steps": 2}
    words |= {"inject": [{"tensor": "cross-attention", "blocks": ["mid"]}]}
    settings = "--set", f"variants=[sdedit, {json.dumps(words)}]", "--set", "batch_size=2"
    first = translate(table, "-o", out, *settings)
    assert first.exit_code == 3, first.stderr
    failed = "pictures/bicycle.png (words): prompts cannot be aligned word for word: 'a cat' has 2 words"
    assert failed in first.stderr
    made = {"sdedit/pictures/bicycle.png", "sdedit/pictures/church.png", "words/pictures/church.png"}
    assert files_of(out).keys() == made
    lines = lines_of(out)
    assert {(line["variant"], line["status"]) for line in lines} == {
        ("sdedit", "done"),
        ("words", "done"),
        ("words", "failed"),
    }
    assert all(line["input"]["sha256"] for line in lines)
    counts = json.loads((out / "job.json").read_text())["counts"]
    assert (counts["sdedit"]["done"], counts["words"]["done"], counts["words"]["failed"]) == (2, 1, 1)
    again = translate(table, "-o", out, *settings)
    assert again.exit_code == 3
    assert lines_of(out) == lines  # nothing is done or recorded twice


def test_each_variant_is_saved_when_it_is_finished_and_tells_its_own_seconds(
    model: Model, pictures: Path, tmp_path: Path
) -> None:
    calls = 0

    def check() -> None:
        nonlocal calls
        calls += 1
        if calls == 40:
            raise ZeroDivisionError

    out = tmp_path / "out"
    paths = {"input.path": str(pictures), "output.path": str(out), "batch_size": 3}
    job = load_job(None, {**QUICK, **paths, "variants": ["sdedit", "correct", "pnp"]})
    with pytest.raises(ZeroDivisionError):  # within the 999 steps of pnp's inversion
        list(ShardRun(job, model, Shard(), check=check).records())
    assert {line["variant"] for line in lines_of(out)} == {"sdedit", "correct"}

    ddim = {"name": "ddim", "inversion": "full", "start": "inverted", "steps": 20}
    whole = load_job(None, {**QUICK, **paths, "variants": ["sdedit", ddim]})
    list(ShardRun(whole, model, Shard(), overwrite=True).records())
    seconds = {line["variant"]: line["seconds"] for line in lines_of(out)}
    assert seconds["ddim"] > 3 * seconds["sdedit"]  # 60 evaluations to 4
