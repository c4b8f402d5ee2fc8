"""What is wrong on a command line, or in a variable that stands in for a flag, in one line."""

import re
from pathlib import Path
from typing import Any

import typer

from sdcorrect.cli.options import from_variable
from sdcorrect.errors import LONGEST, did_you_mean, of_pydantic, one_line, printable

#: The errors of typer's parser; depending on its version, they are click's or its own.
WrongUsage: Any = typer.BadParameter.__mro__[1]

#: What pydantic, which reads the values of options, calls by longer names.
EXPECTED = {
    "bool_parsing": "should be 1 or 0 (or true, false, yes, no)",
    "float_parsing": "should be a number",
    "int_parsing": "should be a whole number",
}


def wrong_usage(error: Any) -> str | None:
    """The line for a `WrongUsage`; None if it only asks for the help, which is already shown."""
    if type(error).__name__ == "NoArgsIsHelpError":
        return None
    names = error.ctx.command_path.split() if error.ctx else [""]
    command = " ".join(["sdcorrect", *names[1:]])
    if type(error) is typer.BadParameter and error.param is not None:
        return f"{_place(error)}: {_reason(error)}"
    if option := getattr(error, "option_name", None) if hasattr(error, "possibilities") else None:
        listed = f"`{command} --help` lists the options"
        return f"{command} has no option {printable(option)}; {_near(error, str(option), listed)}"
    message = one_line(error.format_message()).rstrip(".")
    extra = re.search(r"unexpected extra arguments?(?:\(s\))? \((.*)\)", message)
    if extra and any(Path(word).suffix[1:].isalpha() for word in extra[1].split()):
        return f"{message}; put a pattern such as '*.jpg' in quotes, or the shell expands it"
    return message if message.endswith("?") else f"{message}; see `{command} --help`"


def _near(error: Any, option: str, otherwise: str) -> str:
    names = [name for parameter in error.ctx.command.params for name in parameter.opts]
    return did_you_mean(option, names, otherwise)


def _place(error: Any) -> str:
    """The variable, the longest name of the option, or the argument that has the value."""
    parameter = error.param
    if error.ctx and from_variable(error.ctx, parameter.name):
        return str(parameter.envvar)
    if parameter.param_type_name == "option":
        return str(max((*parameter.opts, *parameter.secondary_opts), key=len))
    return str(parameter.metavar or parameter.name.upper())


def _reason(error: Any) -> str:
    faults = getattr(error.__cause__, "errors", None)
    if faults is None:
        return str(error.message)
    (fault, *_) = faults()
    if fault["type"] == "value_error":
        return str(fault["ctx"]["error"]).rstrip(".")
    expected = EXPECTED.get(fault["type"], of_pydantic(fault["msg"]))
    return f"{expected}; found {printable(repr(fault['input']))[:LONGEST]}"
