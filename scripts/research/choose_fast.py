"""Choose the recipe correct-fast: the fastest that stays near correct on a folder of pictures.

    python scripts/research/choose_fast.py PICTURES -p "in 3d render style" [--reference TRUTH] [-o OUT]

Translates the pictures by `correct` and by every candidate at each strength, from each seed, measures
them as `sdcorrect evaluate` does, and tells how far the means are from those of `correct`: in bands, of
0.01 for SSIM and of 1 % of its value for every other metric, with the 95 % interval of that. A candidate
is inside where at no strength a mean is worse by more than one band, or surely (by its whole interval)
better by more. Of those that are inside, or of the nearest, the wall time is then measured beside that
of `correct` and `pnp`. It goes on where it stopped.
"""

import argparse
import json
import logging
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from itertools import groupby, product
from pathlib import Path
from typing import Any

from PIL import Image
from rich.console import Console
from rich.table import Table

from sdcorrect.batch.runner import ShardRun
from sdcorrect.config import Job, load_job
from sdcorrect.core.plan import ALWAYS, Window, in_window
from sdcorrect.costs import compare
from sdcorrect.evaluate.evaluator import Evaluator, Request
from sdcorrect.evaluate.results import Comparison
from sdcorrect.inputs.items import find_items
from sdcorrect.models import Model, load, quiet_libraries
from sdcorrect.output.shards import Shard
from sdcorrect.recipes import BUILT_IN, Recipe

BASE = "correct"
SSIM_BAND, SHARE = 0.01, 0.01
console = Console(width=140)


@dataclass(frozen=True)
class Distance:
    """By how much a metric of a candidate is worse than that of `correct`, at one strength."""

    strength: float
    metric: str
    bands: float  #: how many bands it is worse, below 0 where it is better
    low: float  #: of the interval of that
    high: float
    base: float
    value: float

    @property
    def off(self) -> float:
        """How many bands it is worse, or surely better: inside up to 1."""
        return max(self.bands, -self.high)

    def __str__(self) -> str:
        return (
            f"{self.metric} at {self.strength:g}: {self.value:.4f}, {BASE} has {self.base:.4f} "
            f"({self.low:+.1f} to {self.high:+.1f} bands worse)"
        )


def window(text: str) -> Window:
    """`0.2-1` or, from the first step on, `1`."""
    first, _, last = text.rpartition("-")
    return float(first or 0), float(last)


def candidates(arguments: argparse.Namespace) -> Iterator[Recipe]:
    """Solvers in so many steps, guided in a part of them, deep features kept between them or not."""
    for solver, steps, guided, every in product(
        arguments.solvers, arguments.steps, arguments.guided, arguments.reuse
    ):
        part = "-".join(f"{end:g}" for end in guided if end)
        name = f"{solver.replace('+', 'p')}-{steps}-guided-{part}" + (f"-reuse-{every}" if every else "")
        yield BUILT_IN[BASE].model_copy(
            update={
                "name": name,
                "scheduler": solver,
                "solver_steps": steps,
                "guidance_window": guided,
                "reuse_every": every or None,
            }
        )


def job_of(arguments: argparse.Namespace, recipes: list[Recipe], strength: float, seed: int) -> Job:
    return load_job(
        None,
        {
            "input.path": str(arguments.pictures),
            "output.path": str(arguments.output / f"{strength:g}-seed-{seed}"),
            "prompt": arguments.prompt,
            "model": arguments.model,
            "strength": strength,
            "seed": seed,
            "limit": arguments.limit,
            "batch_size": arguments.batch_size,
            "variants": [recipe.model_dump(mode="json") for recipe in recipes],
        },
    )


def distances(jobs: list[Job], arguments: argparse.Namespace) -> dict[str, list[Distance]]:
    """For each candidate and metric, over the pictures of `jobs`, which differ in their seed alone."""
    runs = [
        Evaluator(
            Request(job.output.path, base=BASE, reference=arguments.reference, metrics=arguments.metrics)
        )
        for job in jobs
    ]
    rows = [
        replace(row, path=f"{job.seed}/{row.path}")
        for job, run in zip(jobs, runs, strict=True)
        for batch in run.rows()
        for row in batch
    ]
    evaluation = runs[0].evaluation(rows)
    means = evaluation.variants[BASE].metrics
    found: dict[str, list[Distance]] = {}
    for name, result in evaluation.variants.items():
        if name != BASE:
            of_metrics = (
                distance(
                    jobs[0].strengths[0],
                    metric,
                    means[metric].mean,
                    against,
                    evaluation.metrics[metric].better,
                )
                for metric, against in result.against_base.items()
            )
            found[name] = list(filter(None, of_metrics))
    return found


def distance(
    strength: float, metric: str, base: float | None, found: Comparison, better: str
) -> Distance | None:
    """None where fewer than two pictures have a value under both."""
    if base is None or found.difference is None or found.low is None or found.high is None:
        return None
    # how much worse is a band
    worse = band_of(metric, base) * (-1 if better == "higher" else 1)
    low, high = sorted((found.low / worse, found.high / worse))
    return Distance(strength, metric, found.difference / worse, low, high, base, base + found.difference)


def band_of(metric: str, base: float) -> float:
    return SSIM_BAND if metric.startswith("ssim") else SHARE * abs(base)


