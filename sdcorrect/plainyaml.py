"""YAML as settings are written in it: plain values, none of which runs or goes on for ever.

YAML 1.1 takes `010` for 8, `1:30` for 90 and `2001-01-01` for a date, and a few lines of aliases may
stand for more values than any memory holds.
"""

import re
from collections.abc import Callable, Hashable
from typing import Any

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from sdcorrect.errors import one_line, printable

TEXT, MERGE = "tag:yaml.org,2002:str", "tag:yaml.org,2002:merge"
MOST_BYTES = 1 << 21  #: of a file: the parser takes seconds for as many
MOST_LEVELS = 100  #: of lists and mappings in one another
MOST_REPEATED = 10_000  #: values that aliases add to those that are written out
LARGEST = 2**64
NO_TEXT = re.compile("[\0\ud800-\udfff]")
LONGEST = 60  #: characters of a value in a message
NO_SETTINGS = {
    "timestamp": "a date",
    "binary": "bytes",
    "set": "a set",
    "omap": "a map",
    "pairs": "pairs",
}


class NotPlain(ValueError):
    """What is wrong, and in which line, from 1."""

    def __init__(self, reason: str, line: int) -> None:
        super().__init__(reason)
        self.line = line


def read_yaml(text: str, *, typed: bool = True) -> tuple[Any, Node | None]:
    """The value of a YAML document, and the nodes that tell where in it each part stands.

    Args:
        typed: numbers, booleans and nulls are such; else every value is text, as it is written.

    Raises:
        NotPlain: it is not YAML, a key stands there twice, or a value is none that settings have.
    """
    try:
        loader = (_Typed if typed else _Texts)(text)
        node = loader.get_single_node()
        if node is None:
            return None, None
        sizes: dict[Node, int] = {}
        if _size(node, sizes) - len(sizes) > MOST_REPEATED:
            raise _refused(node, "aliases repeat too much of it; write out what is meant")
        _check_keys(node)
        return loader.construct_document(node), node
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise NotPlain(f"not YAML: {error.reason}", line) from None
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise NotPlain(f"not YAML: {one_line(error.problem or '')}", line) from None


class _Limited(yaml.composer.Composer):
    levels = 0
    peek_event: Callable[[], Any]  # the parser's, of which loaders are made too

    def compose_node(self, parent: Node | None, index: int) -> Node | None:
        self.levels += 1
        if self.levels > MOST_LEVELS:
            line = self.peek_event().start_mark.line + 1
            raise NotPlain(f"lists and mappings are more than {MOST_LEVELS} levels deep", line)
        node: Node | None = super().compose_node(parent, index)
        self.levels -= 1
        return node


class _Texts(_Limited, yaml.BaseLoader):
    pass


class _Typed(_Limited, yaml.SafeLoader):
    def construct_object(self, node: Node, deep: bool = False) -> Hashable:
        kind = node.tag.removeprefix("tag:yaml.org,2002:")
        if kind in NO_SETTINGS:
            raise _refused(node, f"{_shown(node)} is {NO_SETTINGS[kind]} to YAML; put text in quotes")
        try:
            value: Hashable = super().construct_object(node, deep)
        except (NotPlain, yaml.YAMLError):
            raise
        # on values that are none of their tag, the constructors raise whatever their arithmetic does
        except Exception:
            raise _refused(node, f"{_shown(node)} is no {kind}") from None
        return value

    def construct_yaml_str(self, node: ScalarNode) -> str:
        value: str = super().construct_yaml_str(node)
        if NO_TEXT.search(value):
            raise _refused(
                node, f"{_shown(node)} holds characters that neither text nor file names have"
            )
        return value

    def construct_yaml_int(self, node: ScalarNode) -> int:
        # Python itself refuses to read numbers of thousands of digits
        if isinstance(node.value, str) and len(node.value) > LONGEST:
            raise _refused(node, f"{_shown(node)} is larger than any setting")
        value: int = super().construct_yaml_int(node)
        digits = node.value.lstrip("+-")
        if ":" in digits or re.match(r"0[0-9_]", digits):
            base = "base 60" if ":" in digits else "octal"
            raise _refused(
                node, f"{_shown(node)} is {base} to YAML, {value}; write a decimal, or quotes"
            )
        if abs(value) >= LARGEST:
            raise _refused(node, f"{_shown(node)} is larger than any setting")
        return value

    def construct_yaml_float(self, node: ScalarNode) -> float:
        value: float = super().construct_yaml_float(node)
        if ":" in node.value:
            raise _refused(node, f"{_shown(node)} is base 60 to YAML, {value:g}; write a decimal")
        if not abs(value) < LARGEST:
            raise _refused(node, f"{_shown(node)} is no finite number that a setting takes")
        return value


_Typed.add_constructor(TEXT, _Typed.construct_yaml_str)
_Typed.add_constructor("tag:yaml.org,2002:int", _Typed.construct_yaml_int)
_Typed.add_constructor("tag:yaml.org,2002:float", _Typed.construct_yaml_float)
# 1e-4, which YAML 1.1 takes for text
_Typed.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)[eE][-+]?[0-9]+"),
    list("-+.0123456789"),
)


def _size(node: Node, sizes: dict[Node, int]) -> int:
    """How many values `node` stands for once aliases are filled in; `sizes` keeps those of its parts."""
    if node in sizes:
        if not sizes[node]:
            raise _refused(node, "holds itself, by an alias")
        return sizes[node]
    sizes[node] = 0
    sizes[node] = 1 + sum(_size(part, sizes) for part in _parts(node))
    return sizes[node]


def _parts(node: Node) -> list[Node]:
    if isinstance(node, MappingNode):
        return [part for pair in node.value for part in pair]
    return list(node.value) if isinstance(node, SequenceNode) else []


def _check_keys(node: Node) -> None:
    """See that keys are text and each stands there once: YAML lets the last of two win in silence."""
    seen = set()
    for key, _ in node.value if isinstance(node, MappingNode) else ():
        if not isinstance(key, ScalarNode):
            raise _refused(key, "a key is a list or a mapping; keys are text")
        if key.value in seen:
            raise _refused(key, f"{_shown(key)}: stands here a second time; keep one")
        seen.add(key.value)
        if key.tag != MERGE:
            key.tag = TEXT  # the word `on`, not true
    for part in _parts(node):
        _check_keys(part)


def _refused(node: Node, reason: str) -> NotPlain:
    return NotPlain(reason, node.start_mark.line + 1)


def _shown(node: Node) -> str:
    text = printable((node.value or "nothing") if isinstance(node, ScalarNode) else "this")
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."
