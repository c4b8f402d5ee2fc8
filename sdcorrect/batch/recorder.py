"""What becomes of a picture, on the disk: its file first, and then its record."""

from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from sdcorrect import __version__
from sdcorrect.batch.attempts import Result
from sdcorrect.batch.metadata import parameters, save
from sdcorrect.config import Job
from sdcorrect.errors import FilteredOut, PictureError
from sdcorrect.inputs.items import Item, seed_of
from sdcorrect.inputs.pictures import Picture
from sdcorrect.output.files import write_atomically
from sdcorrect.output.ledger import Ledger
from sdcorrect.output.records import Fingerprint, InputFile, OutputFile, Record, Status
from sdcorrect.translate import Translator

#: What the web UIs call the schedulers.
SAMPLERS = {"ddim": "DDIM", "dpm++": "DPM++ 2M", "unipc": "UniPC", "lcm": "LCM"}


class Results:
    """Writes what became of each picture and variant of a job."""

    def __init__(
        self, job: Job, translator: Translator, fingerprint: Fingerprint, ledger: Ledger
    ) -> None:
        self.job = job
        self.translator = translator
        self.fingerprint = fingerprint
        self.ledger = ledger
        self.any = False  #: whether there was something to record

    def refuse(self, item: Item, variant: str, error: PictureError) -> Record:
        """Record that `item` cannot be translated, unless an earlier run has."""
        status: Status = "filtered" if isinstance(error, FilteredOut) else "failed"
        record = self._record(item, error.sha256, variant, status=status, error=str(error))
        known = self.ledger.known(item.key, variant)
        if known and known.unfinished:
            earlier = known.unfinished
            if earlier.model_copy(update={"finished": record.finished}) == record:
                return earlier
        return self._append(record)

    def save(self, picture: Picture, variant: str, result: Result) -> Record:
        """Write the result, then record it."""
        path = Path(variant) / picture.item.output
        record = self._record(
            picture.item,
            picture.sha256,
            variant,
            status="failed" if result.problem else "done",
            error=result.problem,
            output=None if result.problem else OutputFile(path=path.as_posix()),
            size=picture.image.size,
            unet_evaluations=result.evaluations,
            seconds=round(result.seconds, 4),
        )
        image = result.image
        if image and not result.problem:
            text = self._parameters(record) if self.job.output.embed_metadata else None
            write_atomically(
                self.job.output.path / path,
                lambda stream: save(image, stream, self.job.output.format, text),
                temporary=self.ledger.temporary,
            )
        return self._append(record)

    def _parameters(self, record: Record) -> str:
        method = self.translator.methods[record.variant]
        model = self.translator.model
        width, height = record.size or (0, 0)
        return parameters(
            record.prompt,
            record.negative_prompt,
            {
                "Steps": method.steps,
                "Sampler": SAMPLERS[method.recipe.scheduler or self.job.scheduler],
                "CFG scale": method.guidance_scale,
                "Seed": record.seed,
                "Size": f"{width}x{height}",
                "Model hash": model.identity[:10],
                "Model": Path(model.name).name,
                "Denoising strength": method.strength,
                "Method": record.variant,
                "Version": f"sdcorrect {__version__}",
            },
        )

    def _record(
        self,
        item: Item,
        sha256: str | None,
        variant: str,
        *,
        status: Status,
        error: str | None,
        **more: Any,
    ) -> Record:
        method = self.translator.methods[variant]
        return Record(
            input=InputFile(path=item.key, sha256=sha256),
            variant=variant,
            status=status,
            error=error,
            seed=seed_of(item, sha256, self.job.seed) if sha256 else None,
            prompt=item.prompt,
            negative_prompt=method.negative_prompt_for(item.negative_prompt),
            source_prompt=item.source_prompt,
            effective_steps=method.effective_steps,
            fingerprint=self.fingerprint.mark(item, variant),
            finished=datetime.now(timezone.utc),
            **more,
        )

    def _append(self, record: Record) -> Record:
        self.ledger.append(record)
        self.any = True
        return record
