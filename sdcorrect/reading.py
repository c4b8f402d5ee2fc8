"""Read files from users safely, whichever program wrote them."""

import codecs
import errno
import os
import stat
from io import BufferedReader
from pathlib import Path

#: Byte-order marks, the longer first: the mark of UTF-32 begins with that of UTF-16.
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
    # O_NONBLOCK: opening a FIFO without a writer would block
    descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        what = "a folder" if stat.S_ISDIR(mode) else "a FIFO, a socket or a device"
        raise OSError(errno.EINVAL, f"it is not a file but {what}")
    return open(descriptor, "rb")


def read_bytes(file: Path, most: int | None = None) -> bytes:
    """The content of a file; never waits for a FIFO or a device.

    Args:
        most: the largest size in bytes; a larger file is not read.

    Raises:
        OSError: it cannot be read, is not a regular file or is too large; `strerror` says which.
    """
    with open_file(file) as stream:
        size = os.fstat(stream.fileno()).st_size
        if most is not None and size > most:
            raise OSError(errno.EFBIG, f"it has {size:,} bytes, more than {most:,}")
        return stream.read()


def decode(data: bytes, errors: str = "strict") -> str:
    """Decode `data` as UTF-8, or as its byte-order mark says.

    Args:
        errors: how to handle bytes that are not UTF-8; see `bytes.decode`.

    Raises:
        ValueError: the data is not text in that encoding.
    """
    encoding = next((name for mark, name in MARKS.items() if data.startswith(mark)), "utf-8")
    try:
        text = data.decode(encoding, errors if encoding.startswith("utf-8") else "strict")
    except UnicodeDecodeError:
        raise ValueError("it is not UTF-8 text") from None
    if "\0" in text:
        raise ValueError("it is not UTF-8 text: it contains NUL bytes, as binary files and UTF-16 do")
    return text
