"""Measure sdcorrect on a GPU: identical bytes, waits, seconds, memory and idle time.

    python scripts/check_gpu.py OUT [--device cuda] [--seconds 450] [--small] [--only SECTION ...]

Writes OUT/gpu.json after each measurement, and OUT/table.txt at the end or when interrupted. The
sections are independent, the most important first: if one fails, its error is recorded; if one would not
finish in time, it is skipped. The networks are those of SD 1.5 and SDXL with random weights. To try this
script itself, use --small for tiny networks and --device cpu without a GPU.
"""

import argparse
import json
import shutil
import statistics
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from operator import truediv
from pathlib import Path
from typing import Any

import numpy as np
import torch
from benchmark_speed import EXAMPLES, job_of, say
from PIL import Image
from random_networks import Family, random_model
from rich.console import Console
from rich.table import Table
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from sdcorrect.batch.runner import ShardRun
from sdcorrect.core.attention import Maps, QueryKey
from sdcorrect.costs import Stopwatch
from sdcorrect.models import Model, load, quiet_libraries
from sdcorrect.models.machine import DTYPES
from sdcorrect.models.memory import forget_peak, peak_bytes
from sdcorrect.output.shards import Shard
from sdcorrect.recipes import BUILT_IN
from sdcorrect.settings import DType, ModelSettings
from sdcorrect.translate import Request, Translator

Row = dict[str, Any]
MIB = 2**20
#: Section -> its seconds on a large GPU, about, and its function; it is skipped if fewer are left.
SECTIONS: dict[str, tuple[float, Callable[["Check"], Any]]] = {}


def section(name: str, seconds: float) -> Callable[..., Callable[["Check"], Any]]:
    def keep(function: Callable[["Check"], Any]) -> Callable[["Check"], Any]:
        SECTIONS[name] = seconds, function
        return function

    return keep


@dataclass
class Check:
    """One run of this script."""

    out: Path
    device: torch.device
    small: bool
    deadline: float
    found: Row = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)  #: of the table

    @property
    def cuda(self) -> bool:
        return self.device.type == "cuda"

    @property
    def dtype(self) -> DType:
        return "float16" if self.cuda else "float32"

    @property
    def left(self) -> float:
        return self.deadline - time.monotonic()

    def wait(self) -> None:
        if self.cuda:
            torch.cuda.synchronize()

    def run(self, name: str) -> None:
        needed, function = SECTIONS[name]
        if self.left < needed and not self.small:
            self.found[name] = "left out: no time"
            return
        began = time.monotonic()
        try:
            self.found[name] = function(self)
        except KeyboardInterrupt:
            self.found[name] = {"cut off": "no time"} | self.found.get(name, {})
            self.write()
            raise
        except Exception as error:
            place = traceback.extract_tb(error.__traceback__)[-1]
            self.found[name] = {"error": f"{type(error).__name__}: {error} ({place.name})"[:600]}
        say(f"{name:<16} {time.monotonic() - began:6.1f} s  {self.found[name]}"[:150])
        self.write()

    @property
    def failed(self) -> list[str]:
        return [name for name, of in self.found.items() if isinstance(of, dict) and "error" in of]

    def write(self) -> None:
        (self.out / "gpu.json").write_text(json.dumps(self.found | {"rows": self.rows}, indent=1))


def picture(size: int, number: int) -> Image.Image:
    files = sorted(EXAMPLES.glob("*.png"))
    return Image.open(files[number % len(files)]).convert("RGB").resize((size, size))


def translator_of(model: Model, name: str, steps: int = 20) -> Translator:
    recipe = BUILT_IN[name]
    if steps < 20:  # a trial: recipes with steps of their own take these few too
        few = {key: steps for key in ("steps", "inversion_steps") if getattr(recipe, key) is not None}
        recipe = recipe.model_copy(update=few)
    return Translator(model, [recipe], steps=steps, strength=0.95, guidance_scale=7.5)


def translated(translator: Translator, size: int, batch: int) -> tuple[list[bytes | None], int]:
    """The bytes of the pictures, and the U-Net evaluations of each."""
    requests = [
        Request(picture(size, n), n, "a house, in 3d render style", source_prompt="a house, flat")
        for n in range(batch)
    ]
    [(name, _)] = translator.methods.items()
    made = translator(requests, variants=[name])[name]
    return [one.tobytes() if one else None for one in made.pictures], made.evaluations


def seconds_of(check: Check, run: Callable[[], object], repeats: int = 3) -> float:
    """The median after a warm-up run."""
    run()
    taken = []
    for _ in range(repeats):
        check.wait()
        began = time.perf_counter()
        run()
        check.wait()
        taken.append(time.perf_counter() - began)
    return statistics.median(taken)


