"""Find a job's pictures before anything is loaded, then load its model."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from sdcorrect.cli.console import notice, working
from sdcorrect.config import Job
from sdcorrect.errors import UsageError, printable
from sdcorrect.libraries import lean_imports

if TYPE_CHECKING:
    from sdcorrect.inputs.items import Found
    from sdcorrect.models import Model


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


def load_model(job: Job) -> "Model":
    """The model of `job`, with a spinner while it loads."""
    with lean_imports():
        from sdcorrect.models import load, quiet_libraries

    quiet_libraries()
    with working(f"loading {job.model}"):
        return load(job)
