"""Read settings from YAML: plain values only, with no code, no surprises and no explosion.

YAML 1.1 reads `010` as 8, `1:30` as 90 and `2001-01-01` as a date, and a few lines of aliases can
stand for more values than fit in memory.
"""

import re
from collections.abc import Callable, Hashable
from typing import Any

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from sdcorrect.errors import one_line, printable, shortened

TEXT, MERGE = "tag:yaml.org,2002:str", "tag:yaml.org,2002:merge"
MOST_BYTES = 1 << 21  #: in a file; the parser needs seconds for this many
MOST_LEVELS = 100  #: of nested lists and mappings
MOST_REPEATED = 10_000  #: values that aliases may add to those written out
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
    """A fault in a YAML document, and its line, from 1."""

    def __init__(self, reason: str, line: int) -> None:
        super().__init__(reason)
        self.line = line


def read_yaml(text: str, *, typed: bool = True) -> tuple[Any, Node | None]:
    """The value of a YAML document, and its nodes, which know the position of each part.

    Args:
        typed: whether to convert numbers, booleans and nulls; otherwise every value is text, as written.

    Raises:
        NotPlain: it is not YAML, a key is repeated, or a value is of a kind that no setting has.
    """
    try:
        loader = (_Typed if typed else _Texts)(text)
        node = loader.get_single_node()
        if node is None:
            return None, None
        sizes: dict[Node, int] = {}
        if _size(node, sizes) - len(sizes) > MOST_REPEATED:
            raise _refused(node, "aliases repeat too many values; write the values out")
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
    peek_event: Callable[[], Any]  # a method of the parser, which loaders also inherit

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
            raise _refused(node, f"YAML reads {_shown(node)} as {NO_SETTINGS[kind]}; put text in quotes")
        try:
            value: Hashable = super().construct_object(node, deep)
        except (NotPlain, yaml.YAMLError):
            raise
        # on a value that does not fit its tag, the constructors raise all kinds of exceptions
        except Exception:
            raise _refused(node, f"{_shown(node)} is not a valid {kind}") from None
        return value

    def construct_yaml_str(self, node: ScalarNode) -> str:
        value: str = super().construct_yaml_str(node)
        if NO_TEXT.search(value):
            raise _refused(
                node, f"{_shown(node)} contains characters that text and file names cannot have"
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
                node, f"YAML reads {_shown(node)} as {base}, {value}; write a decimal, or quotes"
            )
        if abs(value) >= LARGEST:
            raise _refused(node, f"{_shown(node)} is larger than any setting")
        return value

    def construct_yaml_float(self, node: ScalarNode) -> float:
        value: float = super().construct_yaml_float(node)
        if ":" in node.value:
            raise _refused(node, f"YAML reads {_shown(node)} as base 60, {value:g}; write a decimal")
        if not abs(value) < LARGEST:
            raise _refused(node, f"{_shown(node)} is not a finite number in the range of a setting")
        return value


_Typed.add_constructor(TEXT, _Typed.construct_yaml_str)
_Typed.add_constructor("tag:yaml.org,2002:int", _Typed.construct_yaml_int)
_Typed.add_constructor("tag:yaml.org,2002:float", _Typed.construct_yaml_float)
# 1e-4, which YAML 1.1 reads as text
_Typed.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)[eE][-+]?[0-9]+"),
    list("-+.0123456789"),
)


def _size(node: Node, sizes: dict[Node, int]) -> int:
    """The number of values in `node` with aliases expanded; `sizes` caches those of its parts."""
    if node in sizes:
        if not sizes[node]:
            raise _refused(node, "contains itself through an alias")
        return sizes[node]
    sizes[node] = 0
    sizes[node] = 1 + sum(_size(part, sizes) for part in _parts(node))
    return sizes[node]


def _parts(node: Node) -> list[Node]:
    if isinstance(node, MappingNode):
        return [part for pair in node.value for part in pair]
    return list(node.value) if isinstance(node, SequenceNode) else []


def _check_keys(node: Node) -> None:
    """Check that keys are text and unique: of two equal keys, YAML silently keeps the last."""
    seen = set()
    for key, _ in node.value if isinstance(node, MappingNode) else ():
        if not isinstance(key, ScalarNode):
            raise _refused(key, "a key is a list or a mapping; keys are text")
        if key.value in seen:
            raise _refused(key, f"{_shown(key)}: this key is repeated; keep one")
        seen.add(key.value)
        if key.tag != MERGE:
            key.tag = TEXT  # so that the key `on` is not read as true
    for part in _parts(node):
        _check_keys(part)


def _refused(node: Node, reason: str) -> NotPlain:
    return NotPlain(reason, node.start_mark.line + 1)


def _shown(node: Node) -> str:
    text = (node.value or "nothing") if isinstance(node, ScalarNode) else "this"
    return shortened(printable(text), LONGEST)
