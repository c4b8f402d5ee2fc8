"""Files of others, read without trust: nothing that blocks, nothing without end."""

import errno
import os
import stat
from pathlib import Path


def read_regular(file: Path, most: int) -> bytes:
    """The bytes of a regular file. A pipe or a device in its place is refused, not waited for.

    Raises:
        OSError: it cannot be read, is no regular file, or has more than `most` bytes (EFBIG).
    """
    # O_NONBLOCK: the opening of a pipe that nobody writes to would wait
    descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as stream:
        about = os.fstat(descriptor)
        if not stat.S_ISREG(about.st_mode):
            raise OSError(errno.EINVAL, "it is not a file")
        if about.st_size > most:
            raise OSError(errno.EFBIG, f"it has {about.st_size:,} bytes")
        return stream.read(about.st_size)
