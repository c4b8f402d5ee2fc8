"""Say what is wrong with a job: where, what was expected, and what was found."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from sdcorrect.config.job import Input, Job, Output
from sdcorrect.errors import did_you_mean, of_pydantic, printable, shortened
from sdcorrect.plainyaml import LONGEST
from sdcorrect.recipes import Inject, Recipe
from sdcorrect.settings import ControlNet, Lora, TextualInversion
from sdcorrect.sweep import ONE, SEVERAL


def explained(
    errors: ValidationError,
    settings: Any,
    file: Path | None,
    tree: Node | None,
    overrides: Mapping[str, Any],
) -> str:
    """The `errors` in `settings`, a line for each.

    Args:
        file, tree: the YAML file that the settings come from, if any, and its nodes.
        overrides: the settings that come from the command line.
    """
    told = _joined(errors.errors(), settings)
    return "\n".join(_explain(error, file, tree, overrides) for error in told)


def _joined(errors: Sequence[ErrorDetails], settings: Any) -> Iterator[ErrorDetails]:
    """Join the `errors` about one value that may be of several kinds."""
    by_place: dict[tuple[int | str, ...], list[ErrorDetails]] = {}
    for error in errors:
        by_place.setdefault(_place(error["loc"], settings), []).append(error)
    for place, alike in by_place.items():
        messages = [of_pydantic(error["msg"]) for error in alike]
        expected = [message.removeprefix("should be ") for message in messages]
        message = messages[0] if len(alike) == 1 else f"should be {' or '.join(expected)}"
        yield {**alike[0], "loc": place, "msg": message}


def _place(location: tuple[int | str, ...], settings: Any) -> tuple[int | str, ...]:
    """Where in `settings` an error is: below one value there are but the kinds that it may be of."""
    value, location = settings, tuple(part for part in location if part not in (ONE, SEVERAL))
    for depth, part in enumerate(location):
        if not isinstance(value, dict | list | tuple):
            return location[:depth]
        try:
            value = value[part]  # type: ignore[index]
        except LookupError:
            return location
        except TypeError:  # a kind that it may be of, where a list was given
            return location[:depth]
    return location


def _explain(
    error: ErrorDetails, file: Path | None, tree: Node | None, overrides: Mapping[str, Any]
) -> str:
    location = error["loc"]
    key = ".".join(map(str, location))
    overridden = any(key == name or key.startswith(f"{name}.") for name in overrides)
    line, node = _find(None if overridden else tree, location)
    where = "" if overridden or not file else f"{printable(file)}:{line}: "
    key = printable(key)
    match error["type"]:
        case "extra_forbidden":
            known = _known_keys(location[:-1])
            return f"{where}{key}: there is no such setting; {did_you_mean(location[-1], known)}"
        case "missing":
            return f"{where}{key}: is missing; {_HOW_TO_GIVE.get(key, 'add it')}"
        case "value_error":
            return f"{where}{key}: {error['msg']}" if key else f"{where}{error['msg']}"
        case "path_type":
            return f"{where}{key}: should be a path; found {_found(error['input'], node)}"
        case _:
            return f"{where}{key}: {error['msg']}; found {_found(error['input'], node)}"


_HOW_TO_GIVE = {
    "input": "give a folder of pictures, or `input: {path: ...}` in the job",
    "output": "give -o DIR, or `output: {path: ...}` in the job",
}


def _known_keys(location: Sequence[int | str]) -> list[str]:
    sections: dict[int | str, type[BaseModel]] = {
        "input": Input,
        "output": Output,
        "method": Recipe,
        "variants": Recipe,
        "inject": Inject,
        "loras": Lora,
        "textual_inversions": TextualInversion,
        "controlnets": ControlNet,
    }
    innermost = next((sections[part] for part in reversed(location) if part in sections), Job)
    return list(innermost.model_fields)


def _find(node: Node | None, location: Sequence[int | str]) -> tuple[int, Node | None]:
    """The line, from 1, of the deepest part of `location` in the file, and the node if all is there."""
    line = 1
    for part in location:
        if isinstance(node, MappingNode):
            pair = next((pair for pair in node.value if pair[0].value == part), None)
            if pair is None:
                return line, None
            line, node = pair[0].start_mark.line + 1, pair[1]
        elif isinstance(node, SequenceNode) and isinstance(part, int):
            node = node.value[part]
            line = node.start_mark.line + 1
        else:
            return line, None
    return line, node


def kind_of(value: object) -> str:
    return {list: "a list", str: "text", int: "a number", float: "a number"}.get(type(value), "a value")


def _found(value: object, node: Node | None) -> str:
    """`value` as YAML, preceded by its spelling in the file where that differs."""
    words = {True: "true", False: "false", None: "null"}
    shown = words[value] if value is None or isinstance(value, bool) else shortened(repr(value), LONGEST)
    if isinstance(node, ScalarNode) and shown in words.values() and node.value.lower() != shown:
        return f"{node.value or 'nothing'}, which YAML reads as {shown}"
    return shown
