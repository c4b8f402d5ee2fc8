"""Find what a job names, here or on the hub, and tell what its content is."""

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from huggingface_hub import constants, hf_hub_download, snapshot_download
from huggingface_hub.errors import LocalEntryNotFoundError, OfflineModeIsEnabled

from sdcorrect.errors import UsageError

HUB_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*")
HUB_FILE = re.compile(rf"(?P<repository>{HUB_ID.pattern})/(?P<file>.+)")


@dataclass(frozen=True)
class Found:
    """A file or folder on this machine."""

    path: Path
    identity: str  #: SHA-256 of its content, or the revision of a hub repository


@dataclass(frozen=True)
class Finder:
    """Finds files, folders and hub repositories by name.

    Many processes may look at once: the hub's own cache locks each file while it is downloaded.
    """

    offline: bool = False

    @property
    def cached_only(self) -> bool:
        """Whether the hub may not be asked: the job or HF_HUB_OFFLINE says so."""
        return self.offline or constants.HF_HUB_OFFLINE

    def find(self, what: str, name: str, patterns: Sequence[str], revision: str | None = None) -> Found:
        """The file or folder `name`; of a hub repository the files that match `patterns`.

        `what` it is to the job, such as "vae", begins every message.

        Raises:
            UsageError: it is neither here nor to be had from the hub.
        """
        return local(what, name, patterns) or self.from_hub(
            what,
            name,
            lambda: snapshot_download(
                name,
                revision=revision,
                allow_patterns=list(patterns),
                local_files_only=self.cached_only,
            ),
            revision,
        )

    def from_hub(
        self, what: str, name: str, download: Callable[[], str | Path], revision: str | None = None
    ) -> Found:
        """What `download` brings of the repository `name`; where `name` is a file in one, that file.

        Raises:
            UsageError: it cannot be had.
        """
        in_repository = HUB_FILE.fullmatch(name)
        if not in_repository and not HUB_ID.fullmatch(name):
            raise UsageError(
                f"{what} {name}: there is no such file or folder; give one, or a hub id (owner/name)"
            )
        try:
            if not in_repository:
                folder = Path(download())
                return Found(folder, folder.name)  # the hub names a snapshot's folder by its revision
            file = Path(
                hf_hub_download(
                    in_repository["repository"],
                    in_repository["file"],
                    revision=revision,
                    local_files_only=self.cached_only,
                )
            )
        except (LocalEntryNotFoundError, OfflineModeIsEnabled) as error:
            if not self.cached_only:
                raise UsageError(f"{what} {name}: {_first_line(error)}") from None
            raise UsageError(
                f"{what} {name}: not on this machine, and offline the hub is not asked; "
                "run `sdcorrect prefetch` with the network first"
            ) from None
        except (OSError, ValueError) as error:
            raise UsageError(
                f"{what} {name}: no such file or folder, nor to be had from the hub: "
                + _first_line(error)
            ) from None
        return Found(file, hash_file(file))


def local(what: str, name: str, patterns: Sequence[str]) -> Found | None:
    """The file or folder `name` of this machine, if there is one; of a folder what `patterns` match.

    Raises:
        UsageError: it cannot be read.
    """
    path = Path(name).expanduser()
    try:
        if path.is_dir():
            return Found(path, hash_folder(path, patterns))
        return Found(path, hash_file(path)) if path.is_file() else None
    except OSError as error:
        raise UsageError(f"{what} {name}: cannot be read: {error.strerror}") from None


def hash_folder(folder: Path, patterns: Sequence[str]) -> str:
    """SHA-256 over the names and contents of a folder's files that match `patterns`."""
    digest = hashlib.sha256()
    for file in sorted(file for file in folder.rglob("*") if file.is_file()):
        name = file.relative_to(folder).as_posix()
        if any(fnmatchcase(name, pattern) for pattern in patterns):
            digest.update(name.encode())
            _feed(digest, file)
    return digest.hexdigest()


def hash_file(file: Path) -> str:
    """SHA-256 of a file's content, the hash that model sites show."""
    digest = hashlib.sha256()
    _feed(digest, file)
    return digest.hexdigest()


def _feed(digest: "hashlib._Hash", file: Path) -> None:
    with file.open("rb") as stream:
        while chunk := stream.read(1 << 20):
            digest.update(chunk)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
