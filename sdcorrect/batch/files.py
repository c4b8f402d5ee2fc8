"""Files that a kill leaves whole, and locks that it lets go."""

import errno
import fcntl
import logging
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from sdcorrect.errors import SdcorrectError

#: What file systems answer that know no locks, such as Lustre mounted without them.
WITHOUT_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}

logger = logging.getLogger(__name__)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn a failure to write `path` into one line.

    Raises:
        SdcorrectError: no space, no permission, or a folder that is not there.
    """
    try:
        yield
    except OSError as error:
        raise SdcorrectError(f"output {path}: cannot be written: {error.strerror}") from None


def write_atomically(path: Path, write: Callable[[IO[bytes]], object], *, temporary: Path) -> None:
    """Write to `temporary` on the same file system, flush to the disk, rename to `path`.

    Raises:
        SdcorrectError: it cannot be written.
    """
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("wb") as stream:
                write(stream)
                stream.flush()
                os.fsync(stream.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def locked(path: Path, *, wait: bool = False) -> Iterator[None]:
    """Hold the lock `path` alone among all processes; the kernel lets go of a killed one's.

    Raises:
        SdcorrectError: another process holds it and this one is not to `wait`, or the folder cannot
            be written.
    """
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        stream = _take(path, wait)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        stream.close()


def _take(path: Path, wait: bool) -> IO[str]:
    while True:
        stream = path.open("a+", encoding="utf-8")
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            stream.seek(0)
            holder = stream.read().strip() or "another process"
            stream.close()
            raise SdcorrectError(
                f"output {path.parent.parent}: {holder} is at work on {path.stem}; wait until it ends"
            ) from None
        except OSError as error:
            if error.errno not in WITHOUT_LOCKS:
                stream.close()
                raise
            logger.warning("%s: this file system has no locks: start no second run there", path)
        # who held it before may have removed the file between the opening and the locking
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(stream.fileno()), path.stat()):
                break
        stream.close()
    stream.truncate(0)
    stream.write(f"process {os.getpid()} on {socket.gethostname()}\n")
    stream.flush()
    return stream
