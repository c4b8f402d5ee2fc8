"""What a report reads of an output folder; and what is wrong with one, in one line."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result
from pages import HOSTILE, Folder, write_evaluation
from PIL import Image

from sdcorrect.errors import PictureError
from sdcorrect.inputs.pictures import fitted
from sdcorrect.output.folder import OutputFolder
from sdcorrect.report.cards import Cards, lost_sources, problems
from sdcorrect.report.copies import Copies
from sdcorrect.report.gallery import read_gallery

Run = Callable[..., Result]


def states(folder: Folder, variant: str) -> dict[str, str]:
    return {entry.key: entry.outputs[variant].state for entry in read_gallery(folder.out).entries}


def test_each_picture_has_a_state_in_each_variant(folder: Folder, tmp_path: Path) -> None:
    pictures = shutil.copytree(folder.pictures, tmp_path / "pictures")
    job = folder.out / "job.json"
    job.write_text(job.read_text().replace(str(folder.pictures), str(pictures)))
    shutil.copy(pictures / "church.png", pictures / "added.png")
    (folder.out / "correct" / "tent.png").unlink()
    assert states(folder, "sdedit") == {
        HOSTILE: "done",
        "added.png": "remaining",
        "bicycle.png": "done",
        "broken.png": "failed",
        "church.png": "done",
        "ghost.png": "done",
        "tent.png": "done",
    }
    assert states(folder, "correct") == states(folder, "sdedit") | {"tent.png": "missing"}


def test_all_shards_are_read(translate: Run, sdcorrect: Run, pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    for index in range(2):
        translate(pictures, "-o", out, "--num-shards", 2, "--shard-index", index)
    gallery = read_gallery(out)
    assert [entry.outputs["correct"].state for entry in gallery.entries] == ["done"] * 3
    assert [shard.shard for shard in gallery.shards] == ["0-of-2", "1-of-2"]
    assert gallery.evaluations["correct"].total == 3 * 5
    assert sdcorrect("report", out).exit_code == 0
    assert "1-of-2" in (out / "report.html").read_text()


def test_what_is_missing_is_told_and_shown(folder: Folder, report: Run) -> None:
    (folder.out / "correct" / "tent.png").unlink()
    result = report()
    assert "correct/tent.png: recorded, but the file is gone" in result.stderr
    assert "its file is gone" in folder.page.read_text()


def test_a_limit_is_told(folder: Folder, report: Run) -> None:
    assert "report.html: 2 pictures" in report("--limit", 2).stdout.replace("\n", "")
    assert "2 pictures of 6" in " ".join(folder.page.read_text().split())


def test_sources_that_are_gone_come_from_an_earlier_report(folder: Folder, report: Run) -> None:
    job = folder.out / "job.json"
    job.write_text(job.read_text().replace(str(folder.pictures), "/nowhere"))
    result = report()
    assert "there is no such folder" in result.stderr
    assert f"source is gone: {HOSTILE}, bicycle.png, church.png, ghost.png, tent.png" in result.stderr
    job.write_text(job.read_text().replace("/nowhere", str(folder.pictures)))
    report()
    before = folder.page.read_text()
    job.write_text(job.read_text().replace(str(folder.pictures), "/nowhere"))
    assert "source is gone" not in report().stderr
    assert before.count("report/") == folder.page.read_text().count("report/")


def test_a_source_that_changed_is_not_shown_as_what_was_translated(
    folder: Folder, tmp_path: Path
) -> None:
    pictures = shutil.copytree(folder.pictures, tmp_path / "pictures")
    shutil.copy(pictures / "ghost.png", pictures / "church.png")
    job = folder.out / "job.json"
    job.write_text(job.read_text().replace(str(folder.pictures), str(pictures)))
    cards = list(Cards(read_gallery(folder.out), folder.out, embed=False))
    assert lost_sources(cards) == ["source has changed since it was translated: church.png"]


def test_a_damaged_output_is_told(folder: Folder) -> None:
    enlarge(folder, "church.png", (640, 320))
    (folder.out / "sdedit" / "church.png").write_bytes(b"\x89PNG\r\n\x1a\n torn")
    cards = list(Cards(read_gallery(folder.out), folder.out, embed=False))
    assert ("church.png", "sdedit", "its file is damaged") in problems(cards, ("sdedit", "correct"))


def enlarge(folder: Folder, name: str, size: tuple[int, int]) -> None:
    """Let `name` in sdedit have been translated at another size."""
    file = folder.out / "sdedit" / name
    with Image.open(file) as image:
        image.resize(size).save(file)
    records = folder.out / "records" / "0-of-1.jsonl"
    record = OutputFolder(folder.out).records()[name, "sdedit"]
    with records.open("ab") as stream:
        stream.write(record.model_copy(update={"size": size}).as_json())


def test_large_pictures_have_thumbnails_which_are_written_once(folder: Folder) -> None:
    enlarge(folder, "church.png", (640, 320))
    copies = Copies(folder.out, read_gallery(folder.out).job_file.job)
    record = OutputFolder(folder.out).records()["church.png", "sdedit"]
    shown = copies.of_output(record)
    assert shown.full == folder.out / "sdedit" / "church.png"
    with Image.open(shown.thumbnail) as thumbnail:
        assert thumbnail.size == (320, 160)
    written = shown.thumbnail.stat().st_mtime_ns
    assert copies.of_output(record) == shown
    assert shown.thumbnail.stat().st_mtime_ns == written
    again = record.model_copy(update={"finished": record.finished.replace(year=2030)})
    assert copies.of_output(again).thumbnail != shown.thumbnail
    assert shown.embedded().startswith("data:image/webp;base64,")


@pytest.mark.parametrize("resize", ["fit", "crop", "none"])
def test_a_source_is_copied_as_it_went_into_the_model(folder: Folder, resize: str) -> None:
    record = (
        OutputFolder(folder.out).records()["church.png", "sdedit"].model_copy(update={"size": (48, 40)})
    )
    job = read_gallery(folder.out).job_file.job.model_copy(update={"resize": resize})
    source = folder.pictures / "church.png"
    shown = Copies(folder.out, job).of_source(source, record)
    assert shown
    with Image.open(source) as image, Image.open(shown.full) as copy:
        expected = fitted(image.convert("RGB"), job.resize, (48, 40))
        assert copy.convert("RGB").tobytes() == expected.tobytes()
    with pytest.raises(PictureError, match="has changed since it was translated"):
        other = record.model_copy(update={"size": (40, 40)})
        Copies(folder.out, job).of_source(folder.pictures / "ghost.png", other)


def test_metrics_are_those_of_the_file(folder: Folder) -> None:
    values = {("church.png", "sdedit"): (0.25, "inf"), ("ghost.png", "sdedit"): ("", 0.5)}
    write_evaluation(folder.out, values)
    gallery = read_gallery(folder.out)
    scores = {entry.key: entry.outputs["sdedit"].scores for entry in gallery.entries}
    assert gallery.metrics == ("ssim", "lpips")
    assert scores["church.png"] == (0.25, None)
    assert scores["ghost.png"] == (None, 0.5)
    assert scores["tent.png"] == ()
    assert gallery.warnings == ()


def test_metrics_of_other_pictures_or_before_these_are_told(folder: Folder) -> None:
    write_evaluation(folder.out, {("other.png", "sdedit"): (1, 1), ("church.png", "sdedit"): (1, 1)})
    os.utime(folder.out / "evaluation.csv", (0, 0))
    assert read_gallery(folder.out).warnings == (
        "evaluation.csv has rows without a picture here: sdedit/other.png",
        "evaluation.csv is older than sdedit/church.png; run sdcorrect evaluate again",
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("name,age\nx,1\n", "its first columns should be variant, path, not ['name', 'age']"),
        ("variant,path,ssim\nsdedit,church.png\n", "line 2 has 2 of 3 columns"),
        ("variant,path,ssim\nsdedit,church.png,0.", "its last line is incomplete"),
        ("variant,path,ssim\nsdedit,church.png,high\n", "line 2: could not convert string to float"),
        ('variant,path,ssim\nsdedit,"church.png,1\n', "line 2: unexpected end of data"),
        ("", "its last line is incomplete"),
    ],
)
def test_a_torn_or_foreign_evaluation(
    sdcorrect: Run, folder: Folder, content: str, message: str
) -> None:
    (folder.out / "evaluation.csv").write_text(content)
    result = sdcorrect("report", folder.out)
    assert result.exit_code == 2
    assert message in result.stderr
    assert result.stderr.count("\n") == 1


def test_what_is_no_output_folder(sdcorrect: Run, folder: Folder, tmp_path: Path) -> None:
    result = sdcorrect("report", tmp_path / "nowhere")
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
    assert "no job.json; give an output folder of sdcorrect translate" in result.stderr
    shutil.rmtree(folder.out / "records")
    result = sdcorrect("report", folder.out)
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
    assert "no picture is done yet" in result.stderr
    assert not folder.page.exists()


@pytest.mark.parametrize("arguments", [["--output", "page.pdf"], ["--grid", "sheet.jpg"]])
def test_a_name_of_another_kind(sdcorrect: Run, folder: Folder, arguments: list[str]) -> None:
    result = sdcorrect("report", folder.out, *arguments)
    assert result.exit_code == 2
    assert "the name must end in" in result.stderr


def test_too_much_to_embed(sdcorrect: Run, folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sdcorrect.report.cards.MAX_EMBEDDED", 5000)
    result = sdcorrect("report", folder.out, "--embed")
    assert result.exit_code == 2
    assert "give --limit, or remove --embed" in result.stderr


def test_a_report_imports_no_torch(folder: Folder) -> None:
    script = (
        "import sys\n"
        "from sdcorrect.cli import app\n"
        f"try: app(['report', {str(folder.out)!r}])\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        "assert 'torch' not in sys.modules\n"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
