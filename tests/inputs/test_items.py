"""Which pictures a job has. No model is loaded and no picture decoded here."""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from sdcorrect.config import load_job
from sdcorrect.errors import UsageError
from sdcorrect.inputs.items import Item

Find = Callable[..., list[Item]]


def keys(items: list[Item]) -> list[str]:
    return [item.key for item in items]


def test_a_folder_is_mirrored_without_hidden_files(find: Find, tree: Path) -> None:
    items = find(tree)
    assert keys(items) == ["n01440764/a.JPEG", "n02085620/b.jpg", "n02085620/deep/c.webp", "root.png"]
    assert [str(item.output) for item in items][0::2] == ["n01440764/a.png", "n02085620/deep/c.png"]
    assert all(item.source == tree / item.key for item in items)
    assert keys(find(tree, input__recursive=False)) == ["root.png"]


def test_names_do_not_depend_on_the_limit(find: Find, tree: Path) -> None:
    (tree / "root.jpg").touch()
    limited = find(tree, limit=4)
    assert limited == find(tree)[:4]
    assert limited[-1].output == Path("root.jpg.png")


def test_a_single_file(find: Find, tree: Path) -> None:
    (item,) = find(tree / "n02085620" / "b.jpg")
    assert (item.key, str(item.output)) == ("b.jpg", "b.png")


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*.png", ["root.png"]),
        ("**/*.jpg", ["n02085620/b.jpg"]),
        ("n0*/?.*", ["n01440764/a.JPEG", "n02085620/b.jpg"]),
        ("**/[bc].*", ["n02085620/b.jpg", "n02085620/deep/c.webp"]),
        ("n02085620/**", ["b.jpg", "deep/c.webp"]),
    ],
)
def test_glob_patterns(find: Find, tree: Path, pattern: str, expected: list[str]) -> None:
    assert keys(find(tree / pattern)) == expected


def test_a_folder_that_looks_like_a_pattern_is_taken_literally(find: Find, tree: Path) -> None:
    (tree / "n02085620").rename(tree / "[n]*")
    assert keys(find(tree / "[n]*")) == ["b.jpg", "deep/c.webp"]
    assert keys(find(tree / "[n]*" / "*.jpg")) == ["b.jpg"]


def test_links_are_followed_and_loops_are_named(
    find: Find, tree: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "far.png").touch()
    (elsewhere / "back").symlink_to(tree)
    (elsewhere / "again").symlink_to(elsewhere)
    (tree / "link").symlink_to(elsewhere)
    (tree / "n02085620" / "loop").symlink_to(tree)
    (tree / "self.png").symlink_to("self.png")
    assert keys(find(tree))[0::3] == ["link/far.png", "n02085620/deep/c.webp"]
    assert len(find(tree)) == 6
    assert "loop leads back to" in caplog.text and "link/back leads back to" in caplog.text
    assert "link/again leads back to" in caplog.text


def test_the_output_folder_is_not_an_input(find: Find, tree: Path) -> None:
    (tree / "out" / "correct").mkdir(parents=True)
    (tree / "out" / "correct" / "root.png").touch()
    assert len(find(tree, output__path=str(tree / "out"))) == 4
    with pytest.raises(UsageError, match="is also the output folder"):
        find(tree, output__path=str(tree))
    with pytest.raises(UsageError, match="contains outputs of this job"):
        find(tree / "out" / "correct" / "root.png", output__path=str(tree / "out"))


