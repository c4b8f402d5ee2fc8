"""What is asked for a picture, and what comes of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from PIL import Image


@dataclass(frozen=True)
class Request:
    """A picture and how to translate it."""

    image: Image.Image  #: RGB, of a size that the model takes
    seed: int | Mapping[int, int]  #: the picture's own; in a sweep, by the seeds of the job
    prompt: str
    negative_prompt: str = ""
    source_prompt: str | None = None  #: what the picture shows, for recipes that need it
    hints: Sequence[Image.Image] = ()  #: one for each ControlNet
    mask: Image.Image | None = None  #: mode L, size of the image: 255 where to edit, else 0
    mask_words: str | None = None  #: words of the source prompt (or the prompt) that find the mask

    def seed_by(self, job_seed: int) -> int:
        """The picture's own seed."""
        return self.seed if isinstance(self.seed, int) else self.seed[job_seed]


@dataclass(frozen=True)
class Translation:
    """The results of one recipe on a batch."""

    pictures: list[Image.Image | None]  #: None where the result is not finite
    evaluations: int  #: U-Net evaluations per picture, including the inversion
    flagged: list[bool]  #: whether the safety checker considers a picture unsafe
    seconds: float  #: for the batch, by this recipe, including an inversion that it shares
    edited: list[float | None]  #: the share of each picture inside its mask; None without a mask
