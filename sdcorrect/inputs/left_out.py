"""Collect what is left out of a folder of pictures, so that it can be reported."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from posixpath import splitext

from sdcorrect.errors import NAMED, counted, listed, printable, shortened

LONGEST = 30  #: characters of a name


@dataclass
class LeftOut:
    """What a walk left out; paths are relative to the folder that is walked."""

    files: list[str] = field(default_factory=list)  #: files that are not pictures
    hidden: int = 0  #: number of hidden files
    folders: list[str] = field(default_factory=list)  #: hidden folders, and those of systems
    outputs: list[str] = field(default_factory=list)  #: output folders of earlier runs
    companions: list[str] = field(default_factory=list)  #: folders of this job's hints and masks

    def told(self) -> tuple[str, ...]:
        """A line for each kind."""
        lines = []
        if self.files:
            suffixes = (splitext(path)[1].lower() or "without suffix" for path in self.files)
            lines.append(f"{counted(len(self.files), 'non-picture file')}: {_counted(suffixes)}")
        if self.hidden:
            lines.append(counted(self.hidden, "hidden file"))
        if self.folders:
            names = (path.rpartition("/")[2] for path in self.folders)
            lines.append(f"{counted(len(self.folders), 'hidden or system folder')}: {_counted(names)}")
        if self.outputs:
            lines.append(
                f"{counted(len(self.outputs), 'folder')} of earlier runs: {listed(self.outputs)}"
            )
        if self.companions:
            what = f"{counted(len(self.companions), 'folder')} of the job's hints or masks"
            lines.append(f"{what}: {listed(self.companions)}")
        return tuple(f"left out {line}" for line in lines)


def _counted(names: Iterable[str]) -> str:
    """The most frequent of `names`, shortened to fit a line, and the number of others."""
    counts = Counter(shortened(name, LONGEST) for name in names)
    first = ", ".join(f"{count} {printable(name)}" for name, count in counts.most_common(NAMED))
    others = counts.total() - sum(count for _, count in counts.most_common(NAMED))
    return f"{first}, {others} others" if others else first
