"""Which pictures a job has, and each of them upright, opaque and of a size the model takes."""

import hashlib
import io
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from PIL import Image, ImageOps, UnidentifiedImageError

from sdcorrect.config import Job
from sdcorrect.errors import PictureError, UsageError

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"}
Resize = Literal["fit", "crop", "none"]


@dataclass(frozen=True)
class Item:
    """One picture of a job, and what is asked of it."""

    source: Path
    key: str  #: names it in the records and decides its shard: the path relative to the input folder
    output: Path  #: where it goes below a variant's folder
    prompt: str
    negative_prompt: str
    seed: int | None = None  #: where the job's list gives one


@dataclass(frozen=True)
class Picture:
    """A picture ready for the model."""

    item: Item
    sha256: str
    image: Image.Image  #: RGB


@dataclass(frozen=True)
class Sizing:
    """How pictures become a size that the model takes: `size` and `multiple` in px."""

    resize: Resize
    size: int
    multiple: int

    def apply(self, image: Image.Image) -> Image.Image:
        """`image` scaled as `resize` says.

        fit: the whole picture, its longer side `size`, both sides rounded to the multiple.
        crop: the picture's middle, `size` by `size`.
        none: as it is.

        Raises:
            PictureError: `none`, and a side is not a multiple.
        """
        if self.resize == "none":
            if any(side % self.multiple for side in image.size):
                width, height = image.size
                raise PictureError(
                    f"{width}x{height} px: sides must be multiples of {self.multiple} px; "
                    "use resize: fit or crop"
                )
            return image
        if self.resize == "crop":
            side = self._rounded(self.size)
            return ImageOps.fit(image, (side, side), Image.Resampling.LANCZOS)
        scale = self.size / max(image.size)
        width, height = (self._rounded(side * scale) for side in image.size)
        return image.resize((width, height), Image.Resampling.LANCZOS)

    def _rounded(self, side: float) -> int:
        return max(1, round(side / self.multiple)) * self.multiple


def find_items(job: Job) -> list[Item]:
    """The pictures that `job` covers, sorted by path.

    Raises:
        UsageError: there is no such folder, or there are no pictures in it.
    """
    folder = job.input.path
    if not folder.is_dir():
        what = "is a file, not a folder" if folder.exists() else "there is no such folder"
        raise UsageError(f"input {folder}: {what}; give a folder of pictures")
    files = sorted(_walk(folder, job.input.recursive, job.output.path.resolve()))
    pictures = [file for file in files if file.suffix.lower() in SUFFIXES]
    if not files:
        raise UsageError(f"input {folder}: the folder is empty; give a folder of pictures")
    if not pictures:
        raise UsageError(
            f"input {folder}: none of its {len(files)} files is a picture ({' '.join(sorted(SUFFIXES))})"
        )
    outputs = _output_names(pictures, job.output.format)
    return [
        Item(folder / picture, picture.as_posix(), outputs[picture], job.prompt, job.negative_prompt)
        for picture in pictures[: job.limit]
    ]


def _walk(folder: Path, recursive: bool, exclude: Path) -> Iterator[Path]:
    for parent, subfolders, files in os.walk(folder):
        subfolders[:] = [
            name
            for name in subfolders
            if recursive and not name.startswith(".") and (Path(parent) / name).resolve() != exclude
        ]
        for name in files:
            if not name.startswith("."):
                yield (Path(parent) / name).relative_to(folder)


def _output_names(pictures: list[Path], suffix: str) -> dict[Path, Path]:
    """Where each picture goes: the same relative path with `suffix`.

    Where that is one name for several (a.jpg, a.png), each keeps its own suffix too.
    """
    sharing = Counter(picture.with_suffix("") for picture in pictures)
    return {
        picture: picture.with_suffix(f".{suffix}")
        if sharing[picture.with_suffix("")] == 1
        else picture.with_name(f"{picture.name}.{suffix}")
        for picture in pictures
    }


def read_picture(item: Item, sizing: Sizing) -> Picture:
    """Read, turn upright, lay transparency onto white, and size one picture.

    Raises:
        PictureError: it cannot be read as a picture, or its size does not fit.
    """
    try:
        data = item.source.read_bytes()
    except OSError as error:
        raise PictureError(f"cannot be read: {error.strerror}") from None
    sha256 = hashlib.sha256(data).hexdigest()
    try:
        with Image.open(io.BytesIO(data)) as image:
            opaque = _onto_white(ImageOps.exif_transpose(image))
        return Picture(item, sha256, sizing.apply(opaque))
    except UnidentifiedImageError:
        raise PictureError("not a picture that can be read", sha256) from None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise PictureError(f"cannot be read: {error}", sha256) from None
    except PictureError as error:
        raise PictureError(str(error), sha256) from None


def _onto_white(image: Image.Image) -> Image.Image:
    if not image.has_transparency_data:
        return image.convert("RGB")
    layer = image.convert("RGBA")
    white = Image.new("RGBA", layer.size, "white")
    return Image.alpha_composite(white, layer).convert("RGB")
