"""What a run is reckoned to take, against what it then took."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from PIL import Image

from sdcorrect.batch.runner import ShardRun
from sdcorrect.config import load_job
from sdcorrect.models import Model
from sdcorrect.output.shards import Shard

QUICK = {"prompt": "a church", "source_prompt": "a bridge", "steps": 4, "strength": 0.5, "size": 32}


def run_of(model: Model, folder: Path, out: Path, **settings: Any) -> ShardRun:
    paths = {"input.path": str(folder), "output.path": str(out)}
    return ShardRun(load_job(None, {**QUICK, **paths, **settings}), model, Shard())


def test_evaluations_are_known_before_the_first(model: Model, pictures: Path, tmp_path: Path) -> None:
    """With inversions that are shared, late guidance, a source beside, and a batch's filling."""
    late = {"name": "late", "guidance_window": [0.5, 1.0]}
    beside = {"name": "beside", "inversion": "full", "inversion_steps": 4, "start": "inverted"}
    beside["inject"] = [{"tensor": "skip", "blocks": [3]}]
    guided = {
        **beside,
        "inversion_prompt": "source",
        "inversion_guidance": 2.0,
        "name": "guided",
        "source": "sampled",
    }
    variants = ["sdedit", "correct", "correct-adain", late, beside, guided]
    run = run_of(model, pictures, tmp_path, variants=variants, batch_size=2)
    before, seen = model.evaluations, []
    reckoned: list[float] = []  # before it is held below the total
    hook = model.pipe.unet.register_forward_hook(
        lambda *_: reckoned.append(run.work._finished + run.work._running)
    )
    for record in run.records():
        assert record
        seen.append(run.work.evaluated)
    hook.remove()
    assert max(reckoned) == run.work.evaluations == run.work._finished
    each = {name: tally.evaluations for name, tally in run.tally.items()}
    assert run.work.evaluated == run.work.evaluations == seen[-1]
    # three pictures are two batches of two
    assert model.evaluations - before == run.work.evaluations * 4 // 3
    # the paper's inversion is shared by two
    assert run.work.evaluations == 3 * (sum(n or 0 for n in each.values()) - 1)
    assert seen == sorted(seen)


def test_what_was_done_before_counts_for_nothing(model: Model, pictures: Path, tmp_path: Path) -> None:
    list(run_of(model, pictures, tmp_path).records())
    Image.new("RGB", (40, 40), "red").save(pictures / "new.png")
    (pictures / "broken.png").write_bytes(b"no picture")
    run = run_of(model, pictures, tmp_path)
    expected = []
    for _ in run.records():
        expected.append(run.work.evaluations)
    work = run.work
    assert (work.covered, work.before, work.to_do, work.settled) == (5, 3, 2, 2)
    # what cannot be read is reckoned with until it is looked at
    assert max(expected) <= 2 * work.evaluations
    assert work.evaluated == work.evaluations == run.tally["correct"].evaluations


def test_programs_are_told_of_each_translation(
    sdcorrect: Callable[..., Result], translate: Callable[..., Result], pictures: Path, tmp_path: Path
) -> None:
    (pictures / "broken.png").write_bytes(b"no picture")
    result = translate(pictures, "-o", tmp_path, "--json", "--method", "sdedit")
    first, *others, last = map(json.loads, result.stdout.splitlines())
    assert (first["event"], first["to_translate"], first["unet_evaluations"]) == ("started", 4, 16)
    assert sorted(event["event"] for event in others) == ["done", "done", "done", "failed"]
    assert (last["event"], last["exit_code"]) == ("ended", 3)
    for command, code in (("status", 0), ("merge", 3)):
        shown = sdcorrect(command, tmp_path, "--json")
        first, *others, last = map(json.loads, shown.stdout.splitlines())
        assert first["event"] == "started" and first["variants"] == ["sdedit"] and first["pictures"] == 4
        assert [event["event"] for event in others] == ["done", "done", "done", "failed"]
        assert others[-1]["input"]["path"] == "broken.png" and others[0]["seconds"] > 0
        totals = {"done": 3, "failed": 1, "filtered": 0, "remaining": 0}
        assert last == {"event": "ended", "exit_code": code, **totals}
        quiet = sdcorrect(command, tmp_path, "-q")
        assert quiet.stdout == "" and [*map(str.split, quiet.stderr.splitlines())][0][0] == "failed:"
        wrong = sdcorrect(command, tmp_path, "--log-level", "loud")
        assert (wrong.exit_code, len(wrong.stderr.splitlines())) == (2, 1)
    refused = translate(pictures, "-o", tmp_path, "--json", "--strength", "2")
    (only,) = map(json.loads, refused.stdout.splitlines())
    assert (only["event"], only["exit_code"]) == ("ended", 2)
    assert "strength" in only["error"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["-q", "-v"], "--quiet and --verbose: give only one"),
        (["--log-level", "loud"], "--log-level loud: no such level; choose from debug, info"),
        (["--method", "sdedit", "--variants", "correct"], "--method and --variants: give only one"),
        (["--variants", "sdedit,corect"], "did you mean correct?"),
        (["--lora", "no.safetensors:0.5"], "no.safetensors"),
        (["--lora", "a.safetensors:inf"], "weight"),
        (["--vae", ""], "--vae: is empty; is a shell variable unset?"),
        (["--format", "tiff"], "output.format"),
        (["--guidance-scale", "-1"], "guidance_scale"),
    ],
)
def test_bad_flags_are_refused_in_a_line(
    sdcorrect: Callable[..., Result], pictures: Path, tmp_path: Path, flags: list[str], message: str
) -> None:
    result = sdcorrect("translate", pictures, "-o", tmp_path / "out", "-p", "x", *flags)
    assert result.exit_code == 2
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
