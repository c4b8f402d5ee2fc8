"""Copies for a page: thumbnails, and sources at the size of their outputs, each written once.

They are in `OUT/report`, so that the page still works when the folder is moved. The name of a copy is
a hash of what it shows, so that a changed picture gets a new copy.
"""

import base64
import hashlib
import io
import math
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from PIL import Image

from sdcorrect.config import Input, Job
from sdcorrect.errors import PictureError, UsageError, printable
from sdcorrect.inputs.pictures import fitted, read_encoded, read_image
from sdcorrect.output.files import is_plain, write_atomically
from sdcorrect.output.folder import OutputFolder
from sdcorrect.output.records import Done, Failed

#: The longer side of a thumbnail, px. Smaller pictures are their own thumbnails, copied without loss.
THUMBNAIL = 320
MEDIA_TYPES = {".png": "image/png", ".jpg": "image/jpeg", ".webp": "image/webp"}


@dataclass(frozen=True)
class Copy:
    """The files that show one picture: at full size, and small."""

    full: Path
    thumbnail: Path
    limits: Input  #: limits from the size in the picture's record

    def embedded(self) -> str:
        """The full-size picture as a `data:` address; a large PNG becomes a WebP, ten times smaller.

        Raises:
            PictureError: it cannot be read, or is damaged.
        """
        suffix = self.full.suffix
        if suffix == ".png" and self.full != self.thumbnail:
            data, suffix = _webp(read_image(self.full, self.limits)[0]), ".webp"
        else:
            data = read_encoded(self.full, self.limits)
        return f"data:{MEDIA_TYPES[suffix]};base64,{base64.b64encode(data).decode()}"


class Copies:
    """The copies of an output folder's pictures."""

    def __init__(self, out: Path, job: Job) -> None:
        self.folder = OutputFolder(out)
        self.job = job

    def of_source(self, source: Path | None, record: Done | Failed) -> Copy | None:
        """The source as it went into the model, at the size of its outputs.

        None if it is gone and was never copied.

        Raises:
            PictureError: it can no longer be read, or has changed.
            SdcorrectError: the folder cannot be written.
            UsageError: a link leads outside the folder.
        """
        full = self._file(record.input.sha256, self.job.resize, record.size)
        if not self._stands(full):
            if source is None:
                return None
            image, sha256 = read_image(source, self.job.input)
            if sha256 != record.input.sha256:
                raise PictureError("has changed since it was translated")
            self._write(full, fitted(image, self.job.resize, record.size))
        return self._with_thumbnail(full, record)

    def of_output(self, record: Done) -> Copy:
        """The output of a picture that is done.

        Raises:
            PictureError: it is damaged, or not in the output folder.
            SdcorrectError: the folder cannot be written.
        """
        return self._with_thumbnail(self.folder.picture(record), record)

    def _with_thumbnail(self, full: Path, record: Done | Failed) -> Copy:
        limits = Input(path=full, max_pixels=math.prod(record.size))
        if max(record.size) <= THUMBNAIL:
            return Copy(full, full, limits)
        thumbnail = self._file(full.relative_to(self.folder.path), record.finished)
        if not self._stands(thumbnail):
            try:
                image, _ = read_image(full, limits)
            except PictureError:
                raise PictureError("is damaged") from None
            image.thumbnail((THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS)
            self._write(thumbnail, image)
        return Copy(full, thumbnail, limits)

    def _file(self, *what: object) -> Path:
        name = hashlib.sha256(" ".join(map(repr, what)).encode()).hexdigest()[:32]
        return self.folder.path / "report" / name[:2] / f"{name}.webp"

    def _stands(self, file: Path) -> bool:
        return is_plain(file) and self.folder.holds(self._relative(file))

    def _relative(self, file: Path) -> str:
        return file.relative_to(self.folder.path).as_posix()

    def _write(self, file: Path, image: Image.Image) -> None:
        if not self.folder.holds(self._relative(file.parent)):
            raise UsageError(
                f"{printable(file.parent)}: a link leads out of the output folder; remove it"
            )
        content = _webp(image)
        # a picture may be in the job twice, and be copied by two threads at once
        temporary = file.with_suffix(f".{uuid4().hex}")
        write_atomically(file, content, temporary=temporary)


def _webp(image: Image.Image) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "WEBP", lossless=max(image.size) <= THUMBNAIL, quality=90)
    return stream.getvalue()
