"""Hundreds of damaged files among good ones: each good one is translated, each bad one says why."""

import io
import json
import os
import random
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result
from drill import Drill
from PIL import Image

EXAMPLES = Path(__file__).parents[2] / "sdcorrect" / "assets" / "pictures"
Run = Callable[..., Result]

FORMATS = {"png": "PNG", "jpg": "JPEG", "webp": "WEBP", "bmp": "BMP", "tif": "TIFF", "gif": "GIF"}
ROWS = zlib.compress(bytes(1 << 26), 9)
PEAK_MIB = 1500  #: of the whole process, of which torch and the model are half


def encoded(name: str, suffix: str) -> bytes:
    stream = io.BytesIO()
    picture = Image.open(EXAMPLES / name).convert("RGB").resize((48, 48))
    picture.save(stream, FORMATS[suffix])
    return stream.getvalue()


def bomb(width: int, height: int) -> bytes:
    """A PNG of a few hundred bytes that declares this size, and rows that go on for 64 MiB."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", ROWS), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )


def damage(folder: Path) -> None:
    chance = random.Random(1)
    names = sorted(path.name for path in EXAMPLES.glob("*.png"))
    for number in range(170):
        suffix = chance.choice(list(FORMATS))
        data = encoded(chance.choice(names), suffix)
        (folder / f"cut-{number:03}.{suffix}").write_bytes(data[: chance.randrange(1, len(data) - 40)])
    for number in range(200):
        suffix = chance.choice(list(FORMATS))
        data = bytearray(encoded(chance.choice(names), suffix))
        for _ in range(chance.randrange(1, 40)):
            data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        (folder / f"flipped-{number:03}.{suffix}").write_bytes(data)
    for number in range(15):
        suffix = chance.choice(list(FORMATS))
        (folder / f"empty-{number:02}.{suffix}").touch()
        (folder / f"text-{number:02}.{suffix}").write_text("no picture at all\n" * number)
        (folder / f"noise-{number:02}.{suffix}").write_bytes(chance.randbytes(500))
    for number, side in enumerate((9_000, 30_000, 60_000, 2**31 - 1)):
        (folder / f"bomb-{number}.png").write_bytes(bomb(side, side))
    Image.new("RGB", (20_000, 20)).save(folder / "thin.png")
    Image.new("RGB", (1, 1), "red").save(folder / "one.png")
    (folder / "wrong.jpg").write_bytes(encoded(names[0], "png"))


def decodes(file: Path) -> bool:
    """What Pillow itself says, told nothing of the file's name."""
    try:
        with Image.open(io.BytesIO(file.read_bytes())) as image:
            if image.width * image.height > 64_000_000 or max(image.size) > 100 * min(image.size):
                return False
            image.load()
    except Exception:
        return False
    return True


@pytest.mark.filterwarnings("ignore:::PIL")  # of damaged metadata
def test_damaged_files_fail_alone(tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    damage(folder)
    names = sorted(path.name for path in EXAMPLES.glob("*.png"))[:20]
    for name in names:
        (folder / name).write_bytes(encoded(name, "png"))
    good = {path.name for path in folder.iterdir() if decodes(path)}
    bad = {path.name for path in folder.iterdir()} - good
    assert len(bad) >= 300 and good >= {*names, "one.png", "wrong.jpg"}

    run = Drill(folder, tmp_path / "out", "--steps", "1", "--batch-size", "8", "--method", "sdedit")
    code, messages = run.finish(), run.messages()
    assert code == 3, messages
    assert "Traceback" not in messages and "Warning" not in messages
    assert run.peak() < 1024 * PEAK_MIB
    lines = (tmp_path / "out" / "records" / "0-of-1.jsonl").read_text().splitlines()
    records = {record["input"]["path"]: record for record in map(json.loads, lines)}
    assert len(records) == len(lines)
    assert {path for path, record in records.items() if record["status"] == "failed"} == bad
    assert {path for path, record in records.items() if record["status"] == "done"} == good
    assert all(records[path]["error"] and "\n" not in records[path]["error"] for path in bad)
    assert all((tmp_path / "out" / records[path]["output"]["path"]).is_file() for path in good)
    assert "more than the 64,000,000 px" in records["bomb-0.png"]["error"]
    assert "stretched" in records["thin.png"]["error"]


def test_filtered_pictures_are_counted_and_are_no_failure(
    translate: Run, pictures: Path, tmp_path: Path
) -> None:
    Image.new("RGB", (40, 400)).save(pictures / "thin.png")
    Image.new("RGB", (30, 30)).save(pictures / "small.png")
    limits = (
        "--set",
        "input.max_aspect=3",
        "--set",
        "input.min_side=40",
        "--set",
        "input.recursive=false",
    )
    result = translate(pictures, "-o", tmp_path / "out", *limits)
    assert result.exit_code == 0, result.stderr
    assert "filtered correct/small.png" in result.stderr
    counts = json.loads((tmp_path / "out" / "job.json").read_text())["counts"]
    assert counts == {"correct": {"done": 2, "failed": 0, "filtered": 2}}


@pytest.mark.parametrize(
    "name",
    ["a b.png", "quote'\".png", "new\nline.png", "\x1b[31m[red].png", "\udcff.png", "x" * 251 + ".jpg"],
)
def test_odd_names_are_translated(sdcorrect: Run, tmp_path: Path, name: str) -> None:
    folder = tmp_path / "odd \udcfe\n"
    folder.mkdir()
    Image.open(EXAMPLES / "ghost.png").convert("RGB").save(folder / name)
    (folder / f"{name[:9]}-bad.png").write_bytes(b"")
    quick = ("-p", "in oil", "--steps", "1", "--strength", "1", "--set", "size=32", "--method", "sdedit")
    result = sdcorrect("translate", folder, "-o", folder / "out", *quick)
    assert result.exit_code == 3, result.stderr
    assert (folder / "out" / "sdedit" / Path(name).with_suffix(".png")).is_file()
    assert "\x1b" not in result.stderr and "the file is empty" in result.stderr
    assert sum("failed:" in line for line in result.stderr.splitlines()) == 1
    assert sdcorrect("translate", folder, "-o", folder / "out", *quick).exit_code == 3


def test_pipes_are_not_waited_for(translate: Run, pictures: Path, tmp_path: Path) -> None:
    assert translate(pictures, "-o", tmp_path / "out").exit_code == 0
    (pictures / "bicycle.png").unlink()
    os.mkfifo(pictures / "bicycle.png")
    again = translate(pictures, "-o", tmp_path / "out")
    assert again.exit_code == 3
    assert "bicycle.png (correct): cannot be read: it is not a file" in again.stderr


def test_captions_that_are_pipes_are_not_waited_for(
    translate: Run, pictures: Path, tmp_path: Path
) -> None:
    os.mkfifo(pictures / "bicycle.txt")
    for picture in ("church", "sub/ghost"):
        (pictures / f"{picture}.txt").write_text("a caption")
    result = translate(pictures, "-o", tmp_path / "out", "-p", "{caption} in oil")
    assert result.exit_code == 3
    assert "its caption bicycle.txt cannot be read: it is not a file" in result.stderr
