"""Ways to spoil an output folder, and what a command may not do with one that is spoiled."""

import json
import os
import resource
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from sdcorrect.output.files import is_plain

SECRET = "nobody outside may read this"
#: What no JSON library writes: by a word that stands for it.
RAW = {"deep": "[" * 200_000 + "]" * 200_000, "digits": "9" * 5_000, "huge": "1e999"}
#: Values that no field, or not every field, takes.
VALUES: list[Any] = [
    *(None, True, -1, 0, 1.5, 10**7, 2**63, 10**30, 1e308, float("nan"), float("inf")),
    *("", "..", "../x", "a/../../x", "a\0b", "\ud800", "\udcff", "[red]x[/]", "\x1b[31mx", "a\nb"),
    *("records", "job.json", "x" * 100_000, "correct/" + "x/" * 3_000 + "a.png", "correct/00.png"),
    *("2026-01-01T00:00:00", "0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59", 1e18),
    *([], {}, [[]], {"a": {}}, [10**6, 10**6], [30_000, 30_000], [640, 320]),
    *(f"<{word}>" for word in RAW),
]
JSON_FILES = ("job.json", "records/0-of-1.json", "records/arrays.json", "records/0-of-1.jsonl")
#: Where a command may be led astray, whether something stands there or not.
PLACES = (
    *JSON_FILES,
    *("records", "records/job.lock", "records/merge.tmp", "records/3-of-2.json", "records/x.jsonl"),
    *("sdedit", "correct", "correct/0000.png", "sdedit/0001.png", "correct/more"),
    *("report", "report.html", "report.tmp", "sheet.png", "sheet.tmp", "report/*", "report/*/*"),
    *("evaluation.csv", "evaluation.json", ".evaluation.csv.tmp", ".evaluation.json.tmp"),
)
THINGS = (
    *("nothing", "fifo", "folder", "loop", "moved", "lost", "device"),
    *("", "secret.png", "secret.txt"),  # links to the secrets
)
Spoil = Callable[[Path, Path], None]  #: an output folder, given the folder of secrets


def value_at(file: str, way: list[int], value: Any) -> Spoil:
    """Put `value` somewhere into a JSON file, or take out what is there."""

    def spoil(out: Path, secrets: Path) -> None:
        place = out / file
        if not _is_as_made(place):
            return
        lines = place.read_text(errors="replace").splitlines() if file.endswith("l") else None
        number = sum(way[:1]) % max(1, len(lines or []))
        try:
            content = json.loads(lines[number] if lines else place.read_text(errors="replace"))
        except (ValueError, RecursionError):
            return
        new = str(secrets / value[1:]) if isinstance(value, str) and value.startswith("@") else value
        changed = _put(content, way, new)
        text = json.dumps(changed)
        for word, raw in RAW.items():
            text = text.replace(f'"<{word}>"', raw)
        if lines:
            lines[number] = text
            text = "\n".join(lines) + "\n"
        place.write_text(text)

    spoil.__qualname__ = f"{file}{way} = {str(value):.40}"
    return spoil


def _is_as_made(file: Path) -> bool:
    return is_plain(file) and file.lstat().st_size < 1 << 20


def _put(content: Any, way: list[int], value: Any, of_input: bool = False) -> Any:
    """`content` with `value` at the end of `way`, which names children by their number."""
    if not way or not isinstance(content, dict | list) or not content:
        # what the job's input is, the job may say: it is outside by its nature
        return content if of_input else value
    keys = list(content) if isinstance(content, dict) else list(range(len(content)))
    key = keys[way[0] % len(keys)]
    if value == "<gone>" and len(way) == 1:
        del content[key]
    else:
        content[key] = _put(content[key], way[1:], value, of_input or key in ("input", "spill"))
    return content


