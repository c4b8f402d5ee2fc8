"""Every kind of file that is read, each against what its pixels should be."""

import io
import os
import re
import struct
import sys
import time
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pillow_heif
import pytest
from encoders import png, png_of, tiff
from imagecodecs import cms_profile, jpeg2k_encode
from PIL import ExifTags, Image, ImageCms

from sdcorrect.config import Input
from sdcorrect.errors import FilteredOut, PictureError
from sdcorrect.inputs.decode import UPRIGHT, decode
from sdcorrect.inputs.items import Item
from sdcorrect.inputs.pictures import Picture, Resize, Sizing, read_image, read_picture

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
    with pytest.raises(PictureError, match=r"which needs `pip install 'sdcorrect\[heif\]'`"):
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


TURNED = TWO_HALVES.rotate(90, expand=True)  #: upright again by orientation 6
XMP = b"<x:xmpmeta xmlns:x='adobe:ns:meta/'><rdf:Description tiff:Orientation=\"6\"/></x:xmpmeta>"


def exif(*entries: bytes, pointed: bytes = b"") -> bytes:
    """EXIF of orientation 6 and more entries, and what they point to, from byte 38 on if it is one."""
    orientation = struct.pack(">HHIHH", 0x112, 3, 1, 6, 0)
    count = struct.pack(">H", 1 + len(entries))
    return b"MM\0*" + struct.pack(">I", 8) + count + orientation + b"".join(entries) + bytes(4) + pointed


def gps(*, kind: int) -> bytes:
    """EXIF whose GPSAltitudeRef, a byte, is of another type."""
    entry = struct.pack(">H", 1) + struct.pack(">HHI", 5, kind, 2) + b"0\0\0\0" + bytes(4)
    return exif(struct.pack(">HHII", 0x8825, 4, 1, 38), pointed=entry)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("written", [exif(), gps(kind=2)], ids=["plain", "not to be written back"])
def test_exif_orientation(tmp_path: Path, format: str, written: bytes) -> None:
    TURNED.save(tmp_path / "a", format, exif=b"Exif\0\0" + written, quality=95)
    assert_two_halves(read(tmp_path / "a"), tolerance=60)


def test_exif_of_an_avif_that_cannot_be_written_back(tmp_path: Path) -> None:
    written = gps(kind=1)
    TURNED.save(tmp_path / "a.avif", exif=written, quality=95, subsampling="4:4:4")
    data = (tmp_path / "a.avif").read_bytes()
    byte, text = (struct.pack(">HHI", 5, kind, 2) for kind in (1, 2))
    assert byte in data
    (tmp_path / "a.avif").write_bytes(data.replace(byte, text))
    assert_two_halves(read(tmp_path / "a.avif"))


def test_orientation_by_xmp(tmp_path: Path) -> None:
    TURNED.save(tmp_path / "a.jpg", xmp=XMP, quality=95, subsampling=0)
    assert_two_halves(read(tmp_path / "a.jpg"))


def test_orientation_behind_the_pixels_of_a_png(tmp_path: Path) -> None:
    for bits in (8, 16):
        samples = np.asarray(TURNED).astype(int) * (1 if bits == 8 else 257)
        end = png_of((b"eXIf", exif()), (b"IEND", b""))[8:]
        (tmp_path / "a.png").write_bytes(png(samples, bits, 2)[:-12] + end)
        assert_two_halves(read(tmp_path / "a.png"), tolerance=0)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_damaged_exif_is_ignored(tmp_path: Path) -> None:
    far = struct.pack(">HHII", 0x8769, 4, 1, 0xFFFFFFF0)
    for name, data in {"far.jpg": exif(far), "cut.jpg": exif()[:12], "noise.jpg": b"x" * 99}.items():
        TWO_HALVES.save(tmp_path / name, exif=b"Exif\0\0" + data, quality=95, subsampling=0)
        read(tmp_path / name)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("bits", [8, 12])
