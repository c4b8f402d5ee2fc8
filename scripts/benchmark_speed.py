"""Measure the cost of the correction on the embedded model and at the size of Stable Diffusion 1.5.

    python scripts/benchmark_speed.py [--json FILE] [--rounds N] [--skip-sd15]

Reports the ratios of wall time at 20 steps and strength 0.95, the share of wall time inside the networks
for a folder of 64 pictures in the real runner, the ratio of diffusers' img2img pipeline to sdedit there,
and the ratios of wall time on a random U-Net of SD 1.5's size at 256 px. There pnp-50 stands in for pnp:
the time of pnp is computed from the number of its U-Net calls of each kind and the cost of each.
"""

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from diffusers import StableDiffusionImg2ImgPipeline
from PIL import Image
from random_networks import sd15_sized

from sdcorrect.batch.runner import ShardRun
from sdcorrect.config import Job, load_job
from sdcorrect.core.branches import CAPTURED, Branches
from sdcorrect.core.inject import inject
from sdcorrect.core.plan import Injection, in_window
from sdcorrect.core.reuse import convolving_once, reading_text_once
from sdcorrect.core.sampler import evaluate_unet, invert_one_step
from sdcorrect.core.text import Text
from sdcorrect.costs import Stopwatch, compare
from sdcorrect.models import Model, load, quiet_libraries
from sdcorrect.output.shards import Shard
from sdcorrect.recipes import BUILT_IN
from sdcorrect.settings import ModelSettings
from sdcorrect.translate import Translator
from sdcorrect.translate.method import Method

EXAMPLES = Path(__file__).parents[1] / "sdcorrect" / "assets" / "pictures"
STEPS, STRENGTH = 20, 0.95
#: Pairs of a slower and a faster recipe.
RATIOS = [
    ("correct", "sdedit"),
    *((pnp, fast) for pnp in ("pnp", "pnp-50") for fast in ("correct", "correct-fast")),
]
Figures = dict[str, float]  #: by recipe


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def job_of(**settings: Any) -> Job:
    fixed = {
        "input.path": str(EXAMPLES),
        "output.path": ".",
        "prompt": "in 3d render style",
        "steps": STEPS,
        "strength": STRENGTH,
    }
    return load_job(None, {**fixed, **settings})


def tell(where: str, how: str, seconds: Mapping[str, float]) -> None:
    """The ratios that the paper claims, for the recipes that were measured."""
    for slow, fast in RATIOS:
        if slow in seconds and fast in seconds:
            say(f"{where:<7} {slow} : {fast} = {seconds[slow] / seconds[fast]:.3f}  {how}")


def measured(
    where: str, model: Model, size: int, recipes: Sequence[str], rounds: int, *, warm_up: bool = True
) -> Figures:
    """The wall time of each recipe in complete runs, as a ratio to sdedit's."""
    picture = Image.open(EXAMPLES / "bicycle.png").convert("RGB").resize((size, size))
    job = job_of(variants=list(recipes))
    costs = compare(model, job, [picture], repeats=rounds, base="sdedit", warm_up=warm_up)
    for cost in costs:
        say(
            f"{where:<7} {cost.recipe:<14} {cost.seconds:8.3f} s  {cost.evaluations:4d} evaluations  "
            f"{cost.ratio:7.3f} of sdedit ({cost.ratio_low:.3f} to {cost.ratio_high:.3f})"
        )
    # ratios to the base's runs beside each run hold even if the machine's speed changes
    tell(where, "measured", {cost.recipe: cost.ratio for cost in costs})
    return {cost.recipe: cost.ratio for cost in costs}


