"""How much a command prints, and whether for people or for programs."""

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sdcorrect.cli import console
from sdcorrect.cli.console import out
from sdcorrect.errors import SdcorrectError, UsageError

if TYPE_CHECKING:
    from sdcorrect.output.records import Record

PANEL = "Messages"
LEVELS = ("debug", "info", "warning", "error")

Quiet = Annotated[
    bool,
    typer.Option(
        "--quiet", "-q", help="Print only warnings, failures and errors.", rich_help_panel=PANEL
    ),
]
Verbose = Annotated[
    bool,
    typer.Option(
        "--verbose", "-v", help="Print what is loaded, and how long it takes.", rich_help_panel=PANEL
    ),
]
LogLevel = Annotated[
    str | None,
    typer.Option(
        "--log-level",
        help="Lowest level of log lines to print: debug, info, warning or error.",
        show_default="warning; info with -v",
        rich_help_panel=PANEL,
    ),
]
Json = Annotated[
    bool,
    typer.Option(
        "--json",
        help="Print events for programs: one JSON object per line; the last is `ended`.",
        rich_help_panel=PANEL,
    ),
]


def set_verbosity(*, quiet: bool, verbose: bool, log_level: str | None) -> None:
    """Set how much is printed.

    Raises:
        UsageError: there is no such level, or the flags contradict each other.
    """
    if quiet and verbose:
        raise UsageError("--quiet and --verbose: give only one")
    if log_level is not None and log_level not in LEVELS:
        raise UsageError(f"--log-level {log_level}: no such level; choose from {', '.join(LEVELS)}")
    console.verbosity.quiet = quiet
    level = getattr(logging, (log_level or ("info" if verbose else "warning")).upper())
    logging.getLogger("sdcorrect").setLevel(level)
    logging.getLogger().setLevel(max(level, logging.WARNING))  # lower levels of libraries are noise


@dataclass
class Events:
    """Reports events to programs: one JSON object per line on standard output."""

    shown: bool
    end: dict[str, Any] = field(default_factory=dict)  #: facts for the last event

    def tell(self, event: str, **facts: Any) -> None:
        if self.shown:
            out.print(json.dumps({"event": event, **facts}))

    def show(self, *objects: Any, **options: Any) -> None:
        """Print for people, unless --json or --quiet is given."""
        if not self.shown and not console.verbosity.quiet:
            out.print(*objects, **options)

    def ended(self, exit_code: int, **facts: Any) -> None:
        self.tell("ended", exit_code=exit_code, **self.end, **facts)


@contextmanager
def talking(quiet: bool, verbose: bool, log_level: str | None, for_programs: bool) -> Iterator[Events]:
    """Print as much, and in the form, that these options ask for.

    Raises:
        UsageError: as `set_verbosity`.
    """
    with events_for_programs(for_programs) as events:
        set_verbosity(quiet=quiet, verbose=verbose, log_level=log_level)
        yield events


@contextmanager
def events_for_programs(shown: bool) -> Iterator[Events]:
    """Events, if `shown`; the last one says how the command ended."""
    events = Events(shown)
    try:
        yield events
    except typer.Exit as end:
        events.ended(end.exit_code)
        raise
    except SdcorrectError as error:
        events.ended(error.exit_code, error=str(error))
        raise
    except Exception as error:
        events.ended(1, error=f"{type(error).__name__}: {error}")
        raise
    events.ended(0)


def facts_of(record: "Record") -> dict[str, Any]:
    """The facts of a translation that an event reports."""
    told = {"input", "variant", "output", "error", "seconds", "unet_evaluations"}
    return record.model_dump(mode="json", include=told)
