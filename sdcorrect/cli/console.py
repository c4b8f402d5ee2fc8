"""The application that commands register with, its consoles, and how errors are shown."""

import io
import logging
import os
import sys
import warnings
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from textwrap import wrap
from traceback import walk_tb
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich import box
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions
from rich.measure import Measurement
from rich.table import Column, Table
from rich.text import Text
from tqdm import tqdm
from typer.core import TyperGroup

from sdcorrect import __version__
from sdcorrect.cli.options import folder
from sdcorrect.cli.usage import WrongUsage, wrong_usage
from sdcorrect.errors import SdcorrectError, counted, listed, one_line, printable

if TYPE_CHECKING:
    from sdcorrect.output.records import Record

#: The exit code of a job that finished although some pictures failed.
SOME_FAILED = 3

#: How many warnings are shown that differ only in the picture that they name.
MOST_ALIKE = 100

#: The exit code when the reader of a pipe is gone: the shell's own for SIGPIPE.
CLOSED_PIPE = 141

#: How diffusers and transformers begin when they cannot import a part of themselves.
LATE_IMPORT = ("Failed to import ", "Could not import module ")

#: The commands as help lists them, by what they are for.
PANELS = {
    "Translate": ("translate", "init", "validate", "status", "merge", "slurm"),
    "Look and measure": ("report", "evaluate", "plot", "bench", "dissect"),
    "Information and set-up": ("recipes", "doctor", "prefetch", "schema"),
}


class _Commands(TyperGroup):
    def list_commands(self, ctx: Any) -> list[str]:
        listed = [name for names in PANELS.values() for name in names]
        return sorted(super().list_commands(ctx), key=listed.index)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        command = super().get_command(ctx, cmd_name)
        if command is not None:
            panel = next(panel for panel, names in PANELS.items() if command.name in names)
            command.rich_help_panel = panel  # type: ignore[attr-defined]
        return command

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except WrongUsage as error:
            if error.ctx is None and (name := ctx.invoked_subcommand):
                # the parser does not say in which command an option lacks its value
                error.ctx = typer.Context(self.get_command(ctx, name), parent=ctx, info_name=name)
            raise

    def main(self, *arguments: Any, **options: Any) -> Any:
        try:
            code = super().main(*arguments, **options | {"standalone_mode": False})
        except WrongUsage as error:
            if line := wrong_usage(error):
                tell("error", line, "red")
            raise SystemExit(error.exit_code) from None
        except SystemExit as end:
            # rich and typer exit so when the reader of a pipe is gone
            if isinstance(end.__context__, BrokenPipeError):
                raise SystemExit(CLOSED_PIPE) from None
            raise
        raise SystemExit(code)


class _Console(Console):
    """Prints text verbatim: no markup, for file names have brackets and colons; no wrapping."""

    def __init__(self, **options: Any) -> None:
        super().__init__(highlight=False, markup=False, emoji=False, soft_wrap=True, **options)

    def print(self, *objects: Any, **options: Any) -> None:
        with tqdm.external_write_mode(self.file):  # clears a progress bar, and redraws it below
            super().print(*objects, **options)

    @property
    def is_terminal(self) -> bool:
        """Whether this is a terminal. FORCE_COLOR does not turn a log into one."""
        try:
            return self.file.isatty() and os.environ.get("TERM") not in {"dumb", "unknown"}
        except ValueError:  # the file is closed
            return False


@dataclass
class Verbosity:
    """Whether anything but warnings, failures and errors goes to standard error."""

    quiet: bool = False


verbosity = Verbosity()

