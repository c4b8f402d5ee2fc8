"""A folder of four times as many pictures takes about four times as long to read."""

import time
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from sdcorrect.cli import app
from sdcorrect.inputs.items import find_items
from sdcorrect.output.folder import OutputFolder
from sdcorrect.output.ledger import Ledger
from sdcorrect.output.records import Done, InputFile, OutputFile
from sdcorrect.output.shards import Shard
from sdcorrect.output.survey import survey


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    """The output folder of a job of one picture."""
    (tmp_path / "pictures").mkdir()
    Image.new("RGB", (32, 32), "red").save(tmp_path / "pictures" / "a.png")
    quick = ["-p", "x", "--steps", "2", "--strength", "1", "--set", "size=32"]
    command = ["translate", str(tmp_path / "pictures"), "-o", str(tmp_path / "out"), *quick]
    assert CliRunner().invoke(app, command).exit_code == 0
    return tmp_path / "out"


def add(out: Path, names: list[str]) -> None:
    """Let the pictures `names`, all alike, be done too."""
    folder, pictures = OutputFolder(out), out.parent / "pictures"
    (record,) = (r for r in folder.records().values() if r.input.path == "a.png")
    assert isinstance(record, Done)
    for name in names:
        (pictures / name).hardlink_to(pictures / "a.png")
        (out / "correct" / name).hardlink_to(out / "correct" / "a.png")
    job_file, added = folder.job(), set(names)
    with (out / "records" / "0-of-1.jsonl").open("ab") as stream:
        for item in find_items(job_file.job):
            if item.key in added:
                update = {
                    "input": InputFile(path=item.key, sha256=record.input.sha256),
                    "output": OutputFile(path=f"correct/{item.key}"),
                    "fingerprint": job_file.fingerprint.mark(item, "correct"),
                }
                stream.write(record.model_copy(update=update).as_json())


@pytest.mark.slow
def test_nothing_is_quadratic_in_the_pictures(finished: Path) -> None:
    seconds = []
    for count in (2000, 8000):
        add(finished, [f"{count}-{number}.png" for number in range(count - (count == 8000) * 2000)])
        began = time.process_time()
        assert survey(finished).total().done == count + 1
        ledger = Ledger(finished, Shard())
        ledger.open(overwrite=False)
        seconds.append(time.process_time() - began)
    assert seconds[1] < 10 * seconds[0], seconds