def wall_times(model: Model, job: Job, rounds: int) -> dict[str, float]:
    """How many times as fast as pnp each recipe of `job` is, on one picture."""
    size = model.native_size
    first = next(path for path in sorted(job.input.path.iterdir()) if path.is_file())
    picture = Image.open(first).convert("RGB").resize((size, size))
    costs = {cost.recipe: cost for cost in compare(model, job, [picture], repeats=rounds, base=BASE)}
    return {name: costs["pnp"].ratio / cost.ratio for name, cost in costs.items()}


def table_of(
    recipes: Mapping[str, Recipe], found: Mapping[str, list[Distance]], faster: Mapping[str, float]
) -> Table:
    table = Table("candidate", "evaluations", "bands off, by strength", "furthest", "pnp : it")
    for name, everywhere in found.items():
        furthest = furthest_of(everywhere)
        by_strength = groupby(everywhere, key=lambda distance: distance.strength)
        table.add_row(
            name,
            f"{evaluations(recipes[name])}",
            "  ".join(f"{furthest_of(of).off:.2f}" for _, of in by_strength),
            str(furthest),
            f"{faster[name]:.1f}" if name in faster else "",
            style="green" if furthest.off <= 1 else None,
        )
    return table


def furthest_of(distances: Iterable[Distance]) -> Distance:
    return max(distances, key=lambda distance: distance.off)


def evaluations(recipe: Recipe) -> int:
    """Of the U-Net, for a picture: a reused one counts whole."""
    steps = recipe.solver_steps or 0
    return 1 + steps + sum(in_window(step, steps, recipe.guidance_window) for step in range(steps))


def ordered(off: Mapping[str, float], cost: Mapping[str, int]) -> list[str]:
    """Those inside come first, the cheapest before the others; then the nearest."""
    return sorted(off, key=lambda name: (max(off[name], 1.0), cost[name], off[name]))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pictures", type=Path)
    parser.add_argument("-p", "--prompt", required=True)
    parser.add_argument("-o", "--output", type=Path, default=Path("out/choose-fast"))
    parser.add_argument("--reference", type=Path, help="a folder of true pictures")
    parser.add_argument("--metrics", nargs="+", help="by default those of sdcorrect evaluate")
    parser.add_argument("--model", default="mini")
    parser.add_argument("--limit", type=int, help="only the first so many pictures")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--strengths", type=float, nargs="+", default=[0.6, 0.8, 0.95])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--solvers", nargs="+", default=["dpm++", "unipc"])
    parser.add_argument("--steps", type=int, nargs="+", default=list(range(4, 13)))
    parser.add_argument(
        "--guided",
        type=window,
        nargs="+",
        default=[(0.0, 0.75), (0.2, 1.0), ALWAYS],
        help="in which part of the steps, as 0.75 or 0.2-1",
    )
    parser.add_argument("--reuse", type=int, nargs="+", default=[0, 2], help="0 for none")
    parser.add_argument("--rounds", type=int, default=1, help="of the wall times (0: leave them out)")
    parser.add_argument("--timed", type=int, default=8, help="candidates whose wall time is measured")
    arguments = parser.parse_args()
    quiet_libraries()
    # that each candidate keeps its own solver is what is wanted of it
    logging.getLogger("sdcorrect").setLevel(logging.ERROR)
    recipes = {recipe.name: recipe for recipe in candidates(arguments)}
    everything = [BUILT_IN[BASE], *recipes.values()]
    job = job_of(arguments, everything, arguments.strengths[0], arguments.seeds[0])
    if len(find_items(job)) < 2:
        parser.error(f"{arguments.pictures}: one picture has no interval; give 2 or more")
    model = load(job)
    found: dict[str, list[Distance]] = {name: [] for name in recipes}
    for strength in arguments.strengths:
        jobs = [job_of(arguments, everything, strength, seed) for seed in arguments.seeds]
        with console.status(f"strength {strength:g}"):
            for job in jobs:
                for _ in ShardRun(job, model, Shard(0, 1)).records():
                    pass
            for name, of_strength in distances(jobs, arguments).items():
                found[name].extend(of_strength)
    off = {name: furthest_of(everywhere).off for name, everywhere in found.items()}
    order = ordered(off, {name: evaluations(recipe) for name, recipe in recipes.items()})
    faster: dict[str, float] = {}
    if arguments.rounds:
        timed = [BUILT_IN[BASE], BUILT_IN["pnp"], *(recipes[name] for name in order[: arguments.timed])]
        with console.status("wall times"):
            faster = wall_times(
                model,
                job_of(arguments, timed, arguments.strengths[-1], arguments.seeds[0]),
                arguments.rounds,
            )
    console.print(table_of(recipes, {name: found[name] for name in order}, faster))
    figures: dict[str, Any] = {
        name: {
            "recipe": recipes[name].model_dump(mode="json", exclude_defaults=True),
            "evaluations": evaluations(recipes[name]),
            "distances": [asdict(distance) for distance in found[name]],
            "pnp_ratio": faster.get(name),
        }
        for name in order
    }
    file = arguments.output / "choice.json"
    file.write_text(json.dumps(figures, indent=2) + "\n")
    console.print(f"{sum(bands <= 1 for bands in off.values())} of {len(off)} inside; written: {file}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
