"""Find a job's pictures before anything is loaded, then load its model."""

import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from sdcorrect.cli.console import note, notice, working
from sdcorrect.config import Job
from sdcorrect.errors import UsageError, printable
from sdcorrect.libraries import lean_imports
from sdcorrect.settings import can_be_on_hub, no_such, sources

if TYPE_CHECKING:
    from sdcorrect.inputs.items import Found
    from sdcorrect.models import Model


def look(job: Job) -> "Found":
    """The pictures that `job` covers.

    Raises:
        UsageError: there are none, their hints or masks are missing, or the output folder is a file.
    """
    from sdcorrect.inputs.items import find

    for check in _checks(job):
        check()
    return find(job)


def problems(job: Job) -> list[str]:
    """All that is wrong with the files that `job` names; names that may be hub ids are noted."""
    found = problems_of_pictures(job)
    for what, name in sources(job):
        if Path(name).expanduser().exists():
            continue
        if can_be_on_hub(name):
            note(
                f"{what} {printable(name)}: no path here, so it is taken for a hub id; "
                "`sdcorrect doctor` says whether it is downloaded"
            )
        else:
            found.append(no_such(what, name))
    return list(dict.fromkeys(found))


def problems_of_pictures(job: Job) -> list[str]:
    """All that is wrong with the pictures, their hints, masks and texts, and the output folder."""
    from sdcorrect.inputs.captions import read_classes, read_coco
    from sdcorrect.inputs.items import find

    captions, classes, found = job.input.captions, job.input.classes, []
    readings: list[Callable[[], object]] = [partial(find, job)]
    readings += [partial(read_coco, captions)] if captions else []
    readings += [partial(read_classes, classes)] if classes else []
    for check in (*_checks(job), *readings):
        try:
            check()
        except UsageError as error:
            found.append(str(error))
    return list(dict.fromkeys(found))


def _checks(job: Job) -> Iterator[Callable[[], object]]:
    """What can be checked before the pictures are looked for; each raises UsageError."""
    from sdcorrect.inputs.hints import check_hints
    from sdcorrect.inputs.masks import Masks
    from sdcorrect.matching import check_matching

    yield partial(_check_output, job.output.path)
    for network in job.controlnets:
        yield partial(check_hints, [network])
    yield partial(Masks, job)
    if job.match_colors:
        yield check_matching


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