@section("machine", 0)
def machine(check: Check) -> Row:
    found: Row = {"torch": torch.__version__, "device": str(check.device)}
    if check.cuda:
        about = torch.cuda.get_device_properties(check.device)
        found |= {"card": about.name, "MiB": about.total_memory // MIB, "CUDA": torch.version.cuda}
    side = 8192 if check.cuda else 512
    one = torch.randn(side, side, device=check.device, dtype=DTYPES[check.dtype])
    found["dense TFLOP/s"] = round(2 * side**3 / seconds_of(check, lambda: one @ one) / 1e12, 2)
    return found


@section("bytes", 25)
def same_bytes(check: Check) -> Row:
    """On mini: whether two runs give the same bytes, and how far batches of 1 and 8 are apart."""
    found: Row = {}
    check.found["bytes"] = found  # what is found is kept if this is interrupted
    for dtype in ("float32",) if check.small else ("float32", "float16", "bfloat16"):
        model = load(ModelSettings.model_validate({"device": str(check.device), "dtype": dtype}))
        for name in ("correct", "correct-fast", "pnp-50"):
            translator = translator_of(model, name, 4)
            (once, _), (twice, _), (alone, _) = (translated(translator, 64, n) for n in (8, 8, 1))
            found[f"{name} {dtype}"] = {
                "twice": once == twice,
                "batch 1 as 8": alone[0] == once[0],
                "finite": all(once),
            } | levels_between(alone[0], once[0])
    return found


def levels_between(one: bytes | None, other: bytes | None) -> Row:
    """How far two pictures are apart, in levels of 255."""
    if not one or not other:
        return {}
    apart = np.abs(np.subtract(*(np.frombuffer(each, np.uint8).astype(int) for each in (one, other))))
    return {"largest": int(apart.max()), "mean": round(float(apart.mean()), 4)}


@section("waits", 15)
def waits(check: Check) -> Row | str:
    """Where the host waits for the GPU in a batch, as reported by torch."""
    if not check.cuda:
        return "needs CUDA"
    model, found = load(ModelSettings(device=str(check.device))), {}
    for name in ("correct", "correct-fast", "pnp-50"):
        translator = translator_of(model, name, 10)
        translated(translator, 64, 1)
        torch.cuda.set_sync_debug_mode("warn")
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            translated(translator, 64, 1)
        torch.cuda.set_sync_debug_mode("default")
        told = (w for w in seen if "synchroniz" in str(w.message))
        found[name] = dict(Counter(f"{Path(w.filename).name}:{w.lineno}" for w in told))
    return found


def model_of(check: Check, family: Family, **settings: Any) -> Model:
    dtype = DTYPES[check.dtype]
    return random_model(family, check.device, dtype, small=check.small, **settings)


def flops_of(model: Model, size: int) -> float:
    """The operations of one row of the U-Net."""
    side, unet = size // 8, model.pipe.unet
    latents = torch.randn(1, 4, side, side, device=model.device, dtype=model.dtype)
    text = model.text([""], (size, size))
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        unet(latents, torch.tensor(500, device=model.device), **text.arguments)
    return float(counter.get_total_flops())


#: Corrections that are compared with sdedit.
CORRECTIONS = ("correct", "correct-fast", "correct-wide", "correct-wide-fast")
#: Recipes that are run only once, because they take long.
ONCE = {"pnp-50"}


@dataclass(frozen=True)
class Group:
    """Recipes in batches of one size. They run in turn, so that a ratio is one of neighbouring runs."""

    batch: int
    recipes: tuple[str, ...]
    rounds: int = 3


@dataclass
class Runs:
    """The runs of one recipe in batches of one size."""

    translator: Translator
    row: Row
    whole: list[float] = field(default_factory=list)  #: seconds of each run
    inside: list[float] = field(default_factory=list)  #: of them, in networks

    def warm_up(self, model: Model, size: int) -> None:
        """Kernels are chosen and compiled."""
        translated(translator_of(model, self.row["recipe"], 4), size, self.row["batch"])

    def run(self, model: Model, size: int) -> None:
        forget_peak(model.device)
        watch = Stopwatch(model)
        with watch.watching():
            _, self.row["evaluations"] = translated(self.translator, size, self.row["batch"])
        self.whole.append(watch.whole)
        self.inside.append(watch.seconds)
        if (peak := peak_bytes(model.device)) and model.device.type == "cuda":
            self.row["peak MiB"] = max(self.row.get("peak MiB", 0), peak // MIB)

    def tell(self, flops: float, base: "Runs | None") -> None:
        """Fill the row in with medians."""
        batch, seconds = self.row["batch"], statistics.median(self.whole)
        rate = self.row["evaluations"] * batch / seconds
        self.row |= {
            "runs": len(self.whole),
            "s/picture": round(seconds / batch, 4),
            "s/picture, each run": [round(each / batch, 4) for each in self.whole],
            "evaluations/s": round(rate, 2),
            "TFLOP/s": round(rate * flops / 1e12, 2),
            "in networks": round(statistics.median(map(truediv, self.inside, self.whole)), 3),
            "phases": {k: round(v / len(self.whole), 4) for k, v in self.translator.seconds.items()},
        }
        if base:
            self.row["to sdedit"] = round(statistics.median(map(truediv, self.whole, base.whole)), 3)


def measured(
    check: Check, model: Model, family: Family, how: str, groups: Sequence[Group], busy: bool = False
) -> list[Row]:
    """A table row for each recipe and batch size; with `busy` also how much of `correct` kernels run."""
    size = 64 if check.small else {"sd15": 512, "sdxl": 1024}[family]
    steps, flops, rows = 4 if check.small else 20, flops_of(model, size), list[Row]()
    for group in groups:
        all_runs = []
        for name in group.recipes:
            rows.append({"family": family, "how": how, "recipe": name, "batch": group.batch})
            check.rows.append(rows[-1])
            all_runs.append(Runs(translator_of(model, name, steps), rows[-1]))
        in_turn(check, model, all_runs, size, 1 if check.small else group.rounds)
        done = {runs.row["recipe"]: runs for runs in all_runs if runs.whole}
        for runs in done.values():
            runs.tell(flops, done.get("sdedit"))
        if busy and check.cuda and "correct" in done and check.left > 20:
            of = done["correct"]
            seconds = busy_seconds(check, partial(translated, of.translator, size, group.batch))
            of.row["kernels run"] = round(seconds / statistics.median(of.whole), 3)
        check.write()
    return rows


def in_turn(check: Check, model: Model, all_runs: Sequence[Runs], size: int, rounds: int) -> None:
    """Run all recipes once in each round; a round that would not finish in time is left out."""
    took = 0.0
    for number in range(-1, rounds):  # the first to warm up
        began = time.monotonic()
        for runs in all_runs:
            name = runs.row["recipe"]
            if "left out" in runs.row or (number > 0 and name in ONCE):
                continue
            if not check.small and check.left < max(20, took):
                if not runs.whole:
                    runs.row["left out"] = "no time"
                continue
            try:
                runs.run(model, size) if number >= 0 else runs.warm_up(model, size)
            except torch.OutOfMemoryError:
                runs.row["left out"] = "out of memory"
        took = time.monotonic() - began


def busy_seconds(check: Check, run: Callable[[], object]) -> float:
    """The seconds during which a kernel or a copy runs.

    To be compared with the wall time of another run, because the profiler slows the host down.
    """
    check.wait()
    with profile(activities=[ProfilerActivity.CUDA], acc_events=True) as seen:
        run()
        check.wait()
    busy = end = 0.0
    for first, last in sorted(spans(seen)):
        busy += max(0.0, last - max(first, end))
        end = max(end, last)
    return busy / 1e6


def spans(seen: Any) -> Iterator[tuple[float, float]]:
    for event in seen.events():
        if event.device_type.name == "CUDA":
            yield event.time_range.start, event.time_range.end


FEW = ("sdedit", "correct", "correct-fast")
ALL = ("sdedit", *CORRECTIONS)


def batches(check: Check, *sizes: int) -> tuple[int, ...]:
    return tuple(min(size, 2) for size in sizes[:2]) if check.small else sizes


@section("sd15", 60)
def sd15(check: Check) -> list[Row]:
    one, *more = batches(check, 1, 4, 16)
    groups = [Group(one, (*ALL, "pnp-50")), *(Group(batch, ALL) for batch in more)]
    return measured(check, model_of(check, "sd15"), "sd15", "eager", groups, busy=True)


@section("folder", 30)
def folder(check: Check) -> Row:
    """A folder in the runner: pictures per second, and the shares of wall time in networks and kernels.

    Seconds are taken without the profiler; kernels are counted in a second run of fewer pictures.
    """
    model, pictures = model_of(check, "sd15"), 4 if check.small else 256 if check.left > 90 else 64
    size, batch = (64, 2) if check.small else (512, 16)
    with tempfile.TemporaryDirectory() as place:
        run = partial(run_folder, model, Path(place), size, batch)
        run(batch)  # warm up
        watch = Stopwatch(model)
        with watch.watching():
            run(pictures)
        found = {
            "pictures": pictures,
            "pictures/s": round(pictures / watch.whole, 3),
            "in networks": round(watch.seconds / watch.whole, 3),
        }
        if check.cuda:
            few = min(pictures, 4 * batch)
            a_picture = busy_seconds(check, partial(run, few)) / few
            found["kernels run"] = round(a_picture * pictures / watch.whole, 3)
    return found


def run_folder(model: Model, place: Path, size: int, batch: int, pictures: int) -> None:
    """Translate a new folder of so many pictures by correct-fast."""
    source, out = (Path(tempfile.mkdtemp(dir=place)) for _ in range(2))
    different = len(list(EXAMPLES.glob("*.png")))
    for n in range(pictures):
        file = source / f"{n:03}.png"
        if n < different:
            picture(size, n).save(file)
        else:
            shutil.copy(source / f"{n % different:03}.png", file)
    settings = {"input.path": str(source), "output.path": str(out), "variants": ["correct-fast"]}
    for _ in ShardRun(job_of(**settings, size=size, batch_size=batch), model, Shard(0, 1)).records():
        pass


@section("sdxl", 90)
def sdxl(check: Check) -> list[Row]:
    one, four = batches(check, 1, 4)
    groups = [Group(one, (*ALL, "pnp-50")), Group(four, ALL, rounds=1)]
    return measured(check, model_of(check, "sdxl"), "sdxl", "eager", groups, busy=True)


@section("attention", 10)
def kept_attention(check: Check) -> Row:
    """A layer with `A_k` and with the source's Q and K: milliseconds, and MiB that are kept."""
    found: Row = {}
    for tokens, heads, width in ((256, 8, 160), (1024, 20, 64), (4096, 8, 40)):
        if check.small and tokens > 1024:
            continue
        query, key, *values = torch.randn(
            4, 1, heads, tokens, width, device=check.device, dtype=DTYPES[check.dtype]
        )
        by_query = QueryKey(query, key, width**-0.5)
        by_maps, v = Maps(by_query.probabilities), torch.stack(values)
        found[f"{tokens} tokens, {heads} heads of {width}"] = {
            type(way).__name__: {
                "ms": round(seconds_of(check, partial(way.attend, v)) * 1e3, 3),
                "MiB": round(sum(kept.nbytes for kept in way.tensors) / MIB, 1),
            }
            for way in (by_maps, by_query)
        }
    return found


@section("contiguous", 20)
def contiguous(check: Check) -> list[Row]:
    """The same without channels_last, to show its effect."""
    model = model_of(check, "sd15", channels_last=False)
    return measured(check, model, "sd15", "contiguous", [Group(1, FEW)])


@section("skips_once", 20)
def skips_once(check: Check) -> list[Row]:
    """The same with constant skips convolved once, which `auto` does on the CPU only."""
    model = model_of(check, "sd15", skips_once=True)
    groups = [Group(batch, FEW) for batch in batches(check, 1, 16)]
    return measured(check, model, "sd15", "skips once", groups)


@section("compiled", 60)
def compiled(check: Check) -> Row | str:
    """The last, because it is not known how long compilation takes; what is measured by then is kept."""
    if check.small and not check.cuda:
        return "left out: minutes on a CPU"
    began = time.monotonic()
    model = model_of(check, "sd15", compile=True)
    translated(translator_of(model, "correct", 4), 64 if check.small else 512, 1)
    found: Row = {"cold s": round(time.monotonic() - began, 1)}
    check.found["compiled"] = found
    check.write()
    found["rows"] = measured(
        check, model, "sd15", "compiled", [Group(batch, FEW) for batch in batches(check, 1, 4)]
    )
    from torch._dynamo.utils import counters

    graphs = {kind: dict(counters[kind]) for kind in ("stats", "graph_break", "unimplemented")}
    return found | {"dynamo": graphs}


COLUMNS = ("family", "how", "recipe", "batch", "s/picture", "to sdedit", "evaluations/s", "TFLOP/s")
MORE = ("runs", "in networks", "kernels run", "peak MiB", "left out")


def table_of(rows: Sequence[Row]) -> Table:
    table = Table(*COLUMNS, *MORE)
    for row in rows:
        table.add_row(*(str(row.get(column, "")) for column in (*COLUMNS, *MORE)))
    return table


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--seconds", type=float, default=450, help="skip sections beyond this")
    parser.add_argument("--small", action="store_true", help="use tiny networks, to try this script")
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    arguments = parser.parse_args()
    quiet_libraries()
    arguments.out.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + arguments.seconds
    check = Check(arguments.out, torch.device(arguments.device), arguments.small, deadline)
    with suppress(KeyboardInterrupt):
        for name in arguments.only:
            check.run(name)
    table = table_of(check.rows)
    with (check.out / "table.txt").open("w") as file:
        Console(file=file, width=180).print(table)
    Console(width=180).print(table)
    for name in check.failed:
        say(f"{name}: {check.found[name]['error']}")
    return 1 if check.failed else 0


if __name__ == "__main__":
    sys.exit(main())
