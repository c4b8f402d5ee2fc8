"""Paths as people write them."""

import os
import re
from pathlib import Path

VARIABLE = re.compile(r"\$(?:(\w+)|\{([^}]*)\})")


def expand(path: str, folder: Path = Path()) -> str:
    """Expand `~` and `$VAR` in `path` as a shell does; names that exist in `folder` are kept literally.

    Raises:
        ValueError: a variable is unset or empty, or a user does not exist, so that the path would not
            be the one that was meant.
    """
    if "$" not in path and not path.startswith("~"):
        return path
    filled = os.path.expanduser(path)
    if filled.startswith("~") and not os.path.lexists(folder / filled):
        raise ValueError(f"{path}: there is no user {filled.split('/')[0]}; write ./{path} for a file")
    parts: list[str] = []
    for part in filled.split("/"):
        literal = "$" not in part or os.path.lexists(folder / "/".join([*parts, part]))
        parts.append(part if literal else VARIABLE.sub(lambda match: _value(match, path), part))
    return "/".join(parts)


def _value(match: re.Match[str], path: str) -> str:
    value = os.environ.get(match[1] or match[2])
    if not value:
        raise ValueError(f"{path}: the variable {match[0]} is not set")
    return value
