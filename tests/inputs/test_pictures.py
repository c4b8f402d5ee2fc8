"""Every kind of file that is read, each against what its pixels should be."""

import os
import struct
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pillow_heif
import pytest
from encoders import png
from imagecodecs import cms_profile
from PIL import Image, ImageCms

from sdcorrect.config import Input
from sdcorrect.errors import FilteredOut, PictureError
from sdcorrect.inputs.items import Item
from sdcorrect.inputs.pictures import Picture, Sizing, read_picture

AS_IT_IS = Sizing("none", 8, 1)
SIDE = 16
#: Left half red, right half dark blue: tells colours, sides and orientation apart.
TWO_HALVES = Image.new("RGB", (SIDE, SIDE), (204, 51, 0))
TWO_HALVES.paste((0, 51, 102), (SIDE // 2, 0, SIDE, SIDE))


def read(file: Path, sizing: Sizing = AS_IT_IS, problem: str | None = None, **limits: Any) -> Picture:
    item = Item(file, file.name, Path("a.png"), "", "", problem=problem)
    return read_picture(item, sizing, Input(path=file, **limits))


def pixels(picture: Picture) -> np.ndarray:
    return np.asarray(picture.image).astype(int)


def assert_two_halves(picture: Picture, tolerance: int = 12) -> None:
    assert picture.image.mode == "RGB"
    np.testing.assert_allclose(pixels(picture), np.asarray(TWO_HALVES).astype(int), atol=tolerance)


@pytest.mark.parametrize(
    ("name", "mode", "options"),
    [
        ("a.png", "RGB", {}),
        ("a.png", "P", {}),
        ("a.jpg", "RGB", {"quality": 95, "subsampling": 0}),
        ("a.webp", "RGB", {"lossless": True}),
        ("a.bmp", "RGB", {}),
        ("a.tif", "RGB", {"compression": "tiff_lzw"}),
        ("a.tiff", "CMYK", {}),
        ("a.jpg", "CMYK", {"quality": 95, "subsampling": 0}),
        ("a.gif", "P", {}),
        ("a.avif", "RGB", {"quality": 95, "subsampling": "4:4:4"}),
        ("wrong-extension.jpg", "RGB", {"format": "PNG"}),
    ],
)
def test_formats(tmp_path: Path, name: str, mode: str, options: dict[str, Any]) -> None:
    TWO_HALVES.convert(mode).save(tmp_path / name, **options)
    assert_two_halves(read(tmp_path / name))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.gif", {}),
        ("a.webp", {"lossless": True}),
        ("a.png", {}),
        ("a.tiff", {}),
    ],
)
def test_the_first_of_several_pictures(tmp_path: Path, name: str, options: dict[str, Any]) -> None:
    second = Image.new("RGB", TWO_HALVES.size, "white")
    TWO_HALVES.save(tmp_path / name, save_all=True, append_images=[second], **options)
    assert_two_halves(read(tmp_path / name))


def test_heic_by_its_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pillow_heif.from_pillow(TWO_HALVES).save(tmp_path / "a.heic", quality=95, chroma=444)
    assert_two_halves(read(tmp_path / "a.heic"))
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(PictureError, match=r"install what reads it, sdcorrect\[heif\]"):
        read(tmp_path / "a.heic")


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_sixteen_bit_grey_is_scaled(tmp_path: Path, name: str) -> None:
    grey = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)
    Image.fromarray(grey).save(tmp_path / name)
    np.testing.assert_allclose(pixels(read(tmp_path / name))[..., 0], grey / 257, atol=0.5)


def test_sixteen_bit_colour_and_transparent_grey(tmp_path: Path) -> None:
    colour = np.array([[[65535, 32768, 0], [257, 514, 771]]])
    (tmp_path / "colour.png").write_bytes(png(colour, 16, 2))
    expected = [[[255, 128, 0], [1, 2, 3]]]
    np.testing.assert_allclose(pixels(read(tmp_path / "colour.png")), expected, atol=1)
    grey = np.array([[[4000], [4001]]])
    (tmp_path / "grey.png").write_bytes(png(grey, 16, 0, (b"tRNS", struct.pack(">H", 4000))))
    assert pixels(read(tmp_path / "grey.png"))[0, :, 0].tolist() == [255, 16]


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparency_goes_onto_white(tmp_path: Path, mode: str) -> None:
    image = Image.new("RGBA", (8, 8), (0, 0, 0, 255))
    image.paste((0, 0, 0, 0), (0, 0, 4, 8))
    image.convert(mode).save(tmp_path / "a.png")
    assert pixels(read(tmp_path / "a.png"))[0, [0, 7]].tolist() == [[255] * 3, [0] * 3]


