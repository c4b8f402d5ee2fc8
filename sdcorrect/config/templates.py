"""Prompts with placeholders in braces, which each picture fills in."""

from string import Formatter
from typing import Annotated

from pydantic import AfterValidator

from sdcorrect.core.syntax import check_networks

#: The names that may appear in braces in a prompt.
PLACEHOLDERS = ("caption", "class", "stem", "parameters")


def placeholders(template: str) -> set[str]:
    """The names in the braces of a prompt.

    Raises:
        ValueError: a name is not a known placeholder, or a brace is unpaired.
    """
    known = ", ".join(f"{{{name}}}" for name in PLACEHOLDERS)
    advice = f"prompts can contain {known}, and {{{{ }}}} for literal braces"
    try:
        fields = [field[1:] for field in Formatter().parse(template) if field[1] is not None]
    except ValueError:
        raise ValueError(f"{template!r} has an unpaired brace; {advice}") from None
    for name, specification, conversion in fields:
        if name not in PLACEHOLDERS or specification or conversion:
            raise ValueError(f"there is no placeholder {{{name}}}; {advice}")
    return {str(name) for name, _, _ in fields}


def _check_template(template: str) -> str:
    placeholders(template)
    return template


def _check_networks(template: str) -> str:
    check_networks(template)
    return template


#: A prompt of a single picture may name LoRAs: then only this picture fails, unless the job loads them.
PictureTemplate = Annotated[str, AfterValidator(_check_template)]
Template = Annotated[PictureTemplate, AfterValidator(_check_networks)]
