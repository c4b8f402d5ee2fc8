"""Reading, writing and recording cost a run next to nothing, and its memory does not grow."""

import time
from pathlib import Path

import pytest
from drill import Drill, make_pictures

from sdcorrect.batch.runner import ShardRun
from sdcorrect.config import load_job
from sdcorrect.inputs.items import find_items
from sdcorrect.inputs.pictures import read_picture
from sdcorrect.models import Model
from sdcorrect.output.shards import Shard
from sdcorrect.translate import Request

pytestmark = pytest.mark.slow
BATCH = 8


def test_a_folder_runs_at_the_rate_of_the_bare_loop(model: Model, tmp_path: Path) -> None:
    folder = make_pictures(tmp_path / "pictures", 256, side=256)
    settings = {"input.path": str(folder), "output.path": str(tmp_path / "out"), "prompt": "flat design"}
    job = load_job(None, {**settings, "steps": 5, "batch_size": BATCH})
    run = ShardRun(job, model, Shard())
    images = [read_picture(item, run.sizing, job.input).image for item in find_items(job)]

    def bare(first: int, last: int) -> float:
        began = time.perf_counter()
        for start in range(first, last, BATCH):
            requests = [
                Request(image, start + i, job.prompt)
                for i, image in enumerate(images[start : start + BATCH])
            ]
            run.translator(requests, variants=["correct"])
        return time.perf_counter() - began

    bare(0, BATCH)  # the first batch of a process is slower
    # half of it before and half after, so that what else the machine does falls on both alike
    seconds = bare(0, 128)
    began = time.perf_counter()
    assert len([record for record in run.records() if record]) == 256
    folder_seconds = time.perf_counter() - began
    seconds += bare(128, 256)
    assert seconds / folder_seconds >= 0.95, f"{seconds:.1f} s bare, {folder_seconds:.1f} s as a folder"


def test_memory_does_not_grow_with_the_folder(tmp_path: Path) -> None:
    peaks = []
    for count in (256, 2048):
        folder = make_pictures(tmp_path / f"pictures-{count}", count, side=32)
        quickest = ("--method", "sdedit", "--batch-size", "16", "--steps", "1")
        drill = Drill(folder, tmp_path / f"out-{count}", *quickest)
        assert drill.finish() == 0, drill.messages()
        peaks.append(drill.peak())
    assert peaks[1] < 1.05 * peaks[0], peaks
