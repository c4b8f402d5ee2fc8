"""The application that commands register with, its consoles, and how errors end it."""

import io
import logging
import os
import sys
import warnings
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.text import Text
from tqdm import tqdm
from typer.core import TyperGroup

from sdcorrect import __version__
from sdcorrect.cli.options import BadPath, path
from sdcorrect.errors import SdcorrectError, listed, one_line, printable

if TYPE_CHECKING:
    from sdcorrect.output.records import Record

#: The exit code of a job that is done but for some pictures that failed.
SOME_FAILED = 3

#: So many warnings are shown of those that differ only in which picture they are of.
MOST_ALIKE = 100

#: The exit code where nobody reads on, as the shell gives it for a SIGPIPE.
CLOSED_PIPE = 141


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

    def main(self, *arguments: Any, **options: Any) -> Any:
        try:
            return super().main(*arguments, **options)
        except BadPath as error:
            tell("error", error, "red")
            raise SystemExit(error.exit_code) from None
        except SystemExit as end:
            # by which rich and typer end a program whose reader is gone
            if isinstance(end.__context__, BrokenPipeError):
                raise SystemExit(CLOSED_PIPE) from None
            raise


class _Console(Console):
    """Prints text as it is: file names have brackets and colons, and lines are as long as they are."""

    def __init__(self, **options: Any) -> None:
        super().__init__(highlight=False, markup=False, emoji=False, soft_wrap=True, **options)

    def print(self, *objects: Any, **options: Any) -> None:
        with tqdm.external_write_mode(self.file):  # a bar makes room, and is drawn again below
            super().print(*objects, **options)

    @property
    def is_terminal(self) -> bool:
        """Whether a person watches. FORCE_COLOR makes no terminal of a log."""
        try:
            return self.file.isatty() and os.environ.get("TERM") not in {"dumb", "unknown"}
        except ValueError:  # it is closed
            return False


@dataclass
class Verbosity:
    """How much is printed on standard error beside warnings, failures and errors."""

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
    """Print a line such as `warning: ...` for a person, on standard error."""
    lines = "\n".join(map(printable, str(message).split("\n")))
    err.print(Text.assemble((f"{what}:", style), f" {lines}"))


def notice(line: str) -> None:
    """Print a line that a person may want to know of, on standard error."""
    if not verbosity.quiet:
        err.print(line)


def working(what: str) -> AbstractContextManager[object]:
    """Show that something is done, while it is."""
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
        tell("error", f"{type(error).__name__}: {one_line(error)} (--debug tells where)", "red")
        raise typer.Exit(1) from None


def print_failures(records: Sequence["Record"], most: int | None = None) -> None:
    for record in records[:most]:
        path = printable(record.input.path)  # on one line, whatever its name holds
        tell("failed", f"{path} ({record.variant}): {printable(record.error or '')}", "red")
    if most is not None and len(records) > most:
        tell("failed", f"and {len(records) - most} more; `sdcorrect status` names all of them", "red")


def log_as_lines() -> None:
    """What is logged and warned about becomes lines for people."""
    # on damaged files Pillow warns without naming them; those that fail are recorded with the reason
    warnings.filterwarnings("ignore", module=r"PIL\.")
    logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # likewise
    logging.basicConfig(handlers=[_Lines()])


class _Lines(logging.Handler):
    """What libraries and this one log, a line each; of one kind, no more than a person would read."""

    def __init__(self) -> None:
        super().__init__()
        self._told: Counter[str] = Counter()

    def emit(self, record: logging.LogRecord) -> None:
        kind = str(record.msg)
        self._told[kind] += record.levelno >= logging.WARNING
        if self._told[kind] <= MOST_ALIKE:
            tell(record.levelname.lower(), record.getMessage())
        elif self._told[kind] == MOST_ALIKE + 1:
            tell("warning", f"and more lines like the last, of which only {MOST_ALIKE} are shown")


def print_gone(outputs: Collection[str]) -> None:
    """Tell of outputs whose pictures the job does not cover any more."""
    if outputs:
        tell(
            "warning",
            f"{len(outputs)} outputs are of pictures that the job does not cover any more: "
            f"{listed(outputs)}; they count nowhere, and stay until you remove them",
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
            parser=path,
            help="Where downloads from the hub are kept.",
            show_default="the hub's own: HF_HUB_CACHE",
        ),
    ] = None,
) -> None:
    if cache is not None:
        os.environ["HF_HUB_CACHE"] = str(cache.absolute())
    # read when they are first imported: they would greet every command with what they miss
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")
    log_as_lines()
    # a name that the terminal's encoding lacks must not end a run that has done its work
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")
