"""Read the companions of each picture: ready-made hints and the mask."""

from dataclasses import replace

from sdcorrect.config import Job
from sdcorrect.errors import PictureError
from sdcorrect.inputs.companions import companion_limits
from sdcorrect.inputs.hints import check_hints, hint_files, hints_of
from sdcorrect.inputs.items import Item
from sdcorrect.inputs.masks import Masks
from sdcorrect.inputs.pictures import Picture, Sizing, sha256_of


class Beside:
    """The companions of a job's pictures.

    Raises:
        UsageError: a folder of them, or the mapping file, cannot be read.
    """

    def __init__(self, job: Job, sizing: Sizing) -> None:
        check_hints(job.controlnets)
        self.job = job
        self.sizing = sizing
        self.masks = Masks(job)
        self.limits = companion_limits(job.input)

    def add_to(self, picture: Picture) -> Picture:
        """`picture` with its companions.

        Raises:
            PictureError: one is missing, or cannot be used.
        """
        # hashed before they are read, so that a change in between is noticed by the next run
        companions = self.sha256s(picture.item)
        limit = self.job.input.max_pixels
        return replace(
            picture,
            hints=hints_of(picture, self.job.controlnets, self.sizing, limit),
            mask=self.masks.of(picture),
            companions=companions,
        )

    def sha256s(self, item: Item) -> tuple[str, ...]:
        """The SHA-256 of the companions of `item`, without decoding them; none if one is missing."""
        try:
            files = hint_files(item, self.job.controlnets)
            hints = [sha256_of(file, self.limits) for file in files]
            mask = self.masks.sha256(item)
        except PictureError:
            return ()
        return (*hints, mask) if mask else tuple(hints)
