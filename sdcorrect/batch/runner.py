"""The loop: read, batch by size, translate, save, record."""

import hashlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from sdcorrect import __version__
from sdcorrect.batch.hints import check_folders, hints_of
from sdcorrect.batch.inputs import Item, find_items
from sdcorrect.batch.ledger import Ledger, Record, fingerprint, write_atomically
from sdcorrect.batch.pictures import Picture, Sizing, read_picture
from sdcorrect.config import Job
from sdcorrect.errors import PictureError
from sdcorrect.models import Model
from sdcorrect.translate import Translator

SHARD = "0-of-1"
PIL_FORMATS = {"png": "PNG", "jpg": "JPEG", "webp": "WEBP"}
#: Settings of the job that decide what a picture becomes: a folder holds pictures of one set of them.
DECISIVE = {
    "prompt",
    "negative_prompt",
    "source_prompt",
    "equalizer",
    "strength",
    "steps",
    "guidance_scale",
    "scheduler",
    "seed",
    "resize",
}


@dataclass
class Tally:
    """What this run did for one variant."""

    done: int = 0
    failed: int = 0
    before: int = 0  #: done by an earlier run
    evaluations: int | None = None  #: of the U-Net, a picture


class Run:
    """One job on one model. `items` are what it covers, `records()` works through them.

    Raises:
        UsageError: no pictures, blocks that the model lacks, or an output folder of another job.
        SdcorrectError: the output folder cannot be written.
    """

    def __init__(self, job: Job, model: Model, *, overwrite: bool = False) -> None:
        self.job = job
        self.model = model
        self.items = find_items(job)
        check_folders(job.controlnets)
        self.sizing = Sizing(job.resize, job.size or model.native_size, model.multiple)
        self.translator = Translator(
            model,
            job.recipes,
            steps=job.steps,
            strength=job.strength,
            guidance_scale=job.guidance_scale,
            scheduler=job.scheduler,
            equalizer=job.equalizer,
        )
        for item in self.items:
            if item.problem is None:
                self.translator.check_prompts(item.prompt, item.source_prompt)
        self.tally = {recipe.name: Tally() for recipe in job.recipes}
        self.settings = {
            "model": model.identity,
            **model.decisive,
            "dtype": str(model.dtype).removeprefix("torch."),
            "size": self.sizing.size,
            "format": job.output.format,
            **job.model_dump(include=DECISIVE),
        }
        self.recipes = {r.name: r.model_dump(mode="json", exclude={"summary"}) for r in job.recipes}
        self.marks = {
            name: fingerprint({"settings": self.settings, "recipe": recipe})
            for name, recipe in self.recipes.items()
        }
        self.ledger = Ledger(job.output.path, SHARD)
        self.ledger.open(self.settings, self.recipes, overwrite=overwrite)

    def records(self) -> Iterator[Record | None]:
        """Do all that is not done: for each picture and variant its record, None where it was done."""
        began = time.perf_counter()
        if not self.ledger.job():
            self._write_job(began)
        waiting: dict[tuple[tuple[int, int], int, tuple[str, ...]], list[Picture]] = {}
        for item in self.items:
            try:
                picture = read_picture(item, self.sizing, self.job.input)
                hints = hints_of(picture, self.job.controlnets, self.sizing)
            except PictureError as error:
                for variant in self.recipes:
                    yield self._record(item, error.sha256, variant, error=str(error))
                continue
            missing = tuple(v for v in self.recipes if not self._is_done(picture, v))
            for variant in self.recipes.keys() - set(missing):
                self.tally[variant].before += 1
                yield None
            if missing:
                chunks = self.translator.count_chunks(
                    item.prompt, item.negative_prompt, item.source_prompt
                )
                key = (picture.image.size, chunks, missing)
                waiting.setdefault(key, []).append(replace(picture, hints=hints))
                if len(waiting[key]) == self.job.batch_size:
                    yield from self._translate(waiting.pop(key), missing)
        for (*_, missing), rest in waiting.items():
            yield from self._translate(rest, missing)
        if any(tally.done or tally.failed for tally in self.tally.values()):
            self._write_job(began)

    def _is_done(self, picture: Picture, variant: str) -> bool:
        return self.ledger.is_done(picture.item.key, variant, picture.sha256, self.marks[variant])

    def _translate(self, batch: list[Picture], variants: tuple[str, ...]) -> Iterator[Record]:
        # A batch is always full: kernels differ by its size, and a picture's bytes must not
        # depend on how many others happened to be left over with it.
        rows = batch + [batch[-1]] * (self.job.batch_size - len(batch))
        began = time.perf_counter()
        translations = self.translator(
            [picture.image for picture in rows],
            variants=variants,
            seeds=[self._seed(picture.item, picture.sha256) for picture in rows],
            prompts=[picture.item.prompt for picture in rows],
            negative_prompts=[picture.item.negative_prompt for picture in rows],
            source_prompts=[picture.item.source_prompt for picture in rows],
            hints=[picture.hints for picture in rows],
        )
        seconds = (time.perf_counter() - began) / len(batch) / len(variants)
        for variant, translation in translations.items():
            self.tally[variant].evaluations = translation.evaluations
            costs = {"unet_evaluations": translation.evaluations, "seconds": round(seconds, 4)}
            for picture, image in zip(batch, translation.pictures, strict=False):
                yield self._save(picture, variant, image, costs)

    def _save(
        self, picture: Picture, variant: str, image: Image.Image | None, costs: dict[str, Any]
    ) -> Record:
        if image is None:
            error = "the result is not finite; try dtype float32"
            return self._record(picture.item, picture.sha256, variant, error=error, **costs)
        path = Path(variant) / picture.item.output
        kind = PIL_FORMATS[self.job.output.format]
        write_atomically(
            self.job.output.path / path, lambda stream: image.save(stream, kind, quality=95)
        )
        return self._record(
            picture.item,
            picture.sha256,
            variant,
            output={"path": path.as_posix()},
            size=list(image.size),
            **costs,
        )

    def _record(
        self,
        item: Item,
        sha256: str | None,
        variant: str,
        *,
        error: str | None = None,
        **more: Any,
    ) -> Record:
        method = self.translator.methods[variant]
        status = "failed" if error else "done"
        if error:
            self.tally[variant].failed += 1
        else:
            self.tally[variant].done += 1
        record = {
            "input": {"path": item.key, "sha256": sha256},
            "variant": variant,
            "status": status,
            "error": error,
            "seed": self._seed(item, sha256) if sha256 else None,
            "prompt": item.prompt,
            "negative_prompt": method.negative_prompt_for(item.negative_prompt),
            "effective_steps": method.effective_steps,
            "fingerprint": self.marks[variant],
            **more,
        }
        self.ledger.append(record)
        return record

    def _seed(self, item: Item, sha256: str) -> int:
        """The picture's own seed, of its content and the job's seed: no two share their noise."""
        if item.seed is not None:
            return item.seed
        digest = hashlib.sha256(f"{self.job.seed} {sha256}".encode()).digest()
        return int.from_bytes(digest[:4], "big")

    def _write_job(self, began: float) -> None:
        phases = {name: round(value, 3) for name, value in self.translator.seconds.items()}
        self.ledger.write_job(
            {
                "sdcorrect": __version__,
                "written": datetime.now(timezone.utc).isoformat(timespec="seconds"),
                "job": self.job.model_dump(mode="json"),
                "fingerprint": {"settings": self.settings, "variants": self.recipes},
                "model": {"name": self.model.name, "identity": self.model.identity},
                "device": str(self.model.device),
                "device_name": _device_name(self.model.device),
                "versions": {p: version(p) for p in ("torch", "diffusers", "transformers")},
                "pictures": len(self.items),
                "effective_steps": {
                    name: method.effective_steps for name, method in self.translator.methods.items()
                },
                **self.ledger.totals(),
                "seconds": {"total": round(time.perf_counter() - began, 3), **phases},
            }
        )


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