def test_exif_orientation(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    TWO_HALVES.rotate(90, expand=True).save(tmp_path / "a.jpg", exif=exif, quality=95, subsampling=0)
    assert_two_halves(read(tmp_path / "a.jpg"))


def test_a_colour_profile_is_converted_to_srgb(tmp_path: Path) -> None:
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
    TWO_HALVES.save(tmp_path / "a.png", icc_profile=swapped_primaries(srgb.tobytes()))
    red, blue = pixels(read(tmp_path / "a.png"))[0, [0, -1]]
    assert blue[0] > 80 and red[2] > 180, "red and blue change places in this profile"


@pytest.mark.parametrize(
    ("mode", "profile", "reason"),
    [
        ("RGB", cms_profile("gray", gamma=1.8), "its colour profile is for GRAY, its samples are RGB"),
        ("P", cms_profile("gray", gamma=1.8), "its colour profile is for GRAY, its samples are RGB"),
        ("L", cms_profile("adobergb"), "its colour profile is for RGB, its samples are L"),
        ("RGB", cms_profile("lab4"), "its colour profile is for Lab, its samples are RGB"),
        ("RGB", cms_profile("xyz"), "its colour profile is for XYZ, its samples are RGB"),
        ("CMYK", cms_profile("adobergb"), "its colour profile is for RGB, its samples are CMYK"),
        ("RGB", b"no profile", "its colour profile is damaged"),
        ("RGB", cms_profile("adobergb")[:300], "its colour profile is damaged"),
    ],
)
def test_a_profile_that_does_not_fit_is_ignored_and_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, mode: str, profile: bytes, reason: str
) -> None:
    image = TWO_HALVES.convert(mode)
    image.save(tmp_path / "a.tif", icc_profile=profile)
    shown = np.asarray(image.convert("RGB")).astype(int)
    np.testing.assert_array_equal(pixels(read(tmp_path / "a.tif")), shown)
    assert caplog.messages == [f"{tmp_path / 'a.tif'}: {reason}: ignored"]


def swapped_primaries(icc: bytes) -> bytes:
    """The profile with the table entries of its red and blue primaries exchanged."""
    return icc.replace(b"rXYZ", b"????").replace(b"bXYZ", b"rXYZ").replace(b"????", b"bXYZ")


@pytest.mark.parametrize("mode", ["I", "F"])
def test_samples_of_32_bits_have_no_set_range(tmp_path: Path, mode: str) -> None:
    Image.new(mode, (4, 4)).save(tmp_path / "a.tif")
    with pytest.raises(PictureError, match="32 bits"):
        read(tmp_path / "a.tif")


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo.png")
    (tmp_path / "loop.png").symlink_to("loop.png")
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.png").write_text("text")
    for name, reason in {
        "fifo.png": "it is no file, but a FIFO",
        "loop.png": "Too many levels of symbolic links",
        "none.png": "No such file or directory",
        "empty.png": "the file is empty",
        "text.png": "not a picture that can be read",
    }.items():
        with pytest.raises(PictureError, match=reason) as error:
            read(tmp_path / name)
        assert (error.value.sha256 is None) == (name in {"fifo.png", "loop.png", "none.png"})


def test_limits(tmp_path: Path) -> None:
    Image.new("RGB", (40, 10)).save(tmp_path / "a.png")
    read(tmp_path / "a.png", max_pixels=400, min_side=10, max_side=40, max_aspect=4)
    for limit, reason in (
        ({"min_side": 11}, "a side is under"),
        ({"max_side": 39}, "a side is over"),
        ({"max_aspect": 3.9}, "more elongated"),
    ):
        with pytest.raises(FilteredOut, match=reason) as filtered:
            read(tmp_path / "a.png", **limit)
        assert filtered.value.sha256
    with pytest.raises(PictureError, match=r"40x10 px: more than the 399 px") as error:
        read(tmp_path / "a.png", max_pixels=399)
    assert not isinstance(error.value, FilteredOut)


def test_a_file_larger_than_any_picture_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "a.png").open("wb") as stream:
        stream.truncate(1 << 40)
    with pytest.raises(PictureError, match="it has 1,099,511,627,776 bytes"):
        read(tmp_path / "a.png")


def test_an_item_with_a_problem_fails_with_its_hash(tmp_path: Path) -> None:
    TWO_HALVES.save(tmp_path / "a.png")
    with pytest.raises(PictureError, match="no caption") as error:
        read(tmp_path / "a.png", problem="no caption")
    assert error.value.sha256


@pytest.mark.parametrize(
    ("size", "resize", "expected"),
    [
        ((100, 50), "fit", (64, 32)),
        ((1, 1), "fit", (64, 64)),
        ((3000, 400), "fit", (64, 32)),
        ((20_000, 20), "crop", (64, 64)),
        ((96, 32), "none", (96, 32)),
        ((109, 63), "none", (96, 32)),
    ],
)
def test_sizes(size: tuple[int, int], resize: Any, expected: tuple[int, int]) -> None:
    assert Sizing(resize, 64, 32).apply(Image.new("RGB", size)).size == expected


def test_at_its_own_scale_a_picture_keeps_its_middle() -> None:
    image = Image.new("RGB", (35, 32), "white")
    image.paste("black", (1, 0, 33, 32))
    assert Sizing("none", 64, 32).apply(image).getextrema() == ((0, 0),) * 3


@pytest.mark.parametrize(
    ("size", "resize", "reason"),
    [
        ((20_000, 20), "fit", "stretched 500 times; use resize: crop"),
        ((40, 31), "none", "a side is under 32 px"),
    ],
)
def test_sizes_that_do_not_fit(size: tuple[int, int], resize: Any, reason: str) -> None:
    with pytest.raises(PictureError, match=reason):
        Sizing(resize, 64, 32).apply(Image.new("RGB", size))
