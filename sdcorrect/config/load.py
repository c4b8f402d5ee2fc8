"""Read a job from its YAML file, `--set` and flags."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from yaml.nodes import Node

from sdcorrect.config.explain import explained, kind_of
from sdcorrect.config.job import Job
from sdcorrect.errors import UsageError, printable, shortened
from sdcorrect.paths import expand
from sdcorrect.plainyaml import LONGEST, MOST_BYTES, NotPlain, read_yaml
from sdcorrect.reading import decode, read_bytes
from sdcorrect.settings import ALPHA, WORDS, WRITTEN, anchor_sources

#: Settings that are paths; in a YAML file they are relative to that file.
PATHS = (("input", "path"), ("input", "captions"), ("input", "classes"), ("output", "path"))


def load_job(file: Path | None, overrides: Mapping[str, Any]) -> Job:
    """Read a job from `file`, apply `overrides` (dotted key -> value), and validate it.

    Paths in the file are relative to the file, paths in `overrides` to the working directory.

    Raises:
        UsageError: the file cannot be read, or the job is invalid; one line for each fault.
    """
    raw, tree = read_yaml_file(file, "cannot read the job") if file else ({}, None)
    raw = {} if raw is None else raw
    if not isinstance(raw, dict):
        raise UsageError(
            f"{printable(file)}: expected settings such as `prompt: ...`, found {kind_of(raw)}"
        )
    if file:
        anchor_paths(raw, file.parent)
    settings = raw
    for key, value in overrides.items():
        settings = _overlay(settings, key, value)
    try:
        return Job.model_validate(settings, context=WRITTEN)
    except ValidationError as errors:
        raise UsageError(explained(errors, settings, file, tree, overrides)) from None


def parse_set(assignments: Sequence[str]) -> dict[str, Any]:
    """Parse assignments such as `output.format=jpg` from the command line; values are YAML.

    Raises:
        UsageError: an assignment has no `=`, or its value is not YAML.
    """
    parsed: dict[str, Any] = {}
    for assignment in assignments:
        key, equals, value = assignment.partition("=")
        if not equals or not key:
            raise UsageError(
                f"--set {shortened(assignment, LONGEST)}: expected key=value, such as "
                "--set output.format=jpg"
            )
        try:
            parsed[key], _ = read_yaml(value)
        except NotPlain as error:
            raise UsageError(f"--set {printable(key)}: {error}") from None
    return parsed


def absolute_paths(job: Job) -> Job:
    """`job` with absolute paths, so that it holds in any working directory."""
    raw = job.model_dump(mode="json")
    anchor_paths(raw, Path.cwd())
    return Job.model_validate(raw)


def read_yaml_file(file: Path, failing: str = "cannot be read") -> tuple[Any, Node | None]:
    """The content of a YAML file, and its node tree.

    Raises:
        UsageError: it cannot be read (the message says `failing`), or is not plain YAML.
    """
    try:
        return read_yaml(decode(read_bytes(file, MOST_BYTES)))
    except OSError as error:
        raise UsageError(f"{printable(file)}: {failing}: {error.strerror}") from None
    except NotPlain as error:
        raise UsageError(f"{printable(file)}:{error.line}: {error}") from None
    except ValueError as error:
        raise UsageError(f"{printable(file)}: {failing}: {error}") from None


def anchor_paths(raw: dict[str, Any], folder: Path) -> None:
    """Make paths that are relative to `folder` relative to the working directory, in place."""
    for section, key in PATHS:
        inner = raw.get(section)
        if isinstance(inner, dict) and key in inner:
            inner[key] = _anchored(inner[key], folder)
    if "spill" in raw:
        raw["spill"] = _anchored(raw["spill"], folder)
    if raw.get("mask") not in (None, ALPHA, WORDS):
        mask = _anchored(raw["mask"], folder)
        raw["mask"] = f"./{mask}" if mask in (ALPHA, WORDS) else mask
    anchor_sources(raw, folder)


def _anchored(path: Any, folder: Path) -> Any:
    if not isinstance(path, str) or not path.strip():
        return path
    try:
        return os.path.normpath(folder / expand(path, folder))
    except ValueError:
        return path  # validation reports it, with its line


def _overlay(settings: dict[str, Any], key: str, value: Any) -> dict[str, Any]:
    head, _, rest = key.partition(".")
    if rest:
        inner = settings.get(head)
        value = _overlay(inner if isinstance(inner, dict) else {}, rest, value)
    return {**settings, head: value}
