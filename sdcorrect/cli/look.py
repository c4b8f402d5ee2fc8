"""Find a job's pictures before anything is loaded."""

from typing import TYPE_CHECKING

from sdcorrect.cli.console import notice
from sdcorrect.config import Job

if TYPE_CHECKING:
    from sdcorrect.inputs.items import Found


def look(job: Job) -> "Found":
    """The pictures that `job` covers.

    Raises:
        UsageError: there are none, or their hints or masks are missing.
    """
    from sdcorrect.inputs.hints import check_hints
    from sdcorrect.inputs.items import find
    from sdcorrect.inputs.masks import check_mask
    from sdcorrect.matching import check_matching

    check_hints(job.controlnets)
    check_mask(job.mask)
    if job.match_colors:
        check_matching()
    return find(job)


def tell_left_out(found: "Found") -> None:
    for line in found.notices:
        notice(line)
