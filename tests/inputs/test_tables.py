"""Lists and tables of class names, as spreadsheets and other programs write them."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from sdcorrect.errors import UsageError
from sdcorrect.inputs.items import Item

Find = Callable[..., list[Item]]


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le-mark", "utf-32"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_a_list_in_every_dialect(
    find: Find, tmp_path: Path, delimiter: str, encoding: str, newline: str
) -> None:
    rows = [
        ["path", "prompt", " seed", "output", ""],
        ["a.png", '"größer, schöner; mehr"', "7", "", ""],
        ["", "", "", "", ""],
        ["b.png", "in oil", "", "x/y", ""],
    ]
    text = newline.join(delimiter.join(row) for row in rows)
    file = tmp_path / "list.csv"
    if encoding == "utf-16-le-mark":
        file.write_bytes(b"\xff\xfe" + text.encode("utf-16-le"))
    else:
        file.write_bytes(text.encode(encoding))
    first, second = find(file)
    assert (first.key, first.prompt, first.seed) == ("a.png", "größer, schöner; mehr", 7)
    assert (second.key, second.prompt, str(second.output)) == ("b.png", "in oil", "x/y.png")


def test_a_list_of_paths_in_utf_16(find: Find, tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("größe.png\nb.png\n", encoding="utf-16")
    assert [item.key for item in find(tmp_path / "list.txt")] == ["größe.png", "b.png"]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("l.csv", "path,prompt,path\na,b,c\n", "l.csv:1: the column 'path' is there twice"),
        ("l.csv", "path;prompt; prompt\na;b;c\n", "l.csv:1: the column 'prompt' is there twice"),
        ("l.csv", "path\tpromt\na.png\tx\n", "l.csv:2: unknown column 'promt'; did you mean"),
        ("l.csv", "path;seed\na.png;1;2\n", "l.csv:2: unknown column '(too many cells)'"),
        ("l.csv", "path|prompt\na.png|x\n", "l.csv:2: the column 'path' is missing"),
        (
            "l.jsonl",
            '{"path": "a.png", "path": "b.png"}',
            "l.jsonl:1: the key 'path' is there twice",
        ),
        ("l.jsonl", '{"path": "a.png", "seed": true}', "l.jsonl:1: seed: should be a valid integer"),
        ("l.jsonl", '{"path": "a.png", "seed": "7"}', "l.jsonl:1: seed: should be a valid integer"),
        ("l.jsonl", '{"path": "a.png", "seed": 7.0}', "l.jsonl:1: seed: should be a valid integer"),
        ("l.jsonl", '{"path": 7}', "l.jsonl:1: path: should be a valid string"),
        ("l.jsonl", "[" * 200_000, "l.jsonl:1: lists and objects are nested too deeply"),
        ("l.csv", "path,output\na.png,~/x\n", "l.csv:2: output: is relative to the output folder"),
        ("l.csv", "path,output\na.png,$HOME/x\n", "l.csv:2: output: is relative to the output folder"),
        ("l.txt", "a\0.\0p\0", "l.txt: cannot read the list: it is not UTF-8 text: it contains NUL"),
    ],
)
def test_what_is_wrong_with_a_list_is_named(
    find: Find, tmp_path: Path, name: str, text: str, message: str
) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(UsageError) as error:
        find(tmp_path / name)
    assert message in str(error.value)


@pytest.mark.parametrize("suffix", ["txt", "csv", "jsonl"])
def test_homes_and_variables_are_filled_in_in_lists(
    find: Find, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("DATA", str(tmp_path / "data"))
    monkeypatch.delenv("GONE", raising=False)
    (tmp_path / "$RECYCLE.BIN").mkdir()
    paths = ["~/a.png", "$DATA/b.png", "${DATA}/c.png", "$RECYCLE.BIN/d.png", "$GONE/e.png"]
    file = tmp_path / f"list.{suffix}"
    match suffix:
        case "jsonl":
            file.write_text("\n".join(json.dumps({"path": path}) for path in paths))
        case "csv":
            file.write_text("\n".join(["path", *paths]))
        case _:
            file.write_text("\n".join(paths))
    items = find(file)
    # the last, whose variable is not set, fails by itself
    assert [item.key for item in items] == [
        "home/a.png",
        "data/b.png",
        "data/c.png",
        "$RECYCLE.BIN/d.png",
        "$GONE/e.png",
    ]
    assert items[0].source == tmp_path / "home" / "a.png"


@pytest.mark.parametrize(
    ("name", "text", "encoding"),
    [
        ("c.csv", 'n01440764;"tench, Tinca tinca"\nn02085620;Chihuahua\n', "utf-8"),
        ("c.csv", "n01440764;tench, Tinca tinca, a fish\nn02085620;Chihuahua\n", "utf-8"),
        ("c.csv", "n01440764\ttench\nn02085620\tChihuahua\n", "utf-16"),
        ("c.txt", "n01440764 tench, Tinca tinca\r\nn02085620 Chihuahua\r\n", "utf-16"),
        ("c.json", '{"n01440764": "tench", "n02085620": "Chihuahua"}', "utf-16"),
        ("c.yaml", "n01440764: tench\nn02085620: Chihuahua\n", "utf-8-sig"),
        ("c.txt", "n01440764 tench\nn02085620 Chihuahua\nn01440764 tench\n", "utf-8"),
    ],
)
def test_class_names_in_their_dialects(
    find: Find, tree: Path, tmp_path: Path, name: str, text: str, encoding: str
) -> None:
    (tmp_path / name).write_text(text, encoding=encoding)
    items = find(tree, prompt="a {class}", input__classes=str(tmp_path / name))
    assert [item.prompt for item in items][:2] == ["a tench", "a Chihuahua"]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("c.txt", "n1 tench\nn2 dog\nn1 cat\n", "c.txt:3: n1 is listed twice, with different names"),
        ("c.csv", "n1;tench\nn1;cat\n", "c.csv:2: n1 is listed twice, with different names"),
        ("c.json", '{"n1": "tench", "n1": "cat"}', "the key 'n1' is there twice"),
        ("c.yaml", "n1: tench\nn2: dog\nn1: cat\n", "c.yaml:3: n1: this key is repeated"),
        ("c.yaml", "n1: " + "[" * 200_000, "c.yaml:1: lists and mappings are more than 100 levels deep"),
        ("c.yaml", "n1: &a [*a]", "c.yaml:1: contains itself"),
        ("c.json", "[" * 200_000, "nested too deeply"),
    ],
)
def test_what_is_wrong_with_class_names_is_named(
    find: Find, tree: Path, tmp_path: Path, name: str, text: str, message: str
) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(UsageError) as error:
        find(tree, prompt="a {class}", input__classes=str(tmp_path / name))
    assert message in str(error.value)


def test_a_comma_in_quotes_divides_nothing(find: Find, tmp_path: Path) -> None:
    (tmp_path / "cats, dogs").mkdir()
    (tmp_path / "cats, dogs" / "a.png").touch()
    (tmp_path / "c.csv").write_text('"cats, dogs";pets\n')
    (item,) = find(tmp_path / "cats, dogs", prompt="{class}", input__classes=str(tmp_path / "c.csv"))
    assert item.prompt == "pets"


def test_names_of_bytes_that_are_no_text_are_kept_in_every_list(find: Find, tmp_path: Path) -> None:
    for start in (b"", b"\xef\xbb\xbf"):
        (tmp_path / "list.txt").write_bytes(start + b"\xff.png\n")
        assert os.fsencode(find(tmp_path / "list.txt")[0].key) == b"\xff.png"