def test_orientation_of_a_tiff(tmp_path: Path, orientation: int, bits: int) -> None:
    undone = {1: 1, 2: 2, 3: 3, 4: 4, 5: 5, 6: 8, 7: 7, 8: 6}[orientation]
    picture = TWO_HALVES if orientation == 1 else TWO_HALVES.transpose(UPRIGHT[undone])
    samples = np.round(np.asarray(picture) / 255 * (2**bits - 1)).astype(int)
    tags = ((0x112, 3, (orientation,)),)
    (tmp_path / "a.tif").write_bytes(tiff(samples, bits, 2, tags=tags))
    assert_two_halves(read(tmp_path / "a.tif"), tolerance=1)


TEXT = zlib.compress(bytes(3 << 20))


@pytest.mark.parametrize(
    "chunk",
    [
        (b"zTXt", b"workflow\0\0" + TEXT),
        (b"iTXt", b"workflow\0\1\0\0\0" + TEXT),
        (b"zTXt", b"workflow\0\0" + zlib.compress(bytes(200 << 20))),
        (b"iCCP", b"icc\0\0" + zlib.compress(cms_profile("srgb") + bytes(3 << 20))),
    ],
    ids=["zTXt", "iTXt", "a bomb", "iCCP"],
)
def test_long_metadata_of_a_png(tmp_path: Path, chunk: tuple[bytes, bytes]) -> None:
    samples = np.asarray(TWO_HALVES).astype(int)
    (tmp_path / "before.png").write_bytes(png(samples, 8, 2, chunk))
    assert_two_halves(read(tmp_path / "before.png"), tolerance=1)
    end = png_of(chunk, (b"IEND", b""))[8:]
    (tmp_path / "behind.png").write_bytes(png(samples, 8, 2)[:-12] + end)
    assert_two_halves(read(tmp_path / "behind.png"), tolerance=1)


def test_what_follows_a_png_does_not_matter(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png(np.asarray(TWO_HALVES).astype(int), 8, 2) + bytes(2_000_000))
    assert_two_halves(read(tmp_path / "a.png"), tolerance=0)


def test_hdr_is_refused_and_unknown_colours_are_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    samples = np.asarray(TWO_HALVES).astype(int)
    for transfer, name in ((16, "PQ"), (18, "HLG")):
        (tmp_path / "a.png").write_bytes(png(samples, 8, 2, (b"cICP", bytes((9, transfer, 0, 1)))))
        with pytest.raises(PictureError, match=rf"an HDR picture \({name}\); save it in sRGB"):
            read(tmp_path / "a.png")
    (tmp_path / "a.png").write_bytes(png(samples, 8, 2, (b"cICP", bytes((4, 6, 0, 1)))))
    assert_two_halves(read(tmp_path / "a.png"), tolerance=0)
    (tmp_path / "b.png").write_bytes(png(samples, 8, 2, (b"gAMA", struct.pack(">I", 1))))
    assert_two_halves(read(tmp_path / "b.png"), tolerance=0)
    assert [message.split(": ", 1)[1] for message in caplog.messages] == [
        "its cICP colours (primaries 4, transfer 6) are not supported: ignored",
        "its gAMA, 1e-05, is impossible: ignored",
    ]


