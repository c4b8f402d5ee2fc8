"""Measure sdcorrect on a GPU: identical bytes, waits, seconds, memory and idle time.

    python scripts/check_gpu.py OUT [--device cuda] [--seconds 470] [--small] [--only SECTION ...]

Writes OUT/gpu.json and OUT/table.txt. The sections are independent: if one fails, its error is recorded;
if one would not finish in time, it is skipped. The networks are those of SD 1.5 and SDXL with random
weights. To try this script itself, use --small for tiny networks and --device cpu without a GPU.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from benchmark_speed import EXAMPLES, job_of
from diffusers import (
    AutoencoderKL,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from PIL import Image
from rich.console import Console
from rich.table import Table
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from sdcorrect.batch.runner import ShardRun
from sdcorrect.core.attention import Maps, QueryKey
from sdcorrect.costs import Stopwatch
from sdcorrect.models import Model, load, quiet_libraries
from sdcorrect.models.machine import DTYPES, place_on_device
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


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


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
    """On mini: whether two runs give the same bytes, and a picture in batches of 1 and 8 too."""
    found: Row = {}
    for dtype in ("float32", "bfloat16") if check.small else ("float32", "float16", "bfloat16"):
        model = load(ModelSettings.model_validate({"device": str(check.device), "dtype": dtype}))
        for name in ("correct", "correct-fast", "pnp-50"):
            translator = translator_of(model, name, 4)
            (once, _), (twice, _), (alone, _) = (translated(translator, 64, n) for n in (8, 8, 1))
            found[f"{name} {dtype}"] = {
                "twice": once == twice,
                "batch 1 as 8": alone[0] == once[0],
                "finite": all(once),
            }
    return found


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


@section("attention", 20)
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


def random_model(check: Check, family: str, **settings: Any) -> Model:
    """Networks of the family's size with random weights, placed on the device as in a job."""
    mini, xl, small = load(ModelSettings(device="cpu")), family == "sdxl", check.small
    tokenizer = mini.pipe.tokenizer
    tokenizer.model_max_length = 77
    widths = (16, 32, 32, 32) if small else (320, 640, 1280, 1280)
    unet: Row = {
        "sample_size": 8 if small else 128 if xl else 64,
        "block_out_channels": widths[:3] if xl else widths,
        "cross_attention_dim": (80 if xl else 32) if small else (2048 if xl else 768),
        "attention_head_dim": ((2, 4, 4) if small else (5, 10, 20)) if xl else 4 if small else 8,
        "norm_num_groups": 8 if small else 32,
    }
    if xl:
        unet |= {
            "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            "transformer_layers_per_block": (1, 2, 3 if small else 10),
            "use_linear_projection": True,
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": 8 if small else 256,
            "projection_class_embeddings_input_dim": 96 if small else 2816,
        }
    dtype = DTYPES[check.dtype]

    def text(width: int, kind: Any = CLIPTextModel) -> Any:
        config = CLIPTextConfig(
            hidden_size=width,
            intermediate_size=2 * width,
            num_hidden_layers=2 if small else 12,
            projection_dim=width,
            num_attention_heads=4 if small else width // 64,
            vocab_size=49408,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
        return kind(config).to(dtype).eval()

    torch.manual_seed(0)
    with torch.device(check.device):
        parts: Row = {
            "unet": UNet2DConditionModel(**unet).to(dtype).eval(),
            "vae": AutoencoderKL(
                block_out_channels=(8, 8, 16, 16) if small else (128, 256, 512, 512),
                layers_per_block=2,
                norm_num_groups=4 if small else 32,
                down_block_types=("DownEncoderBlock2D",) * 4,
                up_block_types=("UpDecoderBlock2D",) * 4,
                force_upcast=xl,
            )
            .to(dtype)
            .eval(),
        }
    parts |= {
        "scheduler": mini.scheduler,
        "tokenizer": tokenizer,
        "text_encoder": text(32 if small else 768),
    }
    if xl:
        second = text(48 if small else 1280, CLIPTextModelWithProjection)
        parts |= {"tokenizer_2": tokenizer, "text_encoder_2": second}
        pipe = StableDiffusionXLPipeline(**parts, add_watermarker=False)
    else:
        parts |= {"safety_checker": None, "feature_extractor": None}
        pipe = StableDiffusionPipeline(**parts, requires_safety_checker=False)
    place_on_device(pipe, None, ModelSettings(**settings), check.device)
    return Model(family, "random", {}, pipe, mini.scheduler, check.device)


def flops_of(model: Model, size: int) -> float:
    """The operations of one row of the U-Net."""
    side, unet = size // 8, model.pipe.unet
    latents = torch.randn(1, 4, side, side, device=model.device, dtype=model.dtype)
    text = model.text([""], (size, size))
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        unet(latents, torch.tensor(500, device=model.device), **text.arguments)
    return float(counter.get_total_flops())


@dataclass(frozen=True)
class Case:
    recipe: str
    batch: int
    repeats: int = 1
    idle: bool = False  #: whether to measure kernel time too


def measured(check: Check, model: Model, family: str, how: str, cases: Sequence[Case]) -> list[Row]:
    """A table row for each case, with the ratio of its seconds to sdedit's in the same batch."""
    size = 64 if check.small else {"sd15": 512, "sdxl": 1024}[family]
    steps, flops, rows = 4 if check.small else 20, flops_of(model, size), list[Row]()
    for case in cases:
        row: Row = {"family": family, "how": how, "recipe": case.recipe, "batch": case.batch}
        rows.append(row)
        check.rows.append(row)
        if check.left < 20 and not check.small:
            row["left out"] = "no time"
            continue
        try:
            row |= cost_of(check, model, case, size, steps, flops)
        except torch.OutOfMemoryError:
            row["left out"] = "out of memory"
        base = next((r.get("s/picture") for r in rows if is_base(r, case.batch)), None)
        if base and "s/picture" in row:
            row["to sdedit"] = round(row["s/picture"] / base, 3)
    return rows


def is_base(row: Row, batch: int) -> bool:
    return row["recipe"] == "sdedit" and row["batch"] == batch


def cost_of(check: Check, model: Model, case: Case, size: int, steps: int, flops: float) -> Row:
    translator = translator_of(model, case.recipe, steps)
    # warm up: kernels are chosen and compiled
    translated(translator_of(model, case.recipe, 4), size, case.batch)
    if check.cuda:
        torch.cuda.reset_peak_memory_stats()
    watches, evaluations = list[Stopwatch](), 0
    for _ in range(case.repeats):
        watch = Stopwatch(model)
        with watch.watching():
            _, evaluations = translated(translator, size, case.batch)
        watches.append(watch)
    watch = sorted(watches, key=lambda each: each.whole)[len(watches) // 2]
    rate = evaluations * case.batch / watch.whole
    row: Row = {
        "s/picture": round(watch.whole / case.batch, 4),
        "evaluations/s": round(rate, 2),
        "TFLOP/s": round(rate * flops / 1e12, 2),
        "in networks": round(watch.seconds / watch.whole, 3),
        "phases": {name: round(seconds, 4) for name, seconds in translator.seconds.items()},
    }
    if check.cuda:
        row["peak MiB"] = torch.cuda.max_memory_allocated() // MIB
        if case.idle:
            row["kernels run"] = busy_share(check, lambda: translated(translator, size, case.batch))
    return row


def busy_share(check: Check, run: Callable[[], object]) -> float:
    """The share of wall time during which a kernel or a copy runs."""
    check.wait()
    with profile(activities=[ProfilerActivity.CUDA], acc_events=True) as seen:
        began = time.perf_counter()
        run()
        check.wait()
        wall = time.perf_counter() - began
    busy = end = 0.0
    for first, last in sorted(spans(seen)):
        busy += max(0.0, last - max(first, end))
        end = max(end, last)
    return round(busy / 1e6 / wall, 3)


def spans(seen: Any) -> Iterator[tuple[float, float]]:
    for event in seen.events():
        if event.device_type.name == "CUDA":
            yield event.time_range.start, event.time_range.end


FEW = [Case("sdedit", 1, 2), Case("correct", 1, 2), Case("correct-fast", 1, 2)]


@section("sd15", 90)
def sd15(check: Check) -> list[Row]:
    batches = [
        Case(name, batch, idle=name == "correct")
        for batch in (4, 16)
        for name in ("sdedit", "correct", "correct-fast")
    ]
    others = [Case("correct-wide", 1), Case("correct-wide-fast", 1), Case("pnp-50", 1)]
    return measured(check, random_model(check, "sd15"), "sd15", "eager", [*FEW, *others, *batches])


@section("folder", 50)
def folder(check: Check) -> Row:
    """A folder in the runner: the share of wall time during which kernels run, and networks."""
    model, pictures = random_model(check, "sd15"), 4 if check.small else 64
    with tempfile.TemporaryDirectory() as place:
        source = Path(place, "in")
        source.mkdir()
        for n in range(pictures):
            picture(64 if check.small else 512, n).save(source / f"{n:03}.png")
        settings = {
            "input.path": str(source),
            "output.path": f"{place}/out",
            "variants": ["correct-fast"],
        }
        job = job_of(**settings, size=64 if check.small else 512, batch_size=2 if check.small else 16)

        def run() -> None:
            for _ in ShardRun(job, model, Shard(0, 1)).records():
                pass

        watch = Stopwatch(model)
        with watch.watching():
            busy = busy_share(check, run) if check.cuda else None
            if not check.cuda:
                run()
    return {
        "pictures": pictures,
        "pictures/s": round(pictures / watch.whole, 3),
        "kernels run": busy,
        "in networks": round(watch.seconds / watch.whole, 3),
    }


@section("sdxl", 110)
def sdxl(check: Check) -> list[Row]:
    cases = [*FEW, Case("sdedit", 4), Case("correct", 4), Case("correct-fast", 4), Case("pnp-50", 1)]
    return measured(check, random_model(check, "sdxl"), "sdxl", "eager", cases)


@section("contiguous", 30)
def contiguous(check: Check) -> list[Row]:
    """The same without channels_last, to show its effect."""
    return measured(check, random_model(check, "sd15", channels_last=False), "sd15", "contiguous", FEW)


@section("compiled", 90)
def compiled(check: Check) -> Row | str:
    if check.small and not check.cuda:
        return "left out: minutes on a CPU"
    began = time.monotonic()
    model = random_model(check, "sd15", compile=True)
    translated(translator_of(model, "correct", 4), 64 if check.small else 512, 1)
    cold = time.monotonic() - began
    rows = measured(check, model, "sd15", "compiled", [*FEW, Case("sdedit", 4), Case("correct", 4)])
    from torch._dynamo.utils import counters

    graphs = {kind: dict(counters[kind]) for kind in ("stats", "graph_break", "unimplemented")}
    return {"cold s": round(cold, 1), "rows": rows, "dynamo": graphs}


COLUMNS = ("family", "how", "recipe", "batch", "s/picture", "to sdedit", "evaluations/s", "TFLOP/s")
MORE = ("in networks", "kernels run", "peak MiB", "left out")


def table_of(rows: Sequence[Row]) -> Table:
    table = Table(*COLUMNS, *MORE)
    for row in rows:
        table.add_row(*(str(row.get(column, "")) for column in (*COLUMNS, *MORE)))
    return table


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--seconds", type=float, default=470, help="skip sections beyond this")
    parser.add_argument("--small", action="store_true", help="use tiny networks, to try this script")
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    arguments = parser.parse_args()
    quiet_libraries()
    arguments.out.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + arguments.seconds
    check = Check(arguments.out, torch.device(arguments.device), arguments.small, deadline)
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
