"""`sdcorrect bench --evaluate`: translate with each recipe, measure, and write a table and a page."""

from collections.abc import Sequence
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING

from sdcorrect.cli.console import Name, figures, out, working
from sdcorrect.cli.progress import following
from sdcorrect.cli.signals import stop_on_signals
from sdcorrect.config import Job
from sdcorrect.errors import printable
from sdcorrect.output.files import writing

if TYPE_CHECKING:
    from sdcorrect.evaluate.leaderboard import Board
    from sdcorrect.inputs.items import Found
    from sdcorrect.models import Model


def judge(
    job: Job,
    model: "Model",
    found: "Found",
    truth: Path | None,
    other_styles: Sequence[str],
    page: Path,
    command: str,
) -> None:
    """Show the leaderboard of `job`'s variants, and write it to `page` with the `command` that made it.

    Raises:
        UsageError: the job or the true pictures do not fit.
        SdcorrectError: a folder cannot be written.
    """
    from sdcorrect.evaluate.leaderboard import leaderboard, page_of

    _translate(job, model, found)
    with working("measuring"):
        board = leaderboard(job.output.path, truth, other_styles)
    _show(board)
    with writing(page, "--page "):
        page.parent.mkdir(parents=True, exist_ok=True)
        page.write_text(page_of(board, job, model, command), encoding="utf-8")
    out.print(f"page: {printable(page)}  pictures: {printable(job.output.path)}/<recipe>/")


def _translate(job: Job, model: "Model", found: "Found") -> None:
    from sdcorrect.batch.runner import ShardRun
    from sdcorrect.output.shards import Shard

    with stop_on_signals() as stop:
        run = ShardRun(job, model, Shard(), check=stop.check, found=found)
        stop.heeded = True
        with following("translating", len(run.items) * len(run.tally)) as shown:
            for _ in run.records():
                shown.update()


def _show(board: "Board") -> None:
    first, *heads = board.heads
    table = figures(first, map(_broken, heads), None)
    for name, *cells in board.rows:
        table.add_row(Name(name), *cells)
    out.print(table, soft_wrap=False)


def _broken(head: str) -> str:
    """`head` on lines as short as its longest word."""
    return "\n".join(wrap(head, max(map(len, head.split())), break_on_hyphens=False))
