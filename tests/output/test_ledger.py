import logging
from datetime import datetime, timedelta, timezone
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdcorrect.errors import SdcorrectError
from sdcorrect.output.files import locked
from sdcorrect.output.folder import OutputFolder
from sdcorrect.output.ledger import Ledger
from sdcorrect.output.records import Done, InputFile, OutputFile
from sdcorrect.output.shards import Shard

BEGAN = datetime(2026, 1, 1, tzinfo=timezone.utc)
#: Names as the operating system gives them, newlines and bytes that are no UTF-8 included.
NAMES = st.binary(min_size=1, max_size=20).map(lambda name: name.decode("utf-8", "surrogateescape"))


def record(path: str, **changes: object) -> Done:
    content = {
        "input": InputFile(path=path, sha256="0" * 64),
        "variant": "correct",
        "output": OutputFile(path="correct/a.png"),
        "seed": 0,
        "size": (32, 32),
        "unet_evaluations": 5,
        "seconds": 0.5,
        "prompt": "p",
        "negative_prompt": "",
        "effective_steps": 2,
        "fingerprint": "f" * 16,
        "finished": BEGAN,
    }
    return Done.model_validate({**content, **changes})


def opened(out: Path, shard: Shard | None = None, *, overwrite: bool = False) -> Ledger:
    ledger = Ledger(out, shard or Shard())
    ledger.open(overwrite=overwrite)
    return ledger


@given(st.lists(NAMES, unique=True, max_size=5), st.data())
def test_cut_at_any_byte_the_whole_records_before_are_kept(
    names: list[str], data: st.DataObject
) -> None:
    with TemporaryDirectory() as folder:
        out = Path(folder)
        ledger = opened(out)
        for name in names:
            ledger.append(record(name))
        file = out / "records" / "0-of-1.jsonl"
        content = file.read_bytes()
        cut = data.draw(st.integers(0, len(content)))
        file.write_bytes(content[:cut])

        whole = content[:cut].count(b"\n")
        assert [r.input.path for r in OutputFolder(out).lines()] == names[:whole]
        repaired = opened(out)
        assert [repaired.known(name, "correct") is not None for name in names] == [
            index < whole for index in range(len(names))
        ]
        for name in names[whole:]:
            repaired.append(record(name))
        assert file.read_bytes() == content


@given(st.binary(max_size=60).filter(lambda tail: b"\n" not in tail))
def test_whatever_a_power_cut_leaves_after_the_last_line_is_cut_off(tail: bytes) -> None:
    with TemporaryDirectory() as folder:
        out = Path(folder)
        opened(out).append(record("a"))
        file = out / "records" / "0-of-1.jsonl"
        whole = file.read_bytes()
        file.write_bytes(whole + tail)
        opened(out)
        assert file.read_bytes() == whole


def test_a_damaged_line_is_told_and_its_picture_is_not_known(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ledger = opened(tmp_path)
    for name in ("a", "b", "c"):
        ledger.append(record(name))
    file = tmp_path / "records" / "0-of-1.jsonl"
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(lines[0] + b"\0" * 20 + b"\n" + lines[2])
    with caplog.at_level(logging.WARNING):
        again = opened(tmp_path)
    assert [name for name in "abc" if again.known(name, "correct")] == ["a", "c"]
    assert "0-of-1.jsonl:2: not a valid record" in caplog.text


def test_the_last_attempt_counts_in_whatever_file_and_by_whatever_clock(tmp_path: Path) -> None:
    ahead = BEGAN + timedelta(days=1)
    opened(tmp_path, Shard.of("a", 2)).append(record("a", attempt=2, prompt="later"))
    opened(tmp_path, Shard.of("a", 3)).append(record("a", finished=ahead, prompt="earlier"))
    assert OutputFolder(tmp_path).records()["a", "correct"].prompt == "later"
    known = opened(tmp_path, Shard.of("a", 3)).known("a", "correct")
    assert known is not None and known.attempt == 2


def test_of_one_file_the_last_line_counts(tmp_path: Path) -> None:
    ledger = opened(tmp_path)
    ledger.append(record("a", finished=BEGAN + timedelta(days=1), prompt="earlier"))
    ledger.append(record("a", prompt="later"))
    assert OutputFolder(tmp_path).records()["a", "correct"].prompt == "later"


def test_overwriting_a_shard_leaves_the_records_of_the_others(tmp_path: Path) -> None:
    for index in (0, 1):
        opened(tmp_path, Shard(index, 2)).append(record(str(index)))
    opened(tmp_path, Shard(0, 2), overwrite=True)
    assert [r.input.path for r in OutputFolder(tmp_path).lines()] == ["1"]
    opened(tmp_path, overwrite=True)
    assert not list(OutputFolder(tmp_path).lines())


def test_a_lock_is_had_by_one_and_says_by_whom(tmp_path: Path) -> None:
    file = tmp_path / "records" / "0-of-1.lock"
    with locked(file):
        with (
            pytest.raises(SdcorrectError, match=r"process \d+ on .* working on 0-of-1"),
            locked(file),
        ):
            pass
        with pytest.raises(SdcorrectError, match="is working"), locked(file):
            pass
    assert not file.exists()
    with locked(file):
        pass


def test_what_is_begun_anew_in_shards_counts_after_the_records_that_stay(tmp_path: Path) -> None:
    opened(tmp_path).append(record("a", attempt=3))
    shard = Shard.of("a", 2)
    anew = opened(tmp_path, shard, overwrite=True)
    assert anew.known("a", "correct") is None
    anew.append(record("a", attempt=anew.next_attempt("a", "correct"), seed=7))
    assert OutputFolder(tmp_path).records()["a", "correct"].seed == 7


@given(st.sets(NAMES, max_size=8), st.integers(1, 6), st.integers(1, 6))
def test_a_shard_knows_what_any_division_recorded_of_its_own_pictures_and_no_more(
    names: set[str], before: int, now: int
) -> None:
    with TemporaryDirectory() as folder:
        out = Path(folder)
        for name in sorted(names):
            opened(out, Shard.of(name, before)).append(record(name))
        for index in range(now):
            ledger = opened(out, shard := Shard(index, now))
            known = {name for name in names if ledger.known(name, "correct")}
            assert known == {name for name in names if shard.has(name)}


def test_a_shard_does_not_read_what_cannot_be_of_its_pictures(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "records").mkdir()
    for shard in ("1-of-100", "3-of-50", "7-of-100"):
        (tmp_path / "records" / f"{shard}.jsonl").write_text("no record\n")
    opened(tmp_path, Shard(7, 100))
    assert [message.split("/")[-1].split(":")[0] for message in caplog.messages] == ["7-of-100.jsonl"]


def test_the_end_of_a_long_file_is_found_from_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sdcorrect.output.ledger.BLOCK", 100)
    opened(tmp_path).append(record("a"))
    file = tmp_path / "records" / "0-of-1.jsonl"
    whole = file.read_bytes()
    file.write_bytes(whole + b"x" * 1000)
    opened(tmp_path)
    assert file.read_bytes() == whole
    file.write_bytes(b"x" * 1000)
    opened(tmp_path)
    assert file.read_bytes() == b""
