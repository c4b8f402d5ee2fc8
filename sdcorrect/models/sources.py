"""Find what a job names, here or on the hub, and tell what its content is."""

import logging
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from huggingface_hub import (
    constants,
    get_session,
    hf_hub_download,
    snapshot_download,
)
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
    RevisionResolutionError,
)
from huggingface_hub.utils import httpx

from sdcorrect.errors import UsageError, printable
from sdcorrect.models.hashes import NOT_LOADED, files_below, hash_file, hash_folder, matches
from sdcorrect.models.reasons import reason_of

HUB_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*")
HUB_FILE = re.compile(rf"(?P<repository>{HUB_ID.pattern})/(?P<file>.+)")
#: Weights that are downloaded only where a repository has no .safetensors.
PICKLED = ("*.bin", "*.ckpt", "*.pt", "*.pth")
#: How long the hub may take to answer, s, and how often it is asked before it counts as unreachable.
PATIENCE, TRIES = 4.0, 2

#: What the hub's client raises where it does not bring what was asked for.
HUB_ERRORS = (OSError, ValueError, EntryNotFoundError, RevisionResolutionError, httpx.HTTPError)

logger = logging.getLogger(__name__)


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
        """Whether the hub is not asked: the job or HF_HUB_OFFLINE says so, or it does not answer."""
        return self.told_offline or self.unreachable is not None

    @property
    def told_offline(self) -> bool:
        return self.offline or constants.HF_HUB_OFFLINE

    @cached_property
    def unreachable(self) -> str | None:
        """Why the hub cannot be asked, found out once and in a few seconds; None where it answers.

        The hub's own client tries for a minute, for each file anew.
        """
        return _reach(constants.ENDPOINT)

    def find(
        self,
        what: str,
        name: str,
        patterns: Sequence[str],
        revision: str | None = None,
        *,
        here: Sequence[str] | None = None,
    ) -> Found:
        """The file or folder `name`; of a hub repository the files that match `patterns`.

        `what` it is to the job, such as "vae", begins every message. A folder on this machine is
        identified by the files that match `here`, by default those of `patterns`.

        Raises:
            UsageError: it is neither here nor to be had from the hub.
        """
        return local(what, name, here or patterns) or self.from_hub(
            what, name, lambda: self._download(name, patterns, revision), revision
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
            if in_repository:
                path = hf_hub_download(
                    in_repository["repository"],
                    in_repository["file"],
                    revision=revision,
                    local_files_only=self.cached_only,
                )
            else:
                path = download()
        except HUB_ERRORS as error:
            raise UsageError(f"{what} {name}: {self._explain(error, revision)}") from None
        if not self.told_offline and self.unreachable:
            logger.warning(
                "%s %s: %s; what was downloaded before is used", what, name, self._why_not_asked
            )
        path = Path(path)
        # the hub names a snapshot's folder by its revision
        return Found(path, hash_file(path) if in_repository else path.name)

    def _download(self, name: str, patterns: Sequence[str], revision: str | None) -> Path:
        """The files of a repository that match `patterns`; pickled weights where it has no others."""

        def take(*left_out: str) -> Path:
            return Path(
                snapshot_download(
                    name,
                    revision=revision,
                    allow_patterns=list(patterns),
                    ignore_patterns=[*NOT_LOADED, *left_out],
                    local_files_only=self.cached_only,
                )
            )

        folder = take(*PICKLED)
        there = (file.relative_to(folder).as_posix() for file in files_below(folder))
        safe = any(name.endswith(".safetensors") and matches(name, patterns) for name in there)
        return folder if safe else take()

    def _explain(self, error: Exception, revision: str | None) -> str:
        """What became of asking the hub, in words for those who wrote the job."""
        hub = f"the hub ({constants.ENDPOINT})"
        if self.cached_only:
            return (
                f"not on this machine, and {self._why_not_asked}; "
                "run `sdcorrect prefetch` with the network first"
            )
        # diffusers wraps what the hub answered in advice of its own
        match error.__cause__ if isinstance(error.__cause__, HfHubHTTPError) else error:
            case GatedRepoError():
                return "its owner gives it to those who ask: do so on its page, then run `hf auth login`"
            case RepositoryNotFoundError():
                return (
                    f"no such file or folder, nor is it on {hub}; if it is private, run `hf auth login`"
                )
            case RevisionNotFoundError() | RevisionResolutionError():
                return f"{hub} has no revision {revision} of it"
            case LocalEntryNotFoundError():
                return f"{hub} stopped answering: {reason_of(error.__cause__ or error)}"
            case EntryNotFoundError():
                return f"{hub} has no such file in that repository"
        return f"no such file or folder, nor to be had from {hub}: {reason_of(error)}"

    @property
    def _why_not_asked(self) -> str:
        if self.told_offline:
            return "offline the hub is not asked"
        return f"the hub ({constants.ENDPOINT}) cannot be reached: {self.unreachable}"


def _reach(address: str) -> str | None:
    """Why `address` does not answer within a few seconds; None where it does."""
    reason = None
    for attempt in range(TRIES):
        time.sleep(attempt)
        try:
            status = get_session().head(address, timeout=PATIENCE).status_code
        except httpx.TimeoutException:
            return f"no answer in {PATIENCE:g} s"
        except httpx.TransportError as error:
            reason = reason_of(error)
            continue
        if status < 500:
            return None
        reason = f"it answers {status}"
    return reason


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
        where = f": {printable(error.filename)}" if error.filename else ""
        raise UsageError(f"{what} {name}: cannot be read: {error.strerror}{where}") from None