def test_a_link_may_not_lead_out_of_the_output_folder(find: Find, tree: Path, tmp_path: Path) -> None:
    (tmp_path / "out" / "correct").mkdir(parents=True)
    (tmp_path / "out" / "correct" / "n01440764").symlink_to("/")
    with pytest.raises(UsageError, match="n01440764: a link leads out of the output folder"):
        find(tree)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nothing", "there is no such folder or file; give a folder of pictures"),
        ("rot.png", "there is no such folder or file; did you mean root.png?"),
        ("*.tif", "it has no files"),
        ("*.md", "none of its 1 files is a picture"),
    ],
)
def test_nothing_to_do_is_said(find: Find, tree: Path, name: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        find(tree / name)


def test_a_folder_too_deep_to_list_is_named(find: Find, tree: Path, tmp_path: Path) -> None:
    descriptor = os.open(tree, os.O_RDONLY)
    for _ in range(17):  # longer than the path that the system takes
        os.mkdir("d" * 250, dir_fd=descriptor)
        descriptor, above = os.open("d" * 250, os.O_RDONLY, dir_fd=descriptor), descriptor
        os.close(above)
    os.close(descriptor)
    with pytest.raises(UsageError, match="d: cannot be listed: File name too long"):
        find(tree)


ODD = [
    "a b.png",
    "quote'\".png",
    "new\nline.png",
    "\x1b[31mred.png",
    "\udcff.png",
    "-rf.png",
    "ü" * 125 + ".webp",
]


def test_odd_names_are_kept_to_the_byte(find: Find, tmp_path: Path) -> None:
    folder = tmp_path / "odd"
    folder.mkdir()
    for name in ODD:
        (folder / name).touch()
    items = find(folder)
    assert set(keys(items)) == set(ODD)
    assert all(item.source.exists() for item in items)
    assert json.loads(json.dumps(keys(items))) == keys(items)


def test_a_hundred_thousand_files_would_take_seconds(find: Find, tmp_path: Path) -> None:
    for number in range(4000):
        folder = tmp_path / "many" / f"{number // 1000}"
        if number % 1000 == 0:
            folder.mkdir(parents=True)
        (folder / f"{number}.png").touch()
    began = time.process_time()
    assert len(find(tmp_path / "many")) == 4000
    assert time.process_time() - began < 2  # 0.1 where nothing else runs


def test_a_list_of_paths(find: Find, tree: Path) -> None:
    absolute = str(tree / "n02085620" / "b.jpg")
    (tree / "list.txt").write_text(
        "\n".join(["\ufeffn01440764/a.JPEG", "", absolute, "/x/y.png", "../z.png\r"])
    )
    items = find(tree / "list.txt")
    assert keys(items) == ["n01440764/a.JPEG", "n02085620/b.jpg", "/x/y.png", "../z.png"]
    outputs = [str(item.output) for item in items]
    assert outputs == ["n01440764/a.png", "n02085620/b.png", "x/y.png", "z.png"]
    assert items[1].source == items[1].source.parent / "b.jpg" and items[1].source.exists()


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_a_list_with_columns(find: Find, tree: Path, suffix: str) -> None:
    rows = [
        {"path": "root.png", "prompt": "a {stem}, drawn", "negative_prompt": "blur", "seed": 7},
        {"path": "root.png", "seed": 8},
        {"path": "n01440764/a.JPEG", "output": "fish/one.png"},
        {"path": "n02085620/b.jpg", "output": "fish/two"},
    ]
    file = tree / f"list.{suffix}"
    if suffix == "jsonl":
        file.write_text("\n".join(map(json.dumps, rows)))
    else:
        columns = ("path", "prompt", "negative_prompt", "seed", "output")
        cells = [",".join(f'"{row.get(column, "")}"' for column in columns) for row in rows]
        file.write_text("\n".join([",".join(columns), *cells]))
    first, again, third, fourth = find(file, negative_prompt="noise")
    assert (first.prompt, first.negative_prompt, first.seed) == ("a root, drawn", "blur", 7)
    assert (again.prompt, again.negative_prompt, again.seed) == ("in oil", "noise", 8)
    assert [first.key, again.key] == ["root.png", "root.png#2"]
    assert [str(item.output) for item in (first, again)] == ["root.png", "root.png#2.png"]
    assert [str(item.output) for item in (third, fourth)] == ["fish/one.png", "fish/two.png"]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("l.txt", "", "the list is empty"),
        ("l.txt", "a/..", "l.txt:1: path: does not name a file"),
        ("l.csv", "path,promt\na.png,x\n", "l.csv:2: unknown column 'promt'; did you mean prompt"),
        ("l.csv", "path,zz\na.png,b\n", "l.csv:2: unknown column 'zz'; known: path, prompt"),
        ("l.csv", "prompt\nx\n", "l.csv:2: the column 'path' is missing"),
        ("l.csv", "path\na.png,b\n", "l.csv:2: unknown column '(too many cells)'"),
        ("l.csv", 'path\n"a.png\n', "not CSV"),
        ("l.csv", "path,seed\na.png,x\n", "l.csv:2: seed: should be a valid integer"),
        ("l.csv", "path,prompt\na.png,{x}\n", "l.csv:2: prompt: there is no placeholder {x}"),
        ("l.csv", "path,output\na.png,../b\n", "l.csv:2: output: leaves the output folder"),
        ("l.csv", "path,output\na.png,/b\n", "l.csv:2: output: leaves the output folder"),
        ("l.csv", "path,output\na.png,b.jpg\n", "output b.jpg: the job writes png"),
        ("l.csv", "path,output\na.png,x\nb.png,x\n", "give each picture its own"),
        ("l.jsonl", '\n{"path": "a.png"', "l.jsonl:2: not JSON"),
        ("l.jsonl", '["a.png"]', "l.jsonl:1: "),
        ("l.jsonl", '{"path": "a\\u0000.png"}', "path: does not name a file"),
        ("l.jsonl", '{"path": "\\ud800.png"}', "path: contains characters that file names cannot have"),
    ],
)
def test_what_is_wrong_with_a_list_is_named(
    find: Find, tmp_path: Path, name: str, text: str, message: str
) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(UsageError) as error:
        find(tmp_path / name)
    assert message in str(error.value)


