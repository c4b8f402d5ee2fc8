"""Every setting of a job: its values, default and meaning, read from the job's pydantic models.

`sdcorrect init` and the manual are generated from it, so that they cannot differ from the program.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, TypeAdapter
from pydantic.fields import FieldInfo

from sdcorrect.config import Input, Job, Output
from sdcorrect.recipes import Inject, Recipe
from sdcorrect.settings import ControlNet, Lora, TextualInversion

#: The parts of a job that have keys of their own, by their key in the job.
SECTIONS: dict[str, type[BaseModel]] = {
    "": Job,
    "input": Input,
    "output": Output,
    "loras": Lora,
    "textual_inversions": TextualInversion,
    "controlnets": ControlNet,
    "method": Recipe,
    "inject": Inject,
}


@dataclass(frozen=True)
class Setting:
    """One key of a section."""

    key: str
    values: str  #: the allowed values, in words
    default: Any  #: as in YAML
    required: bool
    meaning: str


def settings_of(section: type[BaseModel]) -> list[Setting]:
    """The keys of a part of a job, in order of definition."""
    schema = section.model_json_schema()
    definitions: dict[str, Any] = schema.get("$defs", {})
    return [
        Setting(
            key,
            _values(schema["properties"][key], definitions),
            _default(field),
            field.is_required(),
            field.description or "",
        )
        for key, field in section.model_fields.items()
    ]


def _default(field: FieldInfo) -> Any:
    if field.is_required():
        return None
    default = field.get_default(call_default_factory=True, validated_data={})
    if isinstance(default, Recipe):
        return default.name
    return TypeAdapter(Any).dump_python(default, mode="json")


def _values(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> str:
    """The values that a JSON Schema allows, in words."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return "a recipe" if name == "Recipe" else f"keys of its own ({name})"
    if options := schema.get("anyOf") or schema.get("oneOf"):
        words = [_values(option, definitions) for option in options]
        return " or ".join(words).replace(f"list of: {words[0]}", "a list of them")
    if "enum" in schema or "const" in schema:
        return ", ".join(f"`{value}`" for value in schema.get("enum", [schema.get("const")]))
    match schema.get("type"):
        case "boolean":
            return "`true`, `false`"
        case "integer" | "number" as kind:
            return " ".join(
                filter(None, ("whole number" if kind == "integer" else "number", _range(schema)))
            )
        case "array" if "prefixItems" in schema:
            return f"{len(schema['prefixItems'])} of: {_values(schema['prefixItems'][0], definitions)}"
        case "array":
            return f"list of: {_values(schema['items'], definitions)}"
        case "object":
            return f"mapping of words to: {_values(schema['additionalProperties'], definitions)}"
        case "null":
            return "`null`"
        case _:
            return "path" if schema.get("format") == "path" else "text"


def _range(schema: Mapping[str, Any]) -> str:
    bounds = {
        "from": schema.get("minimum"),
        "above": schema.get("exclusiveMinimum"),
        "to": schema.get("maximum"),
        "below": schema.get("exclusiveMaximum"),
    }
    return " ".join(f"{word} {bound:,}" for word, bound in bounds.items() if bound is not None)
