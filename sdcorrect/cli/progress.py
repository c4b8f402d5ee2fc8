"""The bar that long commands are followed by."""

from datetime import timedelta

from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn
from rich.text import Text

from sdcorrect.cli.console import err


class _Remaining(ProgressColumn):
    """The time left at the mean rate so far: pictures come by the batch, so a recent rate is none."""

    def render(self, task: Task) -> Text:
        if not task.completed or task.elapsed is None:
            return Text("-:--:--")
        seconds = task.elapsed * (task.remaining or 0) / task.completed
        return Text(str(timedelta(seconds=round(seconds))))


def progress_bar() -> Progress:
    """A bar on the terminal; nothing where nobody watches."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), _Remaining())
    return Progress(*columns, console=err, disable=not err.is_terminal)