@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_may_lack_its_end_marker_and_nothing_else(tmp_path: Path, progressive: bool) -> None:
    stream = io.BytesIO()
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8))
    noise.save(stream, "JPEG", quality=90, progressive=progressive)
    whole = stream.getvalue()
    (tmp_path / "a.jpg").write_bytes(whole)
    expected = pixels(read(tmp_path / "a.jpg"))
    for end in (whole[:-1], whole[:-2]):
        (tmp_path / "a.jpg").write_bytes(end)
        np.testing.assert_array_equal(pixels(read(tmp_path / "a.jpg")), expected)
    scans = [match.start() for match in re.finditer(b"\xff[\xda\xc4]", whole)]
    cuts = {len(whole) - cut for cut in (4, 5, 6, 9, 30, 300, 1000)} | set(scans)
    for cut in cuts:
        (tmp_path / "a.jpg").write_bytes(whole[:cut])
        with pytest.raises(PictureError, match="truncated|not decodable|not a picture"):
            read(tmp_path / "a.jpg")


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_deep_pictures_are_whole(tmp_path: Path) -> None:
    samples = np.random.default_rng(0).integers(0, 4096, (40, 40, 3))
    for name, data in {
        "a.tif": tiff(samples, 12, 2),
        "planes.tif": tiff(samples, 16, 2, planar=True, deflate=True),
        "a.png": png(samples, 16, 2),
        "a.jp2": jpeg2k_encode(samples.astype(np.uint16), level=0, bitspersample=12),
    }.items():
        (tmp_path / name).write_bytes(data)
        read(tmp_path / name)
        for kept in (len(data) // 3, len(data) // 2, len(data) * 9 // 10):
            (tmp_path / name).write_bytes(data[:kept])
            with pytest.raises(PictureError):
                read(tmp_path / name)
    # a strip that goes on behind the end of the file
    count = struct.pack("<HHII", 279, 4, 1, 40 * 180)
    data = tiff(samples, 12, 2)
    assert count in data
    (tmp_path / "a.tif").write_bytes(data.replace(count, struct.pack("<HHII", 279, 4, 1, 40 * 1800)))
    with pytest.raises(PictureError, match="parts of its samples are missing"):
        read(tmp_path / "a.tif")


def bombs() -> dict[str, bytes]:
    """Files that would take minutes or gigabytes, each by the name of its reason."""
    stream = io.BytesIO()
    Image.new("L", (2000, 2000), 99).save(stream, "JPEG", progressive=True)
    jpeg = stream.getvalue()
    scan = jpeg[jpeg.rindex(b"\xff\xda") : -2]
    small = png(np.zeros((8, 8, 1), int), 8, 0)
    deep = bytearray(png(np.zeros((8, 8, 3), int), 16, 2))
    deep[16:24] = struct.pack(">II", 60_000, 60_000)
    deep[29:33] = struct.pack(">I", zlib.crc32(deep[12:29]))
    wide = struct.pack("<HHII", 256, 4, 1, 2_000_000_000)
    icc = (b"iCCP", b"icc\0\0" + zlib.compress(bytes(200 << 20)))
    return {
        "more than 40 scans": jpeg[:-2] + scan * 5000 + jpeg[-2:],
        "more than 100,000 segments": b"\xff\xd8" + b"\xff\xfe\0\2" * 1_000_000 + b"\xff\xd9",
        "more than 100,000 chunks": small[:33] + png_of((b"abCd", b""))[8:] * 1_000_000 + small[33:],
        "too large for": png(np.zeros((8, 8, 1), int), 8, 0, icc),
        "has more than the 64,000,000 px": bytes(deep),
        "2000000000x8 px: more than": tiff(np.zeros((8, 8, 3), int), 12, 2).replace(
            struct.pack("<HHIHH", 256, 3, 1, 8, 0), wide
        ),
    }


def test_bombs_are_refused_in_seconds(tmp_path: Path) -> None:
    for reason, data in bombs().items():
        (tmp_path / "bomb").write_bytes(data)
        began = time.perf_counter()
        with pytest.raises(PictureError, match=reason):
            read(tmp_path / "bomb")
        assert time.perf_counter() - began < 10, reason


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
        "fifo.png": "it is not a file but a FIFO",
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


@pytest.mark.parametrize("resize", ["fit", "crop", "none"])
@pytest.mark.parametrize(
    "saved",
    [
        {"mode": "RGB"},
        {"mode": "L", "progressive": True},
        {"mode": "CMYK"},
        {"mode": "RGB", "orientation": 6},
    ],
    ids=str,
)
def test_a_large_jpeg_is_decoded_smaller_to_the_same_picture(
    saved: dict[str, Any], resize: Resize, tmp_path: Path
) -> None:
    smooth = TWO_HALVES.resize((1203, 901), Image.Resampling.BICUBIC)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = saved.get("orientation", 1)
    file = tmp_path / "large.jpg"
    smooth.convert(saved["mode"]).save(file, exif=exif, progressive=saved.get("progressive", False))
    sizing = Sizing(resize, 96, 32)
    image, _ = read_image(file, Input(path=file))
    picture = read(file, sizing)
    expected = sizing.apply(image)
    assert (picture.whole, picture.image.size) == (image.size, expected.size)
    difference = np.abs(pixels(picture) - np.asarray(expected))
    assert difference.mean() < (0 if resize == "none" else 1) + 1e-9
    shown = decode(file.read_bytes(), Input(path=file), sizing.least)
    assert (shown.image.size == image.size) == (resize == "none")
