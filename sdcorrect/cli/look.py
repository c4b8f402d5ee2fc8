"""Find a job's pictures before anything is loaded."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from sdcorrect.cli.console import notice
from sdcorrect.config import Job
from sdcorrect.errors import UsageError, printable

if TYPE_CHECKING:
    from sdcorrect.inputs.items import Found


def look(job: Job) -> "Found":
    """The pictures that `job` covers.

    Raises:
        UsageError: there are none, their hints or masks are missing, or the output folder is a file.
    """
    from sdcorrect.inputs.hints import check_hints
    from sdcorrect.inputs.items import find
    from sdcorrect.inputs.masks import check_mask
    from sdcorrect.matching import check_matching

    _check_output(job.output.path)
    check_hints(job.controlnets)
    check_mask(job.mask)
    if job.match_colors:
        check_matching()
    return find(job)


def _check_output(folder: Path) -> None:
    nearest = next(path for path in (folder, *folder.parents, Path()) if os.path.exists(path))
    if not os.path.isdir(nearest):
        raise UsageError(f"output.path: {printable(nearest)} is a file; give a folder")


def tell_left_out(found: "Found") -> None:
    for line in found.notices:
        notice(line)
