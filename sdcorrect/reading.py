"""Files that people bring, read without trust, whichever program wrote them."""

import codecs
import errno
import os
import stat
from io import BufferedReader
from pathlib import Path

#: The longer marks first: that of UTF-32 begins as that of UTF-16 does.
MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
    codecs.BOM_UTF8: "utf-8-sig",
}


def open_file(file: Path) -> BufferedReader:
    """A file, open for reading. A FIFO or a device is not waited for.

    Raises:
        OSError: it cannot be read, or is no file; `strerror` says so.
    """
    # O_NONBLOCK: the opening of a FIFO that nobody writes to would wait
    descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        what = "a folder" if stat.S_ISDIR(mode) else "a FIFO, a socket or a device"
        raise OSError(errno.EINVAL, f"it is no file, but {what}")
    return open(descriptor, "rb")


def read_bytes(file: Path, most: int | None = None) -> bytes:
    """The content of a file. A FIFO or a device is not waited for.

    Args:
        most: bytes; a larger file is not read.

    Raises:
        OSError: it cannot be read, is no file or has more than `most` bytes; `strerror` says so.
    """
    with open_file(file) as stream:
        size = os.fstat(stream.fileno()).st_size
        if most is not None and size > most:
            raise OSError(errno.EFBIG, f"it has {size:,} bytes, more than {most:,}")
        return stream.read()


def decode(data: bytes, errors: str = "strict") -> str:
    """`data` as text: in UTF-8, or as its byte-order mark says.

    Args:
        errors: what becomes of bytes that are not UTF-8, as `bytes.decode` has it.

    Raises:
        ValueError: it is not text in that encoding.
    """
    encoding = next((name for mark, name in MARKS.items() if data.startswith(mark)), "utf-8")
    try:
        text = data.decode(encoding, errors if encoding.startswith("utf-8") else "strict")
    except UnicodeDecodeError:
        raise ValueError("it is not UTF-8 text") from None
    if "\0" in text:
        raise ValueError("it is not UTF-8 text: it holds NUL bytes, as binary files and UTF-16 do")
    return text
