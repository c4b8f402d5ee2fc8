"""Write results to disk: the picture's file first, then its record."""

import errno
import logging
import os
from collections.abc import Callable, Set
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from sdcorrect import __version__
from sdcorrect.batch.attempts import Result
from sdcorrect.batch.metadata import as_file, parameters
from sdcorrect.config import Job
from sdcorrect.errors import FilteredOut, PictureError, SdcorrectError, printable
from sdcorrect.inputs.items import Item, seed_of
from sdcorrect.inputs.pictures import Picture
from sdcorrect.output.files import is_plain, replace, writing
from sdcorrect.output.ledger import Ledger
from sdcorrect.output.records import Done, Failed, Fingerprint, InputFile, OutputFile, Record, Refused
from sdcorrect.translate import Translator

#: The schedulers' names in web UIs.
SAMPLERS = {
    "ddim": "DDIM",
    "dpm++": "DPM++ 2M",
    "unipc": "UniPC",
    "lcm": "LCM",
    "sde-dpm++": "DPM++ 2M SDE",
}
#: Errors of the file system that concern a single name: something is in its way, it is too long, or it
#: has characters that the file system rejects.
IN_THE_WAY = {errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.ENOTEMPTY, errno.ELOOP}
OF_A_NAME = {*IN_THE_WAY, errno.ENAMETOOLONG, errno.EINVAL, errno.EILSEQ}

logger = logging.getLogger(__name__)


class Recorder:
    """Saves and records the result of each picture and variant of a job.

    `outputs` are the paths of the job's pictures, relative to a variant's folder.
    """

    def __init__(
        self,
        job: Job,
        translator: Translator,
        fingerprint: Fingerprint,
        ledger: Ledger,
        outputs: Set[str],
    ) -> None:
        self.job = job
        self.translator = translator
        self.fingerprint = fingerprint
        self.ledger = ledger
        self.outputs = outputs
        self.wrote = False  #: whether anything was recorded

    def record_failure(self, item: Item, variant: str, error: PictureError) -> Record:
        """Record that `item` cannot be translated, unless an earlier run has recorded the same.

        Raises:
            SdcorrectError: the output folder cannot be written.
        """
        record = Refused(
            status="filtered" if isinstance(error, FilteredOut) else "failed",
            error=str(error),
            seed=self._seed(item, error.sha256, variant) if error.sha256 else None,
            **self._asked(item, error.sha256, variant),
        )
        known = self.ledger.known(item.key, variant)
        if known and known.unfinished:
            changing = {"finished", "attempt"}
            if known.unfinished.model_dump(exclude=changing) == record.model_dump(exclude=changing):
                return known.unfinished
        return self._append(record, item)

    def encode(self, picture: Picture, variant: str, result: Result) -> bytes | None:
        """The bytes of the result's file, or None without an image. Safe in any thread, in any order.

        Raises:
            PictureError: the format cannot hold the result.
        """
        if result.image is None or result.problem:
            return None
        text = self._parameters(picture, variant) if self.job.output.embed_metadata else None
        return as_file(result.image, picture, self.job, text)

    def save(
        self, picture: Picture, variant: str, result: Result, encoded: Callable[[], bytes | None]
    ) -> Record:
        """Write the result, then record it; `encoded` returns what `encode` does.

        Raises:
            SdcorrectError: the output folder cannot be written.
        """
        item = picture.item
        asked = self._asked(item, picture.sha256, variant, picture.companions) | {
            "seed": self._seed(item, picture.sha256, variant),
            "size": picture.image.size,
            "unet_evaluations": result.evaluations,
            "seconds": round(result.seconds, 4),
        }
        try:
            content = encoded()
            if content is None:
                return self._append(Failed(error=str(result.problem), **asked), item)
            output = OutputFile(path=(Path(variant) / item.output).as_posix())
            matched = self.job.match_colors
            record = Done(output=output, edited=result.edited, matched_colors=matched, **asked)
            self._write(record, content)
        except PictureError as error:
            return self._append(Failed(error=str(error), **asked), item)
        return self._append(record, item)

    def _write(self, record: Done, content: bytes) -> None:
        """Raises PictureError if the file's name is at fault, SdcorrectError if the folder is."""
        file = self.job.output.path / record.output.path
        try:
            replace(file, content, temporary=self.ledger.temporary)
        except OSError as error:
            reason = f"output {printable(file)}: cannot be written: {error.strerror}"
            if error.errno in IN_THE_WAY:
                reason += "; another file or folder is in its way"
            if self._is_of_the_name(error, self.job.output.path / record.variant):
                raise PictureError(reason) from None
            raise SdcorrectError(reason) from None

    @staticmethod
    def _is_of_the_name(error: OSError, folder: Path) -> bool:
        if error.errno in {errno.EACCES, errno.EPERM}:
            return os.access(folder, os.W_OK | os.X_OK)
        return error.errno in OF_A_NAME

    def _parameters(self, picture: Picture, variant: str) -> str:
        item, method = picture.item, self.translator.methods[variant]
        model = self.translator.model
        width, height = picture.image.size
        return parameters(
            item.prompt,
            method.negative_prompt_for(item.negative_prompt),
            {
                "Steps": method.steps,
                "Sampler": SAMPLERS[method.scheduler],
                "CFG scale": method.guidance_scale,
                "Seed": self._seed(item, picture.sha256, variant),
                "Size": f"{width}x{height}",
                "Model hash": model.identity[:10],
                "Model": Path(model.name).name,
                "Denoising strength": method.strength,
                "Method": method.recipe.name,
                "Version": f"sdcorrect {__version__}",
            },
        )

    def _seed(self, item: Item, sha256: str, variant: str) -> int:
        return seed_of(item, sha256, self.translator.methods[variant].seed)

    def _asked(
        self, item: Item, sha256: str | None, variant: str, companions: tuple[str, ...] | None = None
    ) -> dict[str, Any]:
        """The fields that every record of `item` has."""
        method = self.translator.methods[variant]
        return {
            "input": InputFile(path=item.key, sha256=sha256, companions=companions),
            "variant": variant,
            "prompt": item.prompt,
            "negative_prompt": method.negative_prompt_for(item.negative_prompt),
            "source_prompt": item.source_prompt,
            "effective_steps": method.effective_steps,
            "fingerprint": self.fingerprint.mark(item, variant),
            "finished": datetime.now(timezone.utc),
            "attempt": self.ledger.next_attempt(item.key, variant),
        }

    def _append(self, record: Record, item: Item) -> Record:
        """Add `record`; remove or warn of outputs of earlier runs that it makes stale."""
        known = self.ledger.known(item.key, record.variant)
        path = Path(record.variant) / item.output
        if record.output is None:
            self._remove(path)
        if known and known.output and Path(known.output) != path:
            earlier = Path(known.output)
            if earlier.relative_to(record.variant).as_posix() not in self.outputs:
                logger.warning(
                    "%s: is the output of %s under another name, from an earlier run; it is not "
                    "counted, and stays until you remove it",
                    printable(self.job.output.path / earlier),
                    printable(item.key),
                )
        self.ledger.append(record)
        self.wrote = True
        return record

    def _remove(self, path: Path) -> None:
        file = self.job.output.path / path
        if is_plain(file) and self.ledger.folder.holds(path.as_posix()):
            with writing(file):
                file.unlink()
            logger.warning("%s: removed, because it came from an earlier run", printable(file))
