"""The application that commands register with, its consoles, and how errors end it."""

import logging
import os
import warnings
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.logging import RichHandler
from rich.markup import escape

from sdcorrect import __version__
from sdcorrect.errors import SdcorrectError, listed, printable

if TYPE_CHECKING:
    from sdcorrect.output.records import Record

#: The exit code of a job that is done but for some pictures that failed.
SOME_FAILED = 3

app = typer.Typer(
    help="Translate folders of pictures with Stable Diffusion and keep their structure.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
out = Console(highlight=False)
err = Console(stderr=True, highlight=False, soft_wrap=True)

Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


@contextmanager
def errors_for_people(debug: bool) -> Iterator[None]:
    """Turn errors into one line and an exit code."""
    try:
        yield
    except SdcorrectError as error:
        if debug:
            raise
        err.print(f"[red]error:[/] {escape(str(error))}")
        raise typer.Exit(error.exit_code) from None
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    except (typer.Exit, typer.Abort):
        raise
    except Exception as error:
        if debug:
            raise
        first_line = (str(error).splitlines() or [""])[0]
        err.print(f"[red]error:[/] {type(error).__name__}: {escape(first_line)} (--debug tells where)")
        raise typer.Exit(1) from None


def print_failures(records: Iterable["Record"]) -> None:
    for record in records:
        path, reason = printable(record.input.path), printable(record.error or "")
        err.print(f"[red]failed:[/] {escape(path)} ({record.variant}): {escape(reason)}")


def print_gone(outputs: Collection[str]) -> None:
    """Tell of outputs whose pictures the job does not cover any more."""
    if outputs:
        err.print(
            f"[yellow]warning:[/] {len(outputs)} outputs are of pictures that the job does not cover "
            f"any more: {escape(listed(outputs))}; they count nowhere, and stay until you remove them"
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
) -> None:
    # read when they are first imported: they would greet every command with what they miss
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")
    # on damaged files Pillow warns without naming them; those that fail are recorded with the reason
    warnings.filterwarnings("ignore", module=r"PIL\.")
    logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # likewise
    logging.basicConfig(
        format="%(message)s",
        handlers=[RichHandler(console=err, show_time=False, show_path=False)],
    )
