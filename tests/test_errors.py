"""How messages are put into words."""

import pytest

from sdcorrect.errors import counted, did_you_mean, one_line


def test_the_nearest_name_is_told_else_what_there_is() -> None:
    assert did_you_mean("stpes", ["steps", "seed"]) == "did you mean steps?"
    assert did_you_mean("frobnicate", ["steps", "seed"]) == "known: steps, seed"
    assert did_you_mean(0, ["steps"], "see the manual") == "see the manual"


def test_one_is_counted_as_one() -> None:
    assert [counted(count, "picture") for count in (0, 1, 2)] == [
        "0 pictures",
        "1 picture",
        "2 pictures",
    ]
    assert (counted(1, "batch", "batches"), counted(2, "batch", "batches")) == ("1 batch", "2 batches")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("one\n  two\r\n\tthree ", "one two three"),
        (ValueError("bad\nvalue"), "bad value"),
        ("", ""),
        ("x" * 200, "x" * 200),
        ("x" * 201, "x" * 197 + "..."),
    ],
)
def test_a_librarys_message_becomes_one_line_that_says_where_it_is_cut(text: object, line: str) -> None:
    assert one_line(text) == line
    assert one_line("x" * 300, None) == "x" * 300
