"""Pictures told from other files by their first bytes."""

import io

import pillow_heif
import pytest
from PIL import Image

from sdcorrect.inputs.formats import FIRST_BYTES, format_of, looks_like_picture


@pytest.mark.parametrize(
    "format", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000", "PPM"]
)
def test_pictures_are_told_by_their_first_bytes(format: str) -> None:
    stream = io.BytesIO()
    Image.new("RGB", (8, 8)).save(stream, format)
    assert format_of(stream.getvalue()[:FIRST_BYTES]) == format


@pytest.mark.parametrize("major", [b"avif", b"mif1", b"miaf"])
def test_avif_is_told_by_any_brand(major: bytes) -> None:
    stream = io.BytesIO()
    Image.new("RGB", (8, 8)).save(stream, "AVIF")
    data = bytearray(stream.getvalue())
    data[8:12] = major
    assert format_of(bytes(data[:FIRST_BYTES])) == "AVIF"


@pytest.mark.parametrize("major", [b"heic", b"mif1", b"miaf"])
def test_heif_is_told_by_any_brand(major: bytes) -> None:
    stream = io.BytesIO()
    pillow_heif.from_pillow(Image.new("RGB", (8, 8))).save(stream)
    data = bytearray(stream.getvalue())
    data[8:12] = major
    assert format_of(bytes(data[:FIRST_BYTES])) == "HEIF"


@pytest.mark.parametrize("head", [b"P6 \n# by hand\n  2 1 255\n", b"P1\n2 1\n0 1\n", b"II+\0", b"MM\0*"])
def test_rarer_beginnings(head: bytes) -> None:
    assert looks_like_picture(head)


@pytest.mark.parametrize(
    "head",
    [
        *(b"", b"B", b"BMW drives on\n", b"P3 is a class\n", b"P60 4", b"{}", b"%PDF-1.7", b"<svg/>"),
        *(
            b"RIFF\0\0\0\0WAVEfmt ",
            b"\0\0\0\x18ftypmp42\0\0\0\0isomavc1",
            b"\0\0\0\x18ftyp",
            b"\xff\xd8",
        ),
    ],
)
def test_what_is_no_picture(head: bytes) -> None:
    assert not looks_like_picture(head)
