"""What lies among the pictures of real folders: taken by its content, or left out and told."""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from sdcorrect.errors import UsageError
from sdcorrect.inputs.items import Found

Look = Callable[..., Found]


def picture(file: Path, format: str = "JPEG") -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (16, 16), "navy").save(file, format)
    return file


def keys(found: Found) -> list[str]:
    return [item.key for item in found.items]


OTHER_SUFFIXES = {
    "a.jpe": "JPEG",
    "b.jpg!large": "JPEG",
    "c": "JPEG",
    "d.jpg?w=800": "JPEG",
    "e.jp2": "JPEG2000",
    "f.ppm": "PPM",
    "g.mpo": "JPEG",
    "h.dat": "PNG",
    "i.webp.2": "WEBP",
    "j.asp": "GIF",
    "k.gross": "TIFF",
}


def test_pictures_of_other_suffixes_are_known_by_their_content(look: Look, tmp_path: Path) -> None:
    for name, format in OTHER_SUFFIXES.items():
        picture(tmp_path / "in" / name, format)
    found = look(tmp_path / "in")
    assert keys(found) == list(OTHER_SUFFIXES)
    assert found.notices == ()
    # what they are called depends on their paths alone, as ever
    assert [str(item.output) for item in found.items][:4] == [
        "a.jpe.png",
        "b.jpg!large.png",
        "c.png",
        "d.jpg?w=800.png",
    ]


@pytest.mark.parametrize(
    "name",
    [
        "a.jpg_original",  # which exiftool leaves beside each picture
        "a.jpg~",
        "a.jpg.bak",
        "a.jpg.part",
        "a.nef",  # a TIFF whose first picture is a thumbnail
        "a.DNG",
        "a.thm",
        "a.txt",
    ],
)
def test_what_begins_like_a_picture_and_is_none_is_left_out_and_told(
    look: Look, tmp_path: Path, name: str
) -> None:
    picture(tmp_path / "in" / "a.jpg")
    picture(tmp_path / "in" / name, "TIFF" if name in ("a.nef", "a.DNG") else "JPEG")
    found = look(tmp_path / "in")
    assert keys(found) == ["a.jpg"]
    assert found.notices == (f"left out 1 non-picture file: 1 {os.path.splitext(name)[1].lower()}",)