def through_the_runner(pictures: int = 64) -> float:
    """The share of wall time inside the networks, from the folder to the records."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "in")
        source.mkdir()
        examples = sorted(EXAMPLES.glob("*.png"))
        for i in range(pictures):
            shutil.copy(examples[i % len(examples)], source / f"{i:02}.png")
        model = load(ModelSettings(device="cpu"))
        job = job_of(**{"input.path": str(source), "output.path": f"{folder}/out", "batch_size": 8})
        watch = Stopwatch(model)
        with watch.watching():
            for _ in ShardRun(job, model, Shard(0, 1)).records():
                pass
    share = watch.seconds / watch.whole
    say(f"runner  {pictures} pictures in {watch.whole:.1f} s, {share:.1%} of it inside the networks")
    return share


def against_diffusers(model: Model, rounds: int, pictures: int = 8) -> Figures:
    """Seconds of diffusers' img2img pipeline as a ratio to sdedit in the runner, files included.

    By wall time, and by CPU time, which does not count other programs.
    """
    parts = {**model.pipe.components, "scheduler": model.scheduler}
    pipe = StableDiffusionImg2ImgPipeline(**parts, requires_safety_checker=False)
    pipe.set_progress_bar_config(disable=True)
    size = model.native_size
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "in")
        source.mkdir()
        examples = sorted(EXAMPLES.glob("*.png"))
        for i in range(pictures):
            example = Image.open(examples[i % len(examples)]).convert("RGB").resize((size, size))
            example.save(source / f"{i:02}.png")

        def theirs() -> None:
            for file in sorted(source.iterdir()):
                made = pipe(
                    "in 3d render style",
                    image=Image.open(file).convert("RGB"),
                    strength=STRENGTH,
                    num_inference_steps=STEPS,
                    guidance_scale=7.5,
                    generator=torch.Generator().manual_seed(0),
                )
                made.images[0].save(Path(folder, file.name))

        def ours(turn: int) -> None:
            settings = {"input.path": str(source), "output.path": f"{folder}/{turn}"}
            job = job_of(**settings, variants=["sdedit"], batch_size=1)
            for _ in ShardRun(job, model, Shard(0, 1)).records():
                pass

        ours(0)
        theirs()
        ratios: dict[str, list[float]] = {"wall": [], "cpu": []}
        for turn in range(1, rounds + 1):
            began = _clocks()
            theirs()
            between = _clocks()
            ours(turn)
            for of, first, middle, last in zip(ratios, began, between, _clocks(), strict=True):
                ratios[of].append((middle - first) / (last - middle))
    figures = {of: median(found) for of, found in ratios.items()}
    for of, ratio in figures.items():
        say(f"script  diffusers' img2img : sdedit through the runner = {ratio:.3f}  {of} time")
    return figures


def _clocks() -> tuple[float, float]:
    """Wall and CPU time."""
    return time.perf_counter(), time.process_time()


@dataclass(frozen=True)
class Call:
    """A U-Net call: its number of rows, and the tensors that are put back in them."""

    branches: Branches
    injections: tuple[Injection, ...] = ()

    def __str__(self) -> str:
        tensors = ", ".join(injection.tensor for injection in self.injections)
        rows = len(self.branches.donors)
        return f"{rows} row{'s' * (rows > 1)}" + (f" with {tensors}" if tensors else "")


def calls_of(method: Method, model: Model) -> Counter[Call]:
    """The U-Net calls that a picture takes, without a one-step inversion."""
    plan, (_, timesteps) = method.plan, method.solver(model.scheduler)
    taken = timesteps.tolist()
    calls = Counter({Call(Branches.of("captured", guided=False)): plan.inversion_steps or 0})
    for step in range(len(taken)):
        guided = in_window(step, len(taken), plan.guidance_window)
        injections = tuple(i for i in plan.injections if i.active(step, taken))
        calls[Call(Branches.of(plan.beside, guided=guided), injections)] += 1
    return +calls


@torch.inference_mode()
def from_calls(model: Model, size: int, recipes: Sequence[str], rounds: int) -> Figures:
    """The seconds per picture of each recipe: its calls of each kind times their cost."""
    unet, text = model.pipe.unet, model.text([""], (size, size))
    methods = {
        name: Translator(
            model, [BUILT_IN[name]], steps=STEPS, strength=STRENGTH, guidance_scale=7.5
        ).methods[name]
        for name in recipes
    }
    calls = {name: calls_of(method, model) for name, method in methods.items()}
    x0 = torch.randn(1, 4, size // 8, size // 8)
    correction = methods["correct"].plan
    captured = invert_one_step(unet, x0, text, correction)

    @contextmanager
    def at_later_steps(call: Call) -> Iterator[Callable[[], object]]:
        """A call after the first, which computes what the others take over."""
        rows = len(call.branches.donors)
        known = captured if call.branches.donors[0] == CAPTURED else None
        once = known if correction.skips_once else None
        texts = Text.cat([text] * rows)
        evaluated = partial(evaluate_unet, unet, [x0] * rows, torch.tensor(500), texts)
        with (
            inject(unet, call.injections, captured=known, branches=call.branches),
            reading_text_once(unet),
            convolving_once(unet, call.injections, once) if once else nullcontext(),
        ):
            evaluated()
            yield evaluated

    inverted = partial(invert_one_step, unet, x0, text, correction)
    kinds: dict[str, Callable[[], AbstractContextManager[Callable[[], object]]]] = {
        "one-step inversion": lambda: nullcontext(inverted)
    }
    kinds |= {str(call): partial(at_later_steps, call) for of in calls.values() for call in of}
    taken: dict[str, list[float]] = {kind: [] for kind in kinds}
    for _ in range(rounds):
        for kind, ready in kinds.items():
            with ready() as run:
                began = time.perf_counter()
                run()
                taken[kind].append(time.perf_counter() - began)
    # the minimum, because other work on the machine can only add time
    cost = {kind: min(times) for kind, times in taken.items()}
    for kind, seconds in cost.items():
        say(f"calls   a call of {kind:<38} {seconds:7.3f} s")
    figures = {}
    for name, method in methods.items():
        terms = Counter({str(call): count for call, count in calls[name].items()})
        if method.plan.inversion == "one-step":
            terms["one-step inversion"] = 1
        figures[name] = sum(count * cost[kind] for kind, count in terms.items())
        arithmetic = " + ".join(f"{count} x {kind}" for kind, count in terms.items())
        say(f"calls   {name:<14} {figures[name]:8.1f} s = {arithmetic}")
    tell("calls", "from its calls", figures)
    return figures


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--rounds", type=int, default=3, help="rounds on mini (default 3)")
    parser.add_argument("--skip-sd15", action="store_true", help="skip the minutes at SD 1.5's size")
    arguments = parser.parse_args()
    quiet_libraries()
    mini = load(ModelSettings(device="cpu"))
    recipes = ("sdedit", "correct", "correct-fast", "pnp")
    figures: dict[str, Any] = {
        "mini": measured("mini", mini, mini.native_size, recipes, arguments.rounds),
        "inside": through_the_runner(),
        "diffusers": against_diffusers(mini, arguments.rounds),
    }
    if not arguments.skip_sd15:
        model, size = sd15_sized(), 256
        figures["sd15_calls"] = from_calls(model, size, (*recipes, "pnp-50"), rounds=5)
        figures["sd15"] = measured(
            "sd15", model, size, (*recipes[:-1], "pnp-50"), rounds=1, warm_up=False
        )
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
