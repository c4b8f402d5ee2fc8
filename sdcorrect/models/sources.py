"""Find the files that a job names, on this machine or on the hub, and identify their content."""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from huggingface_hub import constants, get_session, hf_hub_download, snapshot_download
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
from sdcorrect.settings import HUB_FILE, can_be_on_hub, no_such

#: Weights that are downloaded only if a repository has no .safetensors.
PICKLED = ("*.bin", "*.ckpt", "*.pt", "*.pth")
#: Seconds that the hub may take to answer, and attempts before it counts as unreachable.
PATIENCE, TRIES = 4.0, 2

#: Errors of the hub's client when it cannot get a file.
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

    Many processes may do so at once: the hub's cache locks each file during its download.
    """

    offline: bool = False

    @property
    def cached_only(self) -> bool:
        """Whether to use only the cache: by the job, by HF_HUB_OFFLINE, or if the hub is unreachable."""
        return self.told_offline or self.unreachable is not None

    @property
    def told_offline(self) -> bool:
        return self.offline or constants.HF_HUB_OFFLINE

    @cached_property
    def unreachable(self) -> str | None:
        """Why the hub is unreachable, checked once within a few seconds; None if it answers.

        The hub's own client would try for a minute, for each file again.
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
        """The file or folder `name`; from a hub repository, only the files that match `patterns`.

        `what` is its role in the job, such as "vae", and begins every message. A folder on this machine
        is identified by the files that match `here`, by default `patterns`.

        Raises:
            UsageError: it is neither here nor on the hub.
        """
        return local(what, name, here or patterns) or self.from_hub(
            what, name, lambda: self._download(name, patterns, revision), revision
        )

    def from_hub(
        self, what: str, name: str, download: Callable[[], str | Path], revision: str | None = None
    ) -> Found:
        """What `download` gets from the repository `name`; or a single file, if `name` is one in it.

        Raises:
            UsageError: it cannot be downloaded.
        """
        in_repository = HUB_FILE.fullmatch(name)
        if not can_be_on_hub(name):
            raise UsageError(no_such(what, name))
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
                "%s %s: %s; using what was downloaded before", what, name, self._why_not_asked
            )
        path = Path(path)
        # the hub names a snapshot's folder after its revision
        return Found(path, hash_file(path) if in_repository else path.name)

    def _download(self, name: str, patterns: Sequence[str], revision: str | None) -> Path:
        """Download a repository's files that match `patterns`; pickled weights only if no others."""

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
        """Why the hub did not deliver, in words for the author of the job."""
        hub = f"the hub ({constants.ENDPOINT})"
        if self.cached_only:
            return f"not on this machine, and {self._why_not_asked}; {self._how_to_ask}"
        # diffusers wraps the hub's answer in advice of its own
        match error.__cause__ if isinstance(error.__cause__, HfHubHTTPError) else error:
            case GatedRepoError():
                return "access is restricted: request it on the model's page, then run `hf auth login`"
            case RepositoryNotFoundError():
                return f"no such file or folder, and not on {hub}; if it is private, run `hf auth login`"
            case RevisionNotFoundError() | RevisionResolutionError():
                return f"{hub} has no revision {revision} of this repository"
            case LocalEntryNotFoundError():
                return f"{hub} stopped answering: {reason_of(error.__cause__ or error)}"
            case EntryNotFoundError():
                return f"{hub} has no such file in this repository"
        return f"no such file or folder, and {hub} does not provide it: {reason_of(error)}"

    @property
    def _why_not_asked(self) -> str:
        if self.told_offline:
            return "the hub is not contacted offline"
        return f"the hub ({constants.ENDPOINT}) cannot be reached: {self.unreachable}"

    @property
    def _how_to_ask(self) -> str:
        """What to do; prefetch itself ignores `offline` of a job."""
        if self.offline:
            return "run `sdcorrect prefetch` with network access first"
        if self.told_offline:
            return "unset HF_HUB_OFFLINE and run `sdcorrect prefetch`"
        return "run `sdcorrect prefetch` on a machine that reaches it, into the same cache"


def _reach(address: str) -> str | None:
    """Why `address` does not answer within a few seconds; None if it does."""
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
        reason = f"it answers with status {status}"
    return reason


def local(what: str, name: str, patterns: Sequence[str]) -> Found | None:
    """The file or folder `name` on this machine, if any; a folder is hashed over files of `patterns`.

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
