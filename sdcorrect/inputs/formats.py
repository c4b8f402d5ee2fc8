"""Recognise picture formats by their first bytes."""

import re

FIRST_BYTES = 256  #: enough of a file to recognise its format

#: The formats that are opened, those with well-tested decoders, by the beginning of their files.
MAGIC: dict[str, re.Pattern[bytes]] = {
    format: re.compile(pattern, re.DOTALL)
    for format, pattern in {
        "PNG": rb"\x89PNG\r\n\x1a\n",
        "JPEG": rb"\xff\xd8\xff",
        "WEBP": rb"RIFF....WEBP",
        "GIF": rb"GIF8[79]a",
        # with the size of the second header, because many texts begin with BM
        "BMP": rb"BM.{12}[\x0c\x28\x34\x38\x40\x6c\x7c]\0\0\0",
        "TIFF": rb"II[\x2a\x2b]\0|MM\0[\x2a\x2b]|MM\x2a\0|II\0\x2a",
        "JPEG2000": rb"\xff\x4f\xff\x51|\0\0\0\x0cjP  \r\n\x87\n",
        # the magic number, white space and comments, then the width
        "PPM": rb"P[1-6]\s(\s|#[^\n]*\n)*[0-9]+\s",
    }.items()
}
AVIF_BRANDS = {b"avif", b"avis"}
#: Brands of pictures coded with HEVC; mif1 and msf1 only name the container.
HEIF_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1"}


def looks_like_picture(first_bytes: bytes) -> bool:
    """Whether a file with these first bytes (up to `FIRST_BYTES`) is in a format that is opened."""
    return format_of(first_bytes) is not None


def format_of(first_bytes: bytes) -> str | None:
    """The format of a file with these first bytes, by Pillow's name; HEIF needs a plugin."""
    if first_bytes[4:8] == b"ftyp":
        brands = _brands(first_bytes)
        if brands & AVIF_BRANDS:
            return "AVIF"
        return "HEIF" if brands & HEIF_BRANDS else None
    return next((format for format, magic in MAGIC.items() if magic.match(first_bytes)), None)


def _brands(first_bytes: bytes) -> set[bytes]:
    """The major and compatible brands (ISO 14496-12, 4.3); the major one may not name the codec."""
    end = min(int.from_bytes(first_bytes[:4], "big"), FIRST_BYTES)
    compatible = {first_bytes[start : start + 4] for start in range(16, end, 4)}
    return {first_bytes[8:12], *compatible}