def test_what_is_no_picture_is_counted_by_suffix(look: Look, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    picture(folder / "sub" / "a.jpg")
    for name in ("x.txt", "y.txt", "sub/z.TXT", "a.json", "Makefile", "b.json", "v.mp4", "i.\x1bodd"):
        (folder / name).write_bytes(b"no picture")
    os.mkfifo(folder / "pipe")
    (folder / "gone").symlink_to("nowhere")
    found = look(folder)
    assert keys(found) == ["sub/a.jpg"]
    (line,) = found.notices
    assert line == (
        "left out 10 non-picture files: 3 .txt, 3 without suffix, 2 .json, 1 .mp4, 1 .\\x1bodd"
    ) or line.startswith("left out 10 non-picture files: 3 ")
    assert "\x1b" not in line


def test_many_suffixes_are_one_short_line(look: Look, tmp_path: Path) -> None:
    picture(tmp_path / "in" / "a.jpg")
    for number in range(300):
        (tmp_path / "in" / f"x.{number}").touch()
    (line,) = look(tmp_path / "in").notices
    assert line.startswith("left out 300 non-picture files: 1 .")
    assert line.endswith(", 295 others")


def test_what_the_job_reads_is_not_told(look: Look, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    picture(folder / "a.jpg")
    for name, text in {"a.txt": "a cat", "other.txt": "none", "names.csv": "in,inside"}.items():
        (folder / name).write_text(text)
    told = look(folder, prompt="{caption} {class}", input__classes=str(folder / "names.csv")).notices
    assert told == ("left out 1 non-picture file: 1 .txt",)
    assert "3 non-picture files" in look(folder).notices[0]  # this job reads none of them


@pytest.mark.parametrize(
    "name",
    ["@eaDir", "#recycle", "$RECYCLE.BIN", "$Recycle.Bin", "__MACOSX", "lost+found", ".thumbnails"],
)
def test_folders_that_systems_keep_are_left_out_and_told(look: Look, tmp_path: Path, name: str) -> None:
    folder = tmp_path / "in"
    for path in ("a.jpg", "sub/b.jpg", f"{name}/a.jpg/THUMB.jpg", f"sub/{name}/old.jpg"):
        picture(folder / path)
    found = look(folder)
    assert keys(found) == ["a.jpg", "sub/b.jpg"]
    assert found.notices == (f"left out 2 hidden or system folders: 2 {name}",)
    # whoever names one wants it
    assert keys(look(folder / name)) == ["a.jpg/THUMB.jpg"]
    if "$" not in name:  # which is a variable, where no folder is there to be looked at
        assert keys(look(folder / "*" / name / "*.jpg")) == [f"sub/{name}/old.jpg"]


def test_hidden_files_are_counted(look: Look, tree: Path) -> None:
    assert look(tree).notices == (
        "left out 1 non-picture file: 1 .md",
        "left out 2 hidden files",
        "left out 1 hidden or system folder: 1 .cache",
    )
    assert look(tree / "**" / "*.jpg").notices == ("left out 1 hidden or system folder: 1 .cache",)


def test_an_earlier_output_is_left_out_and_told(
    look: Look, translate: Callable[..., object], tmp_path: Path
) -> None:
    folder = tmp_path / "in"
    picture(folder / "a.jpg")
    translate(folder, "-o", folder / "sub" / "first", "--method", "sdedit")
    (folder / "other").mkdir()
    picture(folder / "other" / "b.jpg")
    (folder / "other" / "job.json").write_text('{"name": "of another program"}')
    found = look(folder)
    assert keys(found) == ["a.jpg", "other/b.jpg"]
    assert "left out 1 folder of earlier runs: sub/first" in found.notices
    assert keys(look(folder / "sub" / "first" / "sdedit")) == ["a.png"]
    # whose thumbnails are none of its pictures
    picture(folder / "sub" / "first" / "report" / "ab" / "ab12.webp", "WEBP")
    assert keys(look(folder / "sub" / "first")) == ["sdedit/a.png"]
    # a run that goes on passes over its own output as ever
    told = look(folder, output__path=str(folder / "sub" / "first")).notices
    assert told == ("left out 1 non-picture file: 1 .json",)


@pytest.mark.parametrize("content", ["", "[" * 200_000, "[]", "7", '{"sdcorrect": '])
def test_a_job_json_that_is_no_runs_is_a_file_like_others(
    look: Look, tmp_path: Path, content: str
) -> None:
    picture(tmp_path / "in" / "sub" / "a.jpg")
    (tmp_path / "in" / "sub" / "job.json").write_text(content)
    assert keys(look(tmp_path / "in")) == ["sub/a.jpg"]


def test_a_job_json_that_is_a_fifo_is_not_waited_for(look: Look, tmp_path: Path) -> None:
    picture(tmp_path / "in" / "sub" / "a.jpg")
    os.mkfifo(tmp_path / "in" / "sub" / "job.json")
    assert keys(look(tmp_path / "in")) == ["sub/a.jpg"]


def test_hints_among_the_pictures_are_no_pictures_to_translate(look: Look, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    picture(folder / "a.jpg")
    picture(folder / "hints" / "a.jpg")
    network = {"path": "a/b", "hint": str(folder / "hints")}
    found = look(folder, controlnets=[network])
    assert keys(found) == ["a.jpg"]
    assert found.notices == ("left out 1 folder of the job's hints or masks: hints",)
    # pictures that are their own hints
    assert keys(look(folder, controlnets=[network | {"hint": str(folder)}])) == ["a.jpg", "hints/a.jpg"]


def test_a_folder_without_pictures_tells_what_it_has(look: Look, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    picture(folder / "@eaDir" / "a.jpg")
    with pytest.raises(UsageError, match="it has no files; .*1 hidden or system folder: 1 @eaDir"):
        look(folder)
    (folder / "a.txt").touch()
    with pytest.raises(UsageError, match="none of its 1 files is a picture; .*1 .txt; .*1 @eaDir"):
        look(folder)


def test_texts_beside_many_pictures_cost_nothing(look: Look, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for number in range(4000):
        (tmp_path / "in" / f"{number}.{'jpg' if number % 2 else 'txt'}").touch()
    began = time.process_time()
    assert len(look(tmp_path / "in").items) == 2000
    assert time.process_time() - began < 2  # 0.1 where nothing else runs


def test_the_dissection_of_an_earlier_run_is_no_picture(look: Look, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    picture(folder / "a.jpg")
    picture(folder / "out" / "dissect" / "a" / "dissect.png", "PNG")
    content = {"settings": {}, "units": {}, "blocks": []}
    (folder / "out" / "dissect" / "a" / "dissect.json").write_text(json.dumps(content))
    assert keys(look(folder)) == ["a.jpg"]


def test_a_run_tells_what_it_leaves_out_and_goes_on(
    translate: Callable[..., object], tmp_path: Path
) -> None:
    picture(tmp_path / "in" / "a.jpg")
    (tmp_path / "in" / "notes.doc").write_text("none")
    result = translate(tmp_path / "in", "-o", tmp_path / "out", "--method", "sdedit")
    assert result.exit_code == 0
    assert result.stderr.splitlines()[0] == "left out 1 non-picture file: 1 .doc"
