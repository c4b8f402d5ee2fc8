"""Errors that a user can act on: one line that says what is wrong, where, and what to do."""

import os
import re
from collections.abc import Collection
from difflib import get_close_matches
from itertools import islice
from pathlib import Path

NAMED = 5  #: how many of many names a message lists
LONGEST = 200  #: characters of a library's message

#: What pydantic says in the words of Python, and what those say who write YAML, JSON or flags.
_OF_PYDANTIC = (
    (r"^(Input|Value error,) ", ""),
    (r"a valid (tuple|list)", "a list"),
    (r"a valid dictionary( or instance of \w+)?", "a mapping (key: value)"),
)


class SdcorrectError(Exception):
    """Ends the program with its message and `exit_code`, without a traceback."""

    exit_code = 1


class UsageError(SdcorrectError):
    """The command line, the job or a file that it names is wrong; nothing was started."""

    exit_code = 2


class PictureError(SdcorrectError):
    """One picture cannot be translated; it is recorded as failed, and the job continues.

    `sha256` is the hash of the picture's file, if it could be read.
    """

    def __init__(self, message: str, sha256: str | None = None) -> None:
        super().__init__(message)
        self.sha256 = sha256


class FilteredOut(PictureError):
    """The job's filters leave this picture out; it is recorded as filtered, not as failed."""


def listed(names: Collection[str]) -> str:
    """The first few of `names` on one line, and how many more there are."""
    first = ", ".join(printable(name) for name in islice(names, NAMED))
    more = len(names) - NAMED
    return f"{first} and {more} more" if more > 0 else first


def counted(count: int, one: str, many: str | None = None) -> str:
    """`count` and what it counts: 1 picture, 2 pictures; `many` where that is not `one` with an s."""
    return f"{count} {one if count == 1 else many or f'{one}s'}"


def did_you_mean(name: object, known: Collection[str], otherwise: str | None = None) -> str:
    """The end of a message that rejects `name`: it suggests the nearest of the `known` names.

    If none is near, it is `otherwise`, or else the list of known names.
    """
    # the dashes of options, which all have, make none of them alike
    bare = {one.lstrip("-"): one for one in known}
    near = get_close_matches(str(name).lstrip("-"), bare, n=1)
    if near:
        return f"did you mean {printable(bare[near[0]])}?"
    return otherwise or f"known: {', '.join(known)}"


def near_path(path: Path, otherwise: str, also: Collection[str] = ()) -> str:
    """`did_you_mean` among the names beside a `path` that does not exist, and `also` others."""
    try:
        known = os.listdir(path.parent)
    except (OSError, ValueError):
        known = []
    return did_you_mean(path.name, [*known, *also], otherwise)


def of_pydantic(message: str) -> str:
    """pydantic's `message` about a value, in the words of those who write YAML, JSON or flags."""
    for theirs, ours in _OF_PYDANTIC:
        message = re.sub(theirs, ours, message)
    return message


def one_line(text: object, longest: int | None = LONGEST) -> str:
    """`text`, such as a library's message, as one line of at most `longest` characters."""
    line = " ".join(str(text).split())
    return line if longest is None else shortened(line, longest)


def shortened(text: str, longest: int) -> str:
    """`text`, or its beginning and `...` if it has more than `longest` characters."""
    return text if len(text) <= longest else f"{text[: longest - 3]}..."


def printable(name: object) -> str:
    """`name` for one line of a message, with everything that is not printable escaped.

    File names can hold newlines, escape sequences and bytes that are not UTF-8.
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(name))
