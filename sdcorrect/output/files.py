"""Write files that stay whole if the process is killed, and hold locks that are released then."""

import errno
import fcntl
import logging
import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from sdcorrect.errors import SdcorrectError, UsageError, printable

#: Errors of file systems without locks, such as Lustre mounted without them.
WITHOUT_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}

logger = logging.getLogger(__name__)


def plain(path: str, flags: int) -> int:
    """An opener for `open` that accepts only plain files: it follows no link and waits for no FIFO.

    Raises:
        OSError: it is not a plain file, or cannot be opened.
    """
    descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "it is not a plain file")
    return descriptor


def read_plain(path: Path, limit: int) -> bytes:
    """The content of a plain file of at most `limit` bytes.

    Raises:
        OSError: it is not a plain file, is larger, or cannot be read.
    """
    with open(path, "rb", opener=plain) as stream:
        content = stream.read(limit + 1) if os.fstat(stream.fileno()).st_size <= limit else None
    if content is None or len(content) > limit:
        raise OSError(errno.EFBIG, f"it has over {limit:,} bytes")
    return content


def is_plain(path: Path) -> bool:
    """Whether `path` itself is a file, not a link to one."""
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except (OSError, ValueError):  # ValueError for names that no file can have
        return False


@contextmanager
def writing(path: Path, what: str = "output ") -> Iterator[None]:
    """Turn a failure to write `path` into a one-line error, which begins with `what`.

    Raises:
        SdcorrectError: no space, no permission, or a missing folder.
    """
    try:
        yield
    except OSError as error:
        raise SdcorrectError(f"{what}{printable(path)}: cannot be written: {error.strerror}") from None


def replace(path: Path, content: bytes, *, temporary: Path) -> None:
    """Write to `temporary` on the same file system, flush it to disk, and rename it to `path`.

    Raises:
        OSError: it cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        temporary.unlink(missing_ok=True)
        with open(temporary, "xb", opener=plain) as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_atomically(path: Path, content: bytes, *, temporary: Path | None = None) -> None:
    """`replace`, by a hidden file beside `path` unless `temporary` names another.

    Raises:
        SdcorrectError: it cannot be written.
    """
    with writing(path):
        replace(path, content, temporary=temporary or path.with_name(f".{path.name}.tmp"))


def refuse_link(folder: Path) -> None:
    """Raises UsageError if `folder` is a link."""
    if folder.is_symlink():
        raise UsageError(f"{printable(folder)}: is a link; replace it with the folder itself")


@contextmanager
def locked(path: Path, *, wait: bool = False) -> Iterator[None]:
    """Hold the lock `path` exclusively among processes; the kernel releases it if the process dies.

    Raises:
        SdcorrectError: another process holds it and `wait` is not set, or the folder cannot be written.
        UsageError: the folder is a link, which could lead anywhere.
    """
    refuse_link(path.parent)
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        stream = _take(path, wait)
    try:
        with writing(path):
            stream.truncate(0)
            stream.write(f"process {os.getpid()} on {socket.gethostname()}".encode())
        yield
    finally:
        with stream, writing(path):
            path.unlink(missing_ok=True)


def _take(path: Path, wait: bool) -> IO[bytes]:
    while True:
        stream = open(path, "ab+", buffering=0, opener=plain)  # noqa: SIM115 - the caller closes it
        try:
            if _lock(stream, path, wait):
                return stream
        except BaseException:
            stream.close()
            raise
        stream.close()


def _lock(stream: IO[bytes], path: Path, wait: bool) -> bool:
    """Lock `stream`; return whether it is still the file at `path`, which a holder may have removed."""
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        stream.seek(0)
        holder = printable(stream.read(200).decode(errors="replace")) or "another process"
        raise SdcorrectError(
            f"output {printable(path.parent.parent)}: {holder} is working on {path.stem}; "
            "wait until it ends"
        ) from None
    except OSError as error:
        if error.errno not in WITHOUT_LOCKS:
            raise
        logger.warning("%s: this file system has no locks; do not start a second run there", path)
    try:
        return os.path.samestat(os.fstat(stream.fileno()), path.stat())
    except FileNotFoundError:
        return False
