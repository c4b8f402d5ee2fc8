"""What lies among the pictures of a folder and is not taken, so that it can be told."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from posixpath import splitext

from sdcorrect.errors import NAMED, listed, printable

LONGEST = 30  #: characters of a name


@dataclass
class LeftOut:
    """All paths are relative to the folder that is walked."""

    files: list[str] = field(default_factory=list)  #: which are no pictures
    hidden: int = 0  #: files
    folders: list[str] = field(default_factory=list)  #: hidden ones, and those that systems keep
    outputs: list[str] = field(default_factory=list)  #: folders that an earlier run wrote
    companions: list[str] = field(default_factory=list)  #: folders of this job's hints and masks

    def told(self) -> tuple[str, ...]:
        """A line for each kind that there is."""
        lines = []
        if self.files:
            suffixes = (splitext(path)[1].lower() or "without suffix" for path in self.files)
            lines.append(f"{_count(self.files, 'file')} no picture: {_counted(suffixes)}")
        if self.hidden:
            lines.append(f"{self.hidden} hidden file{'s' * (self.hidden > 1)}")
        if self.folders:
            names = (path.rpartition("/")[2] for path in self.folders)
            lines.append(f"{_count(self.folders, 'folder')} hidden or the system's: {_counted(names)}")
        if self.outputs:
            lines.append(f"{_count(self.outputs, 'folder')} an earlier run's: {listed(self.outputs)}")
        if self.companions:
            what = f"{_count(self.companions, 'folder')} the job's hints or masks"
            lines.append(f"{what}: {listed(self.companions)}")
        return tuple(f"left out {line}" for line in lines)


def _count(paths: list[str], what: str) -> str:
    return f"{len(paths)} {what} that is" if len(paths) == 1 else f"{len(paths)} {what}s that are"


def _counted(names: Iterable[str]) -> str:
    """The most frequent of `names`, cut to what a line can hold, and how many others there are."""
    counts = Counter(name if len(name) <= LONGEST else f"{name[: LONGEST - 3]}..." for name in names)
    first = ", ".join(f"{count} {printable(name)}" for name, count in counts.most_common(NAMED))
    others = counts.total() - sum(count for _, count in counts.most_common(NAMED))
    return f"{first}, {others} others" if others else first
