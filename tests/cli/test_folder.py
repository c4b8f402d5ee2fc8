"""status and merge of a folder into which several commands wrote."""

import json
from collections.abc import Callable
from pathlib import Path

from click.testing import Result

Run = Callable[..., Result]


def test_variants_of_earlier_commands_are_told_apart(
    sdcorrect: Run, translate: Run, pictures: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert translate(pictures, "-o", out, "--method", "sdedit", "--limit", 1).exit_code == 0
    assert translate(pictures, "-o", out, "--method", "correct", "--limit", 2).exit_code == 0
    told = sdcorrect("status", out).stdout.splitlines()
    assert told[-2:] == [
        "each picture counts once per variant (correct)",
        "not counted, of an earlier command: sdedit, 1 done, 0 failed",
    ]
    events = [json.loads(line) for line in sdcorrect("status", out, "--json").stdout.splitlines()]
    assert {"event": "earlier", "variant": "sdedit", "done": 1, "failed": 0} in events
    assert events[-1]["done"] == 2
    assert sdcorrect("merge", out).exit_code == 0
    counts = json.loads((out / "job.json").read_text())["counts"]
    assert {variant: count["done"] for variant, count in counts.items()} == {"sdedit": 1, "correct": 2}
