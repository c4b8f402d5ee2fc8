"""Jobs to start from, one per task: the task's settings, and all others commented out."""

import re
from pathlib import Path
from typing import Any

import yaml

from sdcorrect.errors import UsageError, did_you_mean, printable
from sdcorrect.plainyaml import read_yaml
from sdcorrect.reference import SECTIONS, Setting, settings_of

PACKAGE = Path(__file__).parent
#: In a wheel, `configs` is inside the package.
CONFIGS = next(place / "configs" for place in (PACKAGE, PACKAGE.parent) if (place / "configs").is_dir())
WIDTH = 100
MORE = "# All other settings, at their defaults. Remove the # before a key to change it."


def tasks() -> list[str]:
    """The names of the tasks."""
    return sorted(file.stem for file in CONFIGS.glob("*.yaml"))


def starting_job(task: str) -> str:
    """The text of a job file for `task`, which works in any folder.

    Raises:
        UsageError: there is no such task.
    """
    if task not in tasks():
        raise UsageError(f"there is no task {printable(task)}; {did_you_mean(task, tasks())}")
    text = (CONFIGS / f"{task}.yaml").read_text(encoding="utf-8")
    given, _ = read_yaml(text)
    given = _moved(given)
    head = re.match(r"(#.*\n)*", text)
    assert head
    settings = {setting.key: setting for setting in settings_of(SECTIONS[""])}
    active = [_block(settings[key], given) for key in given]
    others = [_block(setting, {}) for key, setting in settings.items() if key not in given]
    return "\n".join([_told_here(head[0]), *active, f"\n{MORE}\n", *others, ""])


def _moved(value: Any) -> Any:
    """`value` with paths relative to the new job instead of to `configs`."""
    if isinstance(value, dict):
        return {key: _moved(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_moved(inner) for inner in value]
    if not isinstance(value, str):
        return value
    return re.sub(r"^\.\./", "", re.sub(r"^\.\./sdcorrect/", f"{PACKAGE}/", value))


def _told_here(comment: str) -> str:
    comment = comment.replace("beside `configs`", "beside this file").replace("configs/", "")
    return re.sub(r"(?<= )sdcorrect/assets", f"{PACKAGE}/assets", comment)


def _block(setting: Setting, given: dict[str, Any]) -> str:
    """The lines of a key: its meaning and its value, commented out if the task does not set it."""
    lines = [f"# {setting.meaning}"]
    inner = given.get(setting.key)
    if setting.key in ("input", "output") and isinstance(inner, dict):
        parts = settings_of(SECTIONS[setting.key])
        # keys that are set come first, so that the section does not begin with a comment
        parts.sort(key=lambda part: part.key not in inner)
        lines += [f"{setting.key}:"]
        lines += [f"  {line}" for part in parts for line in _block(part, inner).splitlines()]
        return "\n".join(lines)
    mark, value = ("", inner) if setting.key in given else ("#", setting.default)
    flow = None if isinstance(value, (dict, list)) else False
    dumped = yaml.safe_dump(
        {setting.key: value}, default_flow_style=flow, sort_keys=False, allow_unicode=True, width=WIDTH
    )
    return "\n".join(lines + [f"{mark}{line}" for line in dumped.splitlines()])
