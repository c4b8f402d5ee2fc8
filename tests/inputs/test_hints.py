"""Ready-made hints: read as pictures are, and found where the pictures' own companions lie."""

import os
import struct
from pathlib import Path

import numpy as np
import pytest
from encoders import tiff
from PIL import Image

from sdcorrect.config import Input, load_job
from sdcorrect.errors import PictureError
from sdcorrect.inputs.hints import hints_of
from sdcorrect.inputs.items import Item, find_items
from sdcorrect.inputs.pictures import Picture, Sizing, read_picture
from sdcorrect.settings import ControlNet

SIZING = Sizing("fit", 64, 8)
RAMP = np.tile(np.linspace(0, 65535, 64).astype(np.uint16), (64, 1))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where hints lie; `pictures/a.png` is the picture."""
    for name in ("pictures", "hints"):
        (tmp_path / name).mkdir()
    Image.new("RGB", (64, 64), "red").save(tmp_path / "pictures" / "a.png")
    return tmp_path / "hints"


def picture(folder: Path, key: str = "a.png") -> Picture:
    file = folder.parent / "pictures" / "a.png"
    return read_picture(Item(file, key, Path("a.png"), "", ""), SIZING, Input(path=file))


def hint_of(picture: Picture, folder: Path, max_pixels: int = 64_000_000) -> np.ndarray:
    network = ControlNet(path=str(folder), hint=str(folder))
    (hint,) = hints_of(picture, [network], SIZING, max_pixels)
    return np.asarray(hint)


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.PNG", "a.jp2", "a.pgm"])
def test_a_hint_of_16_bits_is_scaled(folder: Path, name: str) -> None:
    Image.fromarray(RAMP).save(folder / name)
    hint = hint_of(picture(folder), folder)
    np.testing.assert_allclose(hint[0, :, 0], RAMP[0] / 257, atol=1)


def test_a_hint_of_12_bits_that_lies_on_its_side(folder: Path) -> None:
    data = tiff(RAMP.T[..., None] // 16, 12, 1, tags=((0x112, 3, (5,)),))
    (folder / "a.tiff").write_bytes(data)
    np.testing.assert_allclose(hint_of(picture(folder), folder)[0, :, 0], RAMP[0] / 257, atol=1)


def bmp(width: int, height: int) -> bytes:
    sizes = (54, 0, 0, 54, 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)
    return struct.pack("<2sIHHIIiiHHIIiiII", b"BM", *sizes) + bytes(100)


def test_a_hint_that_cannot_be_used_fails_its_picture(folder: Path) -> None:
    own = picture(folder)

    def refused(reason: str) -> None:
        with pytest.raises(PictureError, match=reason) as error:
            hint_of(own, folder, max_pixels=5000)
        assert error.value.sha256 == own.sha256
        for file in folder.iterdir():
            file.unlink()

    refused("has no hint: there is no .*/hints/a.png")
    (folder / "a.bmp").write_bytes(bmp(60_000, 60_000))
    refused("hint .*a.bmp: cannot be used: has more than the")
    (folder / "a.bmp").write_bytes(bmp(64, 64))
    refused("hint .*a.bmp: cannot be used: damaged")
    (folder / "a.png").touch()
    refused("hint .*a.png: cannot be used: the file is empty")
    os.mkfifo(folder / "a.png")
    refused("hint .*a.png: cannot be used: cannot be read: it is not a file")
    (folder / "a.png").symlink_to("nowhere.png")
    refused("hint .*a.png: cannot be used: cannot be read: No such file")
    Image.new("L", (100, 100)).save(folder / "a.png")
    refused("hint .*a.png: cannot be used: 100x100 px: more than the 5,000 px")
    Image.new("L", (64, 32)).save(folder / "a.png")
    refused("hint .*a.png: does not have the shape of the picture")
    for name in ("a.jpg", "a.webp"):
        Image.new("L", (64, 64)).save(folder / name)
    refused("has several hints, .*a.jpg, .*a.webp; keep one")


@pytest.mark.parametrize("where", ["absolute", "above"])
def test_a_listed_picture_is_never_its_own_hint(folder: Path, where: str) -> None:
    lists = folder.parent / "lists"
    lists.mkdir()
    path = folder.parent / "pictures" / "a.png" if where == "absolute" else "../pictures/a.png"
    (lists / "list.txt").write_text(f"{path}\n")
    given = {"input.path": str(lists / "list.txt"), "output.path": str(lists / "out"), "prompt": "x"}
    job = load_job(None, given)
    (item,) = find_items(job)
    own = read_picture(item, SIZING, job.input)
    with pytest.raises(PictureError, match="has no hint"):
        hint_of(own, folder)
    file = folder / item.output
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(RAMP).save(file)
    assert np.ptp(hint_of(own, folder)) > 200


def test_one_hint_for_a_picture_that_is_listed_twice(folder: Path) -> None:
    Image.fromarray(RAMP).save(folder / "a.png")
    assert np.ptp(hint_of(picture(folder, "a.png#2"), folder)) > 200
