"""The contact sheet, by its pixels."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result
from pages import Folder
from PIL import Image

from sdcorrect.errors import UsageError
from sdcorrect.report.gallery import read_gallery
from sdcorrect.report.sheet import EMPTY, GAP, LINE, MARGIN, TILE, draw_sheet

Run = Callable[..., Result]


def tile(sheet: Image.Image, index: int, column: int, columns: int = 1) -> np.ndarray:
    """The tile `column` of picture `index`, on a sheet of two variants."""
    row, group = divmod(index, columns)
    left = MARGIN + group * (3 * (TILE + GAP) - GAP + MARGIN) + column * (TILE + GAP)
    top = MARGIN + LINE + row * (TILE + LINE + GAP)
    return np.asarray(sheet.crop((left, top, left + TILE, top + TILE))).astype(int)


def expected(file: Path) -> np.ndarray:
    with Image.open(file) as image:
        return np.asarray(image.convert("RGB").resize((TILE, TILE), Image.Resampling.LANCZOS)).astype(
            int
        )


@pytest.mark.parametrize("columns", [1, 2])
def test_each_row_is_a_picture_and_its_variants(
    sdcorrect: Run, folder: Folder, tmp_path: Path, columns: int
) -> None:
    png = tmp_path / "sheets" / "sheet.png"
    result = sdcorrect("report", folder.out, "--grid", png, "--columns", columns)
    assert result.exit_code == 0, result.output
    with Image.open(png) as sheet:
        assert sheet.format == "PNG"
        for column, variant in ((1, "sdedit"), (2, "correct")):
            # in the order of the page: the path of hostile name is the first, the failed one the third
            for index, name in ((1, "bicycle.png"), (3, "church.png"), (5, "tent.png")):
                found = tile(sheet, index, column, columns)
                np.testing.assert_array_equal(found, expected(folder.out / variant / name))
        assert {tuple(pixel) for pixel in tile(sheet, 2, 1, columns)[:40].reshape(-1, 3)} == {
            tuple(bytes.fromhex(EMPTY[1:]))
        }
        source = Image.open(folder.pictures / "church.png").convert("RGB").resize((32, 32))
        difference = tile(sheet, 3, 0, columns) - np.asarray(source.resize((TILE, TILE)))
        assert np.abs(difference).mean() < 12


def test_a_damaged_thumbnail_or_lost_source_leaves_its_place(folder: Folder) -> None:
    shutil.rmtree(folder.out / "correct")
    gallery = read_gallery(folder.out)
    gallery = replace(gallery, entries=tuple(replace(e, source=None) for e in gallery.entries))
    sheet = draw_sheet(gallery, 1)
    for column in (0, 2):
        assert tuple(tile(sheet, 3, column)[0, 0]) == tuple(bytes.fromhex(EMPTY[1:]))


def test_a_sheet_too_large_is_refused(folder: Folder) -> None:
    gallery = read_gallery(folder.out)
    gallery = replace(gallery, entries=gallery.entries * 300)
    with pytest.raises(UsageError, match=r"1800 pictures would be \d+x\d+ px; give --limit"):
        draw_sheet(gallery)
