import os
import unicodedata
from pathlib import PurePosixPath

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sdcorrect.errors import UsageError
from sdcorrect.inputs.names import SUFFIXES, output_names

#: Few stems and many suffixes, so that names collide in every way: by stem, by suffix, by letter case,
#: by Unicode form, with folders, and with what a collision makes of another name.
PARTS = st.builds(
    "{}{}".format,
    st.sampled_from(["a", "A", "b", "é", "e\u0301", "..", "a b\n", "'\"$", "\udcff", "x" * 247]),
    st.sampled_from(["", ".jpg", ".JPG", ".png", ".jpg.png", ".png.png", ".tif", "-0.png"]),
)
KEYS = (
    st.lists(PARTS, min_size=1, max_size=3)
    .map("/".join)
    .filter(lambda key: PurePosixPath(key).name != "..")
)


def one_file(path: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", path).casefold())


@given(st.sets(KEYS | KEYS.map(lambda key: f"/{key}"), max_size=30), st.sampled_from(["png", "webp"]))
@example({"a.jpg", "a.png", "a.jpg.png", "a.jpg.png.png"}, "png")
@example({"a.jpg", "a.png/b.jpg"}, "png")
@example({"A.jpg", "a.jpg"}, "png")
def test_no_two_pictures_share_a_file_and_none_leaves_the_folder(keys: set[str], suffix: str) -> None:
    outputs = output_names(keys, suffix)
    assert outputs.keys() == keys
    files = {one_file(output) for output in outputs.values()}
    assert len(files) == len(keys)
    folders = {
        one_file(str(folder)) for name in outputs.values() for folder in PurePosixPath(name).parents
    }
    assert not files & folders
    for output in outputs.values():
        path = PurePosixPath(output)
        assert path.suffix == f".{suffix}"
        assert not path.is_absolute() and ".." not in path.parts
        assert len(os.fsencode(path.name)) <= 255


@given(st.sets(KEYS, min_size=1, max_size=20), KEYS)
def test_a_new_picture_renames_only_those_it_collides_with(keys: set[str], new: str) -> None:
    before = output_names(keys - {new}, "png")
    after = output_names(keys | {new}, "png")
    assert output_names(sorted(keys, reverse=True), "png") == output_names(keys, "png")
    renamed = {key for key in before if before[key] != after[key]}
    alone = [one_file(before[key]) for key in renamed]
    rivals = {one_file(name) for key in {new} | renamed for name in every_name(key)}
    assert set(alone) <= rivals | folders_of(new)


def every_name(key: str) -> list[str]:
    path = "/".join(part for part in key.split("/") if part != "..")
    stem, suffix = os.path.splitext(path)
    return [f"{stem if suffix.lower() in SUFFIXES else path}.png", f"{path}.png"]


def folders_of(key: str) -> set[str]:
    path = PurePosixPath("/".join(part for part in key.split("/") if part != ".."))
    return {one_file(str(folder)) for folder in path.parents}


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        (["sub/a.jpg", "sub/b.PNG"], ["sub/a.png", "sub/b.png"]),
        (["a.jpg", "a.png", "b.jpg"], ["a.jpg.png", "a.png.png", "b.png"]),
        (["a.jpg", "a.png", "a.png.png"], ["a.jpg.png", "a.png-cde96490691c.png", "a.png.png.png"]),
        (["v1.0", "v1.1"], ["v1.0.png", "v1.1.png"]),
        (["../x/a.jpg", "/data/a.jpg"], ["x/a.png", "data/a.png"]),
        (["a.jpg", "a.jpg#2"], ["a.png", "a.jpg#2.png"]),
    ],
)
def test_names_stay_readable(keys: list[str], expected: list[str]) -> None:
    outputs = output_names(keys, "png")
    assert [outputs[key] for key in keys] == expected


def test_given_outputs_stay_and_others_make_way() -> None:
    outputs = output_names(["a.jpg", "b.jpg"], "png", {"b.jpg": "a.png"})
    assert outputs == {"a.jpg": "a.jpg.png", "b.jpg": "a.png"}


@pytest.mark.parametrize("second", ["same.png", "SAME.png", "same.png/b.png"])
def test_given_outputs_that_collide_are_refused(second: str) -> None:
    with pytest.raises(UsageError, match="give each picture its own"):
        output_names(["a.jpg", "b.jpg"], "png", {"a.jpg": "same.png", "b.jpg": second})