app = typer.Typer(
    cls=_Commands,
    help="Translate folders of pictures with Stable Diffusion and keep their structure.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
out = _Console()
err = _Console(stderr=True)

Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


def tell(what: str, message: object, style: str = "yellow") -> None:
    """Print a line such as `warning: ...` on standard error."""
    lines = "\n".join(map(printable, str(message).split("\n")))
    err.print(Text.assemble((f"{what}:", style), f" {lines}"))


def notice(line: str, *, wrapped: bool = False) -> None:
    """Print an informative line on standard error, unless --quiet.

    Args:
        wrapped: in a terminal, break it between words, which also breaks what a reader may copy.
    """
    if not verbosity.quiet:
        err.print(line, soft_wrap=not (wrapped and err.is_terminal))


def note(line: str) -> None:
    """Print `note: ...` on standard error, unless --quiet."""
    if not verbosity.quiet:
        tell("note", line)


def working(what: str) -> AbstractContextManager[object]:
    """Show a spinner with `what` while work is in progress."""
    return nullcontext() if verbosity.quiet else err.status(Text(printable(what)))


@contextmanager
def errors_for_people(debug: bool) -> Iterator[None]:
    """Turn errors into one line and an exit code."""
    try:
        yield
    except SdcorrectError as error:
        if debug:
            raise
        tell("error", error, "red")
        raise typer.Exit(error.exit_code) from None
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    except (typer.Exit, typer.Abort, BrokenPipeError):
        raise
    except Exception as error:
        if debug:
            raise
        tell("error", f"{_unforeseen(error)} (--debug shows where)", "red")
        raise typer.Exit(1) from None


def _unforeseen(error: BaseException) -> str:
    """What `error` says; if a library could not import a part of itself, which package broke that."""
    met = error
    while met.__cause__ and str(met).startswith(LATE_IMPORT):
        met = met.__cause__
    line = f"{type(met).__name__}: {one_line(met)}"
    if met is error:
        return line
    modules = [frame.f_globals.get("__name__", "") for frame, _ in walk_tb(met.__traceback__)]
    package = [name for name in modules if not name.startswith("importlib")][-1].partition(".")[0]
    return f"the package {package} cannot be imported; repair or uninstall it: {line}"


def figures(first: str, heads: Iterable[str], edge: box.Box | None = box.SIMPLE_HEAD) -> Table:
    """A table of numbers beside names, of at most 80 columns, as a pipe has; only a `Name` may break."""
    numbers = (Column(head, justify="right", no_wrap=True) for head in heads)
    names = Column(first, overflow="fold")
    return Table(names, *numbers, box=edge, pad_edge=False, collapse_padding=True)


@dataclass(frozen=True)
class Name:
    """A name such as a recipe's, in a table: where it does not fit, it breaks after a hyphen."""

    text: str

    def __rich_measure__(self, _console: Console, _options: ConsoleOptions) -> Measurement:
        return Measurement(1, max(1, cell_len(self.text)))

    def __rich_console__(self, _console: Console, options: ConsoleOptions) -> Iterator[Text]:
        yield Text("\n".join(wrap(self.text, options.max_width)))


def print_failures(records: Sequence["Record"], most: int | None = None) -> None:
    for record in records[:most]:
        path = printable(record.input.path)  # one line, even if the name has line breaks
        tell("failed", f"{path} ({record.variant}): {printable(record.error or '')}", "red")
    if most is not None and len(records) > most:
        tell("failed", f"and {len(records) - most} more; `sdcorrect status` lists all of them", "red")


def log_as_lines() -> None:
    """Print log records and warnings as plain lines."""
    # Pillow warns of damaged files without naming them; those that fail are recorded with the reason
    warnings.filterwarnings("ignore", module=r"PIL\.")
    logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # likewise
    logging.basicConfig(handlers=[_Lines()])


class _Lines(logging.Handler):
    """Prints each log record as a line, and only the first MOST_ALIKE warnings of a kind."""

    def __init__(self) -> None:
        super().__init__()
        self._told: Counter[str] = Counter()

    def emit(self, record: logging.LogRecord) -> None:
        kind = str(record.msg)
        self._told[kind] += record.levelno >= logging.WARNING
        if self._told[kind] <= MOST_ALIKE:
            tell(record.levelname.lower(), record.getMessage())
        elif self._told[kind] == MOST_ALIKE + 1:
            tell("warning", f"more warnings like the last follow; only the first {MOST_ALIKE} are shown")


def print_gone(outputs: Collection[str]) -> None:
    """Warn of outputs whose source pictures the job no longer covers."""
    if outputs:
        tell(
            "warning",
            f"{counted(len(outputs), 'output comes', 'outputs come')} from pictures that the job no "
            f"longer covers: {listed(outputs)}; not counted, and kept until you remove them",
        )


def _version(value: bool) -> None:
    if value:
        out.print(f"sdcorrect {__version__}")
        raise typer.Exit


@app.callback()
def main(
    _version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
    cache: Annotated[
        Path | None,
        typer.Option(
            "--cache",
            metavar="FOLDER",
            envvar="SDCORRECT_CACHE",
            parser=folder,
            help="Where downloads from the hub are kept.",
            show_default="the hub's own: HF_HUB_CACHE",
        ),
    ] = None,
) -> None:
    if cache is not None:
        os.environ["HF_HUB_CACHE"] = str(cache.absolute())
    # read at first import; without it both libraries warn of missing extras at every command
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")
    log_as_lines()
    # a name that the terminal cannot encode must not end a finished run with an error
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")
