"""Read PIE-Bench's mapping file (Ju et al., PnP Inversion, ICLR 2024): prompts and edit masks."""

from collections.abc import Sequence
from pathlib import Path
from posixpath import splitext
from typing import Annotated

import numpy as np
from PIL import Image
from pydantic import AfterValidator, BaseModel, Field, TypeAdapter, ValidationError

from sdcorrect.errors import UsageError, of_pydantic, printable
from sdcorrect.inputs.tables import read_json
from sdcorrect.reading import decode, read_bytes

SIDE = 512  #: side of its pictures, px
PICTURES = "annotation_images"  #: the folder beside the mapping file


def _check_pairs(runs: list[int]) -> list[int]:
    if len(runs) % 2:
        raise ValueError("a mask must alternate starts and lengths, but its last start has no length")
    return runs


class Annotation(BaseModel):
    """One edit of one picture in the mapping file; brackets in prompts mark the differences."""

    image_path: str
    original_prompt: str = ""
    editing_prompt: str = ""
    editing_type_id: str = ""
    #: the edited words, from both prompts; empty if the edit concerns no single word
    blended_word: str = ""
    mask: Annotated[list[Annotated[int, Field(ge=0, lt=2**31)]], AfterValidator(_check_pairs)] = Field(
        default_factory=list
    )


def read_mapping(file: Path) -> dict[str, Annotation]:
    """The annotations by picture: its path in `annotation_images`, without suffix.

    Raises:
        UsageError: it cannot be read, is not such a file, or has two masks for one picture.
    """
    by_picture: dict[str, Annotation] = {}
    for annotation in read_annotations(file):
        stem = splitext(annotation.image_path)[0]
        if by_picture.setdefault(stem, annotation).mask != annotation.mask:
            raise UsageError(f"{printable(file)}: {printable(stem)} has two masks")
    return by_picture


def read_annotations(file: Path) -> list[Annotation]:
    """All annotations in `file`. Raises UsageError if it cannot be read, or is not such a file."""
    try:
        content = read_json(decode(read_bytes(file)))
        return list(TypeAdapter(dict[str, Annotation]).validate_python(content).values())
    except OSError as error:
        raise UsageError(f"{printable(file)}: cannot be read: {error.strerror}") from None
    except ValidationError as errors:
        first = errors.errors()[0]
        where = printable(".".join(map(str, first["loc"])) or "as a whole")
        reason = of_pydantic(first["msg"])
        raise UsageError(f"{printable(file)}: not PIE-Bench's mapping file: {where}: {reason}") from None
    except ValueError as error:
        raise UsageError(f"{printable(file)}: not PIE-Bench's mapping file: {error}") from None


def decode_mask(runs: Sequence[int]) -> Image.Image:
    """Decode a mask from starts and lengths of runs, row by row; the border is always part of it."""
    flat = np.zeros(SIDE**2, dtype=np.uint8)
    for start, length in zip(runs[::2], runs[1::2], strict=True):
        flat[start : start + length] = 255
    mask = flat.reshape(SIDE, SIDE)
    mask[[0, -1]] = mask[:, [0, -1]] = 255
    return Image.fromarray(mask)
