"""What one shard of a job reads from and writes to `job.json` in the output folder."""

import platform
from collections.abc import Callable
from datetime import datetime, timezone
from functools import cache
from importlib.metadata import version
from math import ceil
from pathlib import Path
from typing import Any

import torch

from sdcorrect import __version__
from sdcorrect.config import Job, absolute_paths
from sdcorrect.inputs.items import Found
from sdcorrect.models import Model
from sdcorrect.output.files import locked
from sdcorrect.output.folder import OutputFolder
from sdcorrect.output.ledger import SWEPT, Ledger, refuse_other_job, write_job
from sdcorrect.output.records import BatchSize, Fingerprint, JobFile, ModelInfo, OfSweep, Summary
from sdcorrect.output.shards import Shard
from sdcorrect.output.survey import add_seconds, job_lock, standings, totals
from sdcorrect.settings import ALPHA, WORDS
from sdcorrect.translate import Translator

#: Settings that decide what a picture becomes; all pictures in an output folder share their values.
DECISIVE = {
    *("prompt", "negative_prompt", "source_prompt", "equalizer", "strength", "steps", "seed"),
    *("guidance_scale", "scheduler", "resize"),
}
#: Settings like these that later versions added; folders from before remain valid.
LATER = {
    *("mask", "mask_words", "mask_threshold", "mask_feather", "invert_mask"),
    *("background", "match_colors", "steps_offset"),
}


def fingerprint_of(job: Job, model: Model, size: int) -> Fingerprint:
    """Everything that decides the result of `job` on `model`, at `size` px."""
    return Fingerprint(
        settings={
            "model": model.identity,
            **model.decisive,
            "dtype": model.precision,
            "size": size,
            **job.output.model_dump(exclude={"path", "png_compression", "keep"}),
            **job.model_dump(include=DECISIVE),
            **{key: SWEPT for key in ("strength", "seed") if isinstance(getattr(job, key), tuple)},
            **_later(job),
        },
        # without defaults, so that a later version with more settings can resume this one's folders
        variants={
            v.name: v.recipe.model_dump(mode="json", exclude={"summary"}, exclude_defaults=True)
            for v in job.expanded
        },
        sweep={
            v.name: OfSweep(recipe=v.recipe.name, strength=v.strength, seed=v.seed)
            for v in job.expanded
            if v.is_swept
        },
    )


def _later(job: Job) -> dict[str, Any]:
    """The values of `LATER` that are not at their defaults."""
    later = job.model_dump(include=LATER, exclude_defaults=True)
    if job.mask not in (None, ALPHA, WORDS):
        later["mask"] = str(Path(later["mask"]).resolve())
    if job.output.keep:
        later["keep"] = sorted(set(job.output.keep))
    return later


class JobEntry:
    """One shard's part in `job.json`."""

    def __init__(
        self,
        job: Job,
        shard: Shard,
        translator: Translator,
        fingerprint: Fingerprint,
        ledger: Ledger,
        found: Found,
    ) -> None:
        self.job = job
        self.shard = shard
        self.translator = translator
        self.fingerprint = fingerprint
        self.ledger = ledger
        self.found = found  #: of all shards

    def take_up(self, *, overwrite: bool) -> None:
        """Compare the folder's job with this one, and write `job.json` if anything is new.

        Raises:
            UsageError: the output folder has pictures of another job, and `overwrite` is not set.
        """
        out = self.job.output.path
        with locked(job_lock(out), wait=True):
            before = OutputFolder(out).find_job()
            fingerprint = self.fingerprint
            if before and not overwrite:
                refuse_other_job(out, before.fingerprint, fingerprint)
            if before and before.fingerprint.settings == fingerprint.settings:
                fingerprint = before.fingerprint.grown(fingerprint)
            content = self._content(fingerprint, before, anew=overwrite and self.shard.count == 1)
            told = {"job", "fingerprint", "num_shards", "batch_size", "pictures"}
            if self.shard.count == 1:
                told |= {"counts", "unet_evaluations"}  # a killed run has not written these
            if before is None or before.model_dump(include=told) != content.model_dump(include=told):
                write_job(out, content, self.ledger.temporary)

    def batch_size(self, find: Callable[[int], BatchSize]) -> BatchSize:
        """The job's batch size for shards of this size: from an earlier run, or else from `find`.

        Other shards wait for it and use the same.
        """
        out, pictures = self.job.output.path, ceil(len(self.found.keys) / self.shard.count)
        with locked(job_lock(out).with_stem("batch-size"), wait=True):
            before = self._known_batch_size(pictures)
            found = before or find(pictures)
            with locked(job_lock(out), wait=True):
                # on a file system without locks, the first one counts
                found = self._known_batch_size(pictures) or found
                job_file = OutputFolder(out).find_job()
                if job_file and job_file.batch_size != found:
                    changed = job_file.model_copy(update={"batch_size": found})
                    write_job(out, changed, self.ledger.temporary)
        return found

    def _known_batch_size(self, pictures: int) -> BatchSize | None:
        job_file = OutputFolder(self.job.output.path).find_job()
        known = job_file.batch_size if job_file else None
        return known if known and known.is_for(pictures) else None

    def close(self, seconds: float) -> None:
        """Write this shard's summary, and if it is the only shard, the whole of `job.json`."""
        out = self.job.output.path
        before = self.ledger.summary()
        spent = dict(before.seconds) if before else {}
        add_seconds(spent, {"total": seconds, **self.translator.seconds})
        machine = _machine(self.translator.model.device)
        self.ledger.write_summary(
            Summary(shard=str(self.shard), host=platform.node(), seconds=spent, **machine)
        )
        if self.shard.count == 1:
            with locked(job_lock(out), wait=True):
                job_file = OutputFolder(out).find_job()
                fingerprint = job_file.fingerprint if job_file else self.fingerprint
                write_job(out, self._content(fingerprint, job_file), self.ledger.temporary)

    def _content(
        self, fingerprint: Fingerprint, before: JobFile | None, *, anew: bool = False
    ) -> JobFile:
        model = self.translator.model
        goes_on = before and not anew and before.fingerprint.settings == fingerprint.settings
        return JobFile(
            sdcorrect=__version__,
            written=datetime.now(timezone.utc),
            job=absolute_paths(self.job),
            fingerprint=fingerprint,
            model=ModelInfo(name=model.name, identity=model.identity),
            num_shards=self.shard.count,
            batch_size=before.batch_size if before and goes_on else None,
            pictures=len(self.found.keys),
            effective_steps={
                name: method.effective_steps for name, method in self.translator.methods.items()
            },
            **_machine(model.device),
            **self._totals(fingerprint, before),
        )

    def _totals(self, fingerprint: Fingerprint, before: JobFile | None) -> dict[str, Any]:
        """The results of the whole job; with several shards, only `merge` can compute them."""
        if self.shard.count > 1:
            told = {"counts", "unet_evaluations", "seconds", "shards"}
            return before.model_dump(include=told) if before else {}
        folder = OutputFolder(self.job.output.path, fingerprint)
        return totals(standings(folder, self.found.items, fingerprint.variants), folder.summaries())


def _machine(device: torch.device) -> dict[str, Any]:
    return {
        "device": str(device),
        "device_name": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "versions": _versions(),
    }


@cache
def _versions() -> dict[str, str]:
    """Each is read from a package's whole description."""
    return {package: version(package) for package in ("torch", "diffusers", "transformers")}
