"""YAML that settings are never written in, and that other parsers run into the ground on."""

import time
from typing import Any

import pytest

from sdcorrect.plainyaml import NotPlain, read_yaml


def bomb(layers: int, merged: bool = False) -> str:
    """Nine to the power of `layers` values in as many lines."""
    lines = ["a0: &a0 {x: 1}"]
    for n in range(1, layers):
        again = ", ".join([f"*a{n - 1}"] * 9)
        lines.append(f"a{n}: &a{n} {{<<: [{again}]}}" if merged else f"a{n}: &a{n} [{again}]")
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (bomb(12), "aliases repeat too many"),
        (bomb(12, merged=True), "aliases repeat too many"),
        ("a: " + "[" * 200_000, "100 levels deep"),
        ("a: " + "[" * 200_000 + "]" * 200_000, "100 levels deep"),
        ("a: " + "{a: " * 200_000, "100 levels deep"),
        ("- " * 200_000, "100 levels deep"),
        ("? " * 200_000, "100 levels deep"),
        ("\n".join(" " * n + "a:" for n in range(3000)), "100 levels deep"),
        ("a: &a [*a]", "contains itself"),
        ("a: &a {b: {c: *a}}", "contains itself"),
    ],
)
@pytest.mark.parametrize("typed", [True, False])
def test_what_would_never_end_is_refused_at_once(text: str, reason: str, typed: bool) -> None:
    began = time.process_time()
    with pytest.raises(NotPlain, match=reason):
        read_yaml(text, typed=typed)
    assert time.process_time() - began < 2  # 0.4 where nothing else runs


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("!!int abc", "abc is not a valid int"),
        ("!!int ''", "nothing is not a valid int"),
        ("!!float abc", "abc is not a valid float"),
        ("!!bool abc", "abc is not a valid bool"),
        ("!!map abc", "not YAML: expected a mapping"),
        ("!!timestamp abc", " as a date; put text in quotes"),
        ("!!binary '*'", " as bytes; put text in quotes"),
        ("!!set {a}", " as a set; put text in quotes"),
        ("!!python/object/apply:os.getcwd []", "not YAML: could not determine a constructor"),
        ("!mine 1", "not YAML: could not determine a constructor"),
        ("2001-99-99", " as a date; put text in quotes"),
        ("2001-01-01", " as a date; put text in quotes"),
        ("9" * 5000, "999... is larger than any setting"),
        ("9" * 30, "999 is larger than any setting"),
        ("0x" + "f" * 9000, "fff... is larger than any setting"),
        ("1e400", "1e400 is not a finite number"),
        (".inf", r"\.inf is not a finite number"),
        ("-.inf", r"\.inf is not a finite number"),
        (".nan", r"\.nan is not a finite number"),
        ("010", "YAML reads 010 as octal, 8; write a decimal"),
        ("-0_7", "YAML reads -0_7 as octal, -7"),
        ("1:30", "YAML reads 1:30 as base 60, 90"),
        ("1:30.5", "YAML reads 1:30.5 as base 60, 90.5"),
        ('"\\ud800"', "contains characters that text and file names cannot have"),
        ('"a\\0"', "contains characters that text and file names cannot have"),
        ("\x07", "not YAML: special characters"),
        ("*nothing", "not YAML: found undefined alias"),
        ("{[a]: 1}", "a key is a list or a mapping"),
        ("{a: 1, a: 2}", "a: this key is repeated"),
        ("{<<: 7}", "not YAML: expected a mapping or list of mappings"),
        ("=", "not YAML: could not determine a constructor"),
    ],
)
def test_values_that_settings_do_not_have_are_told_with_their_line(value: str, reason: str) -> None:
    with pytest.raises(NotPlain, match=reason) as error:
        read_yaml(f"first: 1\nseed: {value}\n")
    assert error.value.line == 2
    assert len(str(error.value)) < 200


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", None),
        ("a: &a [1, 2]\nb: *a", {"a": [1, 2], "b": [1, 2]}),
        ("a: &a {x: 1}\nb: {<<: *a, y: 2}", {"a": {"x": 1}, "b": {"x": 1, "y": 2}}),
        ("a: 1e-4", {"a": 1e-4}),
        ("a: [0, -3, 0x1F, 1_000, 1.5, .5, yes, ~]", {"a": [0, -3, 31, 1000, 1.5, 0.5, True, None]}),
        ("{on: 1, 1: 2, true: 3, 2001-01-01: 4}", {"on": 1, "1": 2, "true": 3, "2001-01-01": 4}),
    ],
)
def test_plain_values_are_as_written(text: str, value: Any) -> None:
    assert read_yaml(text)[0] == value


def test_without_types_all_is_text() -> None:
    text = "001: no\nno: 2001-01-01\n010: 1e400"
    assert read_yaml(text, typed=False)[0] == {"001": "no", "no": "2001-01-01", "010": "1e400"}
