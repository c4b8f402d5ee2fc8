"""Compare recipes: how good their results are, and what they cost."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from sdcorrect import __version__
from sdcorrect.config import Job
from sdcorrect.evaluate.evaluator import Evaluator, Request
from sdcorrect.evaluate.results import VariantResult
from sdcorrect.models import Model
from sdcorrect.output.folder import OutputFolder
from sdcorrect.output.records import Done

#: Metric -> its column heading, and its decimals.
METRICS = {
    "ssim_truth": ("SSIM to the truth", 3),
    "psnr_truth": ("PSNR to the truth, dB", 2),
    "structure_distance_truth": ("structure distance to the truth", 4),
    "style_accuracy": ("style accuracy", 3),
    "clip_text": ("CLIP similarity to the prompt", 3),
    "ssim": ("SSIM to the source", 3),
}
#: The table is sorted by the first of these that is measured, best first.
BEST = ("ssim_truth", "clip_text")


@dataclass(frozen=True)
class Board:
    """The table: a row for each recipe, best first."""

    heads: tuple[str, ...]
    rows: list[tuple[str, ...]]
    pictures: int


def leaderboard(
    out: Path,
    truth: Path | None,
    other_styles: Sequence[str],
    measuring: Callable[[int, int], None] = lambda done, total: None,
) -> Board:
    """Measure the output folder `out`.

    Args:
        truth: a folder of true pictures, if there is one.
        other_styles: the prompts that style accuracy compares the pictures' own with.
        measuring: called with the number of pictures measured, and of all pictures.

    Raises:
        UsageError: the folder, or something that a metric needs, is missing or does not fit.
    """
    metrics = ["ssim", "clip_text", *(["psnr", "structure_distance"] if truth else [])]
    evaluator = Evaluator(Request(out, metrics=metrics, reference=truth, other_styles=other_styles))
    rows = []
    for batch in evaluator.rows():
        rows += batch
        measuring(len({row.path for row in rows}), evaluator.pictures)
    found = evaluator.evaluation(rows)
    told = {name: METRICS[name] for name in METRICS if name in found.metrics}
    best = next(name for name in BEST if name in told)
    # the folder may list recipes of another run without any pictures yet
    done = {name: result for name, result in found.variants.items() if result.pictures}
    ranked = sorted(done.items(), key=lambda one: -(one[1].metrics[best].mean or 0))
    costs = _costs(out)
    heads = ("recipe", *(head for head, _ in told.values()), "U-Net evaluations", "seconds")
    table = [(name, *_cells(result, told), *costs[name]) for name, result in ranked]
    return Board(heads, table, evaluator.pictures)


def _cells(result: VariantResult, told: dict[str, tuple[str, int]]) -> list[str]:
    means = ((result.metrics[name].mean, decimals) for name, (_, decimals) in told.items())
    return ["-" if mean is None else f"{mean:.{decimals}f}" for mean, decimals in means]


def _costs(out: Path) -> dict[str, tuple[str, str]]:
    """By recipe, the U-Net evaluations per picture and the median of seconds, including an inversion."""
    done: dict[str, list[Done]] = {}
    for record in OutputFolder(out).records().values():
        if isinstance(record, Done):
            done.setdefault(record.variant, []).append(record)
    return {
        name: (str(records[0].unet_evaluations), f"{median(r.seconds for r in records):.2f}")
        for name, records in done.items()
    }


def page_of(board: Board, job: Job, model: Model, command: str) -> str:
    """The board as a Markdown page, with its settings and the `command` that reproduces it."""
    lines = [board.heads, ("---",) * len(board.heads)]
    lines += [(f"`{name}`", *cells) for name, *cells in board.rows]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"""\
# Leaderboard

{board.pictures} pictures of `{job.input.path.name}` by {model.name} ({model.identity[:10]}):
from "{job.source_prompt}" to "{job.prompt}", strength {job.strengths[0]:g}, {job.steps} steps,
guidance {job.guidance_scale:g}. Rows are sorted by the first column, best first. A recipe with settings
of its own is measured with these.

{table}

Seconds are medians per picture, including the inversion, in batches of {job.batch_size} on
{model.device.type} in {model.precision}; they compare recipes, not machines.
sdcorrect {__version__} made this page with

```bash
{command}   # needs: time
```
"""