def test_captions_beside_the_pictures(find: Find, tree: Path) -> None:
    (tree / "root.txt").write_text("a {red}\n house ", encoding="utf-8-sig")
    (tree / "n01440764" / "a.txt").write_bytes(b"\xff")
    items = {item.key: item for item in find(tree, prompt="{caption}, in oil {{}}")}
    assert items["root.png"].prompt == "a {red} house, in oil {}"
    assert items["root.png"].problem is None
    assert items["n01440764/a.JPEG"].problem == "its caption a.txt is not UTF-8 text"
    problem = items["n02085620/b.jpg"].problem
    assert problem == "the prompt needs a {caption}, but there is none beside it, in b.txt"


def test_coco_captions(find: Find, tree: Path, tmp_path: Path) -> None:
    coco = {
        "info": {},
        "images": [{"id": 1, "file_name": "b.jpg"}, {"id": 2, "file_name": "n01440764/a.JPEG"}],
        "annotations": [
            {"id": 9, "image_id": 2, "caption": "A fish."},
            {"id": 1, "image_id": 1, "caption": "A dog\nruns."},
            {"id": 2, "image_id": 1, "caption": "Another."},
        ],
    }
    file = tmp_path / "captions.json"
    file.write_text(json.dumps(coco))
    items = find(tree, prompt="{caption}", input__captions=str(file))
    assert [item.prompt for item in items][:2] == ["A fish.", "A dog runs."]
    assert items[3].problem and "none in" in items[3].problem
    file.write_text('{"images": [{"id": 1}], "annotations": []}')
    with pytest.raises(UsageError, match="not COCO captions: images.0.file_name: Field required"):
        find(tree, prompt="{caption}", input__captions=str(file))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("synsets.txt", "n01440764 tench, Tinca tinca\nn02085620 Chihuahua\n"),
        ("synsets.csv", 'synset,name\nn01440764,"tench, Tinca tinca"\nn02085620,Chihuahua\n'),
        ("synsets.json", '{"n01440764": ["tench", "Tinca tinca"], "n02085620": "Chihuahua"}'),
        ("synsets.yaml", "n01440764: tench, Tinca tinca\nn02085620: Chihuahua\n"),
    ],
)
def test_class_names(find: Find, tree: Path, tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    items = find(tree, prompt="a {class}", input__classes=str(tmp_path / name))
    assert [item.prompt for item in items][:2] == ["a tench", "a Chihuahua"]
    assert items[2].problem and items[2].problem.startswith("its folder deep has no name for {class}")
    assert find(tree, prompt="a {class}")[0].prompt == "a n01440764"


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("c.txt", "n01440764\n", "c.txt:1: expected folder and name"),
        ("c.txt", "", "no class names"),
        ("c.json", "[1]", "no class names"),
        ("c.json", "{", "cannot read the class names"),
        ("c.yaml", "a: {b: c}", "the name of a should be text"),
    ],
)
def test_what_is_wrong_with_class_names_is_told(
    find: Find, tree: Path, tmp_path: Path, name: str, text: str, message: str
) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(UsageError) as error:
        find(tree, prompt="a {class}", input__classes=str(tmp_path / name))
    assert message in str(error.value)


def test_a_stem_that_is_no_text_fails_only_where_it_is_asked_for(find: Find, tmp_path: Path) -> None:
    folder = tmp_path / "odd"
    folder.mkdir()
    (folder / "\udcff.png").touch()
    assert find(folder)[0].problem is None
    problem = find(folder, prompt="a {stem}")[0].problem
    assert problem == "its prompt a \\udcff contains bytes that are not UTF-8 text"


@pytest.mark.parametrize(
    "prompt", ["{Class}", "{stem!r}", "{stem:>9}", "{stem.x}", "{}", "{0}", "a { b"]
)
def test_unknown_placeholders_are_refused_before_anything_is_read(prompt: str) -> None:
    with pytest.raises(UsageError, match="prompts can contain {caption}, {class}, {stem}"):
        load_job(None, {"input.path": "x", "output.path": "y", "prompt": prompt})


def test_captions_and_classes_are_relative_to_the_job(tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text(
        "input: {path: '*.png', captions: c.json, classes: s.txt}\noutput: {path: o}\nprompt: x\n"
    )
    settings = load_job(tmp_path / "job.yaml", {}).input
    assert (settings.captions, settings.classes) == (tmp_path / "c.json", tmp_path / "s.txt")
    assert settings.path == tmp_path / "*.png"
