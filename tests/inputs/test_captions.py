"""COCO captions and class names against the paths that pictures have here."""

import json
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sdcorrect.errors import UsageError
from sdcorrect.inputs.items import Item

Find = Callable[..., list[Item]]


def coco(file: Path, captions: dict[str, str], ids: Callable[[int], Any] = int) -> Path:
    """A COCO file that has a caption for each `file_name`; the annotations' ids are made by `ids`."""
    images = [{"id": n, "file_name": name} for n, name in enumerate(captions)]
    annotations = [{"image_id": ids(n), "caption": text} for n, text in enumerate(captions.values())]
    file.write_text(json.dumps({"images": images, "annotations": annotations}))
    return file


@pytest.fixture
def captioned(find: Find, tmp_path: Path) -> Callable[..., dict[str, str | None]]:
    """Each picture's caption, or what is wrong with it."""

    def captioned(pictures: list[str], captions: Path, place: str = "in") -> dict[str, str | None]:
        for name in pictures:
            (tmp_path / "set" / place / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "set" / place / name).touch()
        items = find(tmp_path / "set" / place, prompt="{caption}", input__captions=str(captions))
        return {item.key: item.problem or item.prompt for item in items}

    return captioned


Captioned = Callable[..., dict[str, str | None]]


def test_the_tag_of_a_lora_is_no_word_if_the_job_has_it_and_fails_its_picture_if_not(
    find: Find, tmp_path: Path
) -> None:
    captions = {
        "has.png": "a castle <lora:ink:0.8>",
        "only.png": "<lora:ink>",
        "oil.png": "b <lora:oil:1>",
    }
    for name in captions:
        (tmp_path / name).touch()
    template = "in ink style, {caption}"
    for beside in (False, True):
        for name, words in captions.items() if beside else ():
            (tmp_path / name).with_suffix(".txt").write_text(words)
        settings = {} if beside else {"input__captions": str(coco(tmp_path / "c.json", captions))}
        items = find(tmp_path, prompt=template, loras=[{"path": "ink.safetensors"}], **settings)
        told = {item.key: item.problem or item.prompt for item in items}
        assert told["has.png"] == "in ink style, a castle"
        assert "needs a {caption}, but there is none" in str(told["only.png"])
        assert "`loras: [{path: oil.safetensors, weight: 1}]`" in str(told["oil.png"])


@pytest.mark.parametrize("forms", [("NFC", "NFD"), ("NFD", "NFC"), ("NFD", "NFD")])
def test_names_in_either_unicode_form_are_one(
    captioned: Captioned, tmp_path: Path, forms: tuple[str, str]
) -> None:
    there, here = (unicodedata.normalize(form, "ün/é.png") for form in forms)
    assert captioned([here], coco(tmp_path / "c.json", {there: "a word"})) == {here: "a word"}


@pytest.mark.parametrize("ids", [int, str])
def test_ids_may_be_text_or_numbers(captioned: Captioned, tmp_path: Path, ids: Any) -> None:
    captions = coco(tmp_path / "c.json", {"a.png": "one", "b.png": "two"}, ids)
    assert captioned(["a.png", "b.png"], captions) == {"a.png": "one", "b.png": "two"}


def test_folders_before_names_on_either_side_are_no_matter(captioned: Captioned, tmp_path: Path) -> None:
    captions = {"val2017/a.png": "one", "b.png": "two", "set/in/sub/c.png": "three", "./d.png": "four"}
    pictures = ["a.png", "deep/b.png", "sub/c.png", "d.png"]
    got = captioned(pictures, coco(tmp_path / "c.json", captions))
    assert got == dict(zip(sorted(pictures), ["one", "four", "two", "three"], strict=True))


def test_of_one_name_in_several_folders_the_folder_decides(captioned: Captioned, tmp_path: Path) -> None:
    captions = {"x/1.png": "of x", "y/1.png": "of y", "1.png": "of none", "in/z/1.png": "of z"}
    got = captioned(["x/1.png", "y/1.png", "z/1.png", "1.png"], coco(tmp_path / "c.json", captions))
    assert got["x/1.png"] == "of x" and got["y/1.png"] == "of y" and got["z/1.png"] == "of z"
    both = coco(tmp_path / "c.json", {"x/1.png": "of x", "y/1.png": "of y"})
    got = captioned(["x/1.png", "w/1.png", "1.png"], both)
    assert got["x/1.png"] == "of x"
    assert "there is none in" in str(got["w/1.png"])  # another folder's is another picture's
    assert got["1.png"] == "several captions match its name: x/1.png, y/1.png"


def test_the_input_folder_itself_may_be_what_decides(captioned: Captioned, tmp_path: Path) -> None:
    captions = coco(tmp_path / "c.json", {"val/1.png": "of val", "train/1.png": "of train"})
    assert captioned(["1.png"], captions, place="val") == {"1.png": "of val"}
    assert captioned(["1.png"], captions, place="train") == {"1.png": "of train"}


def test_two_captions_of_one_file_are_refused(captioned: Captioned, tmp_path: Path) -> None:
    content = {
        "images": [{"id": 1, "file_name": "a.png"}, {"id": 2, "file_name": "a.png"}],
        "annotations": [{"image_id": 1, "caption": "one"}, {"image_id": 2, "caption": "two"}],
    }
    (tmp_path / "c.json").write_text(json.dumps(content))
    with pytest.raises(UsageError, match=r"c\.json: a\.png is listed twice, with different captions"):
        captioned(["a.png"], tmp_path / "c.json")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 200_000, "not COCO captions: lists and objects are nested too deeply"),
        ("{", "not COCO captions: not JSON"),
        ('{"images": [], "images": [], "annotations": []}', "the key 'images' is there twice"),
        ('{"images": [{"id": 1}], "annotations": []}', "images.0.file_name: Field required"),
    ],
)
def test_what_is_no_coco_file_is_named(
    captioned: Captioned, tmp_path: Path, text: str, message: str
) -> None:
    (tmp_path / "c.json").write_text(text)
    with pytest.raises(UsageError) as error:
        captioned(["a.png"], tmp_path / "c.json")
    assert message in str(error.value)


def test_folders_of_classes_in_either_unicode_form(find: Find, tmp_path: Path) -> None:
    for form in ("NFC", "NFD"):
        folder = tmp_path / form / unicodedata.normalize(form, "é")
        folder.mkdir(parents=True)
        (folder / "a.png").touch()
        (tmp_path / "classes.txt").write_text("e\u0301 accent\n")
        (item,) = find(tmp_path / form, prompt="{class}", input__classes=str(tmp_path / "classes.txt"))
        assert item.prompt == "accent"


def test_a_caption_as_windows_saves_it_and_one_that_never_ends(find: Find, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("a", "b"):
        (folder / f"{name}.png").touch()
    (folder / "a.txt").write_text("größer", encoding="utf-16")
    (folder / "b.txt").symlink_to("/dev/zero")
    first, second = find(folder, prompt="{caption}")
    assert first.prompt == "größer"
    assert second.problem and second.problem.startswith(
        "its caption b.txt cannot be read: it is not a file"
    )