def standing_for(place: str, what: str) -> Spoil:
    """Put something of another kind in the place of a file or folder."""

    def spoil(out: Path, secrets: Path) -> None:
        file = next(iter(sorted(out.glob(place))), None) if "*" in place else out / place
        if file is None or not os.path.realpath(file.parent).startswith(os.path.realpath(out)):
            return
        if file.is_dir() and not file.is_symlink():
            shutil.rmtree(file.with_name(f"{file.name}-moved"), ignore_errors=True)
            file.rename(file.with_name(f"{file.name}-moved"))
        elif os.path.lexists(file):
            file.unlink()
        if not file.parent.is_dir():
            return
        match what:
            case "nothing":
                pass
            case "fifo":
                os.mkfifo(file)
            case "folder":
                (file / "more").mkdir(parents=True)
            case "loop":
                file.symlink_to(file)
            case "moved":
                file.symlink_to(f"{file.name}-moved")
            case "lost":
                file.symlink_to(out / "nowhere" / "at all")
            case "device":
                file.symlink_to("/dev/zero")
            case _:
                file.symlink_to(secrets / what)

    spoil.__qualname__ = f"{place} -> {what}"
    return spoil


def bytes_of(place: str, what: str, share: float) -> Spoil:
    """Cut, grow or scribble over a file."""

    def spoil(out: Path, _secrets: Path) -> None:
        file = out / place
        if not _is_as_made(file):
            return
        content = file.read_bytes()
        at = int(share * len(content))
        match what:
            case "cut":
                file.write_bytes(content[:at])
            case "sparse":
                os.truncate(file, 1 << 34)
            case "twice":
                file.write_bytes(content + content)
            case "noise":
                file.write_bytes(content[:at] + b"\xff\x00\xfe," + content[at + 3 :])
            case "line":
                file.write_bytes(content[:at] + b"\n" + content[at:])
            case "ancient":
                os.utime(file, (-(10**11), -(10**11)))
            case "far":
                os.utime(file, (10**11, 2**33))

    spoil.__qualname__ = f"{place} {what} at {share:.2f}"
    return spoil


def spoiled() -> st.SearchStrategy[list[Spoil]]:
    ways = st.lists(st.integers(0, 40), min_size=1, max_size=5)
    values = st.sampled_from([*VALUES, "<gone>", "@secret.png", "@secret.txt"])
    kinds = ("cut", "sparse", "twice", "noise", "line", "ancient", "far")
    files = st.sampled_from([*JSON_FILES, "evaluation.csv", "correct/0000.png", "report.html"])
    return st.lists(
        st.one_of(
            st.builds(value_at, st.sampled_from(JSON_FILES), ways, values),
            st.builds(value_at, st.sampled_from(JSON_FILES), ways, values),
            st.builds(standing_for, st.sampled_from(PLACES), st.sampled_from(THINGS)),
            st.builds(bytes_of, files, st.sampled_from(kinds), st.floats(0, 1)),
        ),
        min_size=1,
        max_size=3,
    )


@dataclass
class Watch:
    """Notes what of `folder` is opened or listed while it is active; hooks stay, so there is one."""

    folder: str = ""
    touched: list[str] = field(default_factory=list)

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.folder or event not in ("open", "os.listdir", "os.scandir"):
            return
        path = arguments[0]
        if not isinstance(path, str | bytes | os.PathLike):
            return
        path = os.fsdecode(path)
        follows = event != "open" or not (arguments[2] or 0) & os.O_NOFOLLOW
        if not follows and self.touched[-1:] == [path]:
            self.touched.pop()  # `open` tells of itself too, before it calls its opener
        head, name = os.path.split(path)
        real = os.path.realpath(path) if follows else os.path.join(os.path.realpath(head), name)
        if os.path.commonpath((real, self.folder)) == self.folder:
            self.touched.append(path)


WATCH = Watch()
sys.addaudithook(WATCH)


@contextmanager
def watched(secrets: Path, seconds: int, memory: int) -> Iterator[list[str]]:
    """What of `secrets` was read; TimeoutError where it takes longer, MemoryError where more bytes."""

    def ring(*_: object) -> None:
        raise TimeoutError(f"it takes over {seconds} s")

    limits = resource.getrlimit(resource.RLIMIT_AS)
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + memory, limits[1]))
    before = signal.signal(signal.SIGALRM, ring)
    WATCH.folder, WATCH.touched = os.path.realpath(secrets), []
    signal.alarm(seconds)
    try:
        yield WATCH.touched
    finally:
        signal.alarm(0)
        resource.setrlimit(resource.RLIMIT_AS, limits)
        signal.signal(signal.SIGALRM, before)
        WATCH.folder = ""
