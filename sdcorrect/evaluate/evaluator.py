"""Evaluate an output folder: check that everything needed is there, then measure picture by picture."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from sdcorrect import __version__
from sdcorrect.batch.pipeline import ahead
from sdcorrect.errors import UsageError
from sdcorrect.evaluate.blip import BLIP, Blip
from sdcorrect.evaluate.clip import Clip
from sdcorrect.evaluate.companions import find_captions, find_masks, find_pictures
from sdcorrect.evaluate.lpips import Lpips
from sdcorrect.evaluate.measures import Measures
from sdcorrect.evaluate.profiles import Metric, choose, profile_of
from sdcorrect.evaluate.results import (
    Evaluation,
    Mean,
    Measured,
    MetricInfo,
    Network,
    Outline,
    VariantResult,
)
from sdcorrect.evaluate.samples import Sample, SampleReader
from sdcorrect.evaluate.statistics import compare, mean_of
from sdcorrect.evaluate.structure import Structure
from sdcorrect.evaluate.translated import find_translated, in_brackets
from sdcorrect.models.machine import choose_device, tf32
from sdcorrect.models.sources import Finder
from sdcorrect.output.records import Fingerprint
from sdcorrect.settings import EMBEDDED

#: Networks if neither the profile nor the user names any; a job on mini uses the embedded CLIP for both.
CLIP, STRUCTURE = "openai/clip-vit-large-patch14", "facebook/dino-vitb8"
WRITTEN_BY_BLIP = "blip"


@dataclass(frozen=True)
class Request:
    """What to measure in an output folder, and how."""

    out: Path
    profile: str = "default"
    metrics: Sequence[str] | None = None  #: None for those of the profile
    base: str | None = None  #: the variant or recipe that others are compared with; None for the first
    reference: Path | None = None  #: a folder of true pictures
    masks: Path | None = None  #: a folder of edit masks, or PIE-Bench's mapping file
    captions: str | None = None  #: a COCO file, or "blip"; None for the job's own
    style: str | None = None  #: words before each caption
    other_styles: Sequence[str] = ()
    clip: str | None = None  #: mini, a folder or a hub id
    structure: str | None = None  #: mini, a folder or a hub id
    device: str = "auto"
    batch_size: int = 16
    offline: bool | None = None  #: None: as the job


class Evaluator:
    """One evaluation: `rows()` measures, `evaluation()` summarises the rows.

    Raises:
        UsageError: the folder, or something that a metric needs, is missing or does not fit.
    """

    def __init__(self, request: Request) -> None:
        self.request = request
        self.profile = profile_of(request.profile)
        self.metrics = choose(
            self.profile,
            request.metrics,
            truth=request.reference is not None,
            styles=bool(request.other_styles),
        )
        self.translated = find_translated(request.out)
        self.base = self._base()
        self._check_texts()
        self._reader = self._find_companions()
        device, _ = choose_device(request.device, "float32")
        as_job = self.translated.job.offline
        finder = Finder(as_job if request.offline is None else request.offline)
        # report missing weights before large networks are loaded
        lpips = Lpips(self.profile.lpips_net, device) if self._needs("lpips") else None
        self._blip = Blip(BLIP, device=device, finder=finder) if self._writes_captions else None
        self.measures = self._load(device, finder, lpips)

    @property
    def pictures(self) -> int:
        return len(self.translated.entries)

    @property
    def outline(self) -> Outline:
        return Outline(
            self.request.out,
            self.translated.job_file,
            self.base,
            tuple(self.translated.progress),
            {metric.name: _info(metric) for metric in self.metrics},
        )

    def rows(self) -> Iterator[list[Measured]]:
        """Yield the measurements of each picture, one for each variant.

        The networks see each picture's source and outputs, so fewer pictures make a batch.

        Raises:
            UsageError: a picture cannot be read, has changed, or has the wrong size.
        """
        depth = 2 * self.measures.batch_size
        together = max(1, self.measures.batch_size // (1 + len(self.translated.progress)))
        with closing(ahead(self._reader, self.translated.entries, lambda: depth)) as samples:
            while batch := list(islice(samples, together)):
                with tf32(False):  # measurements must be the same everywhere
                    yield from self.measures(self._captioned(batch))

    def evaluation(self, rows: Sequence[Measured]) -> Evaluation:
        """Means, intervals and tests over all `rows`."""
        by_variant: dict[str, list[Measured]] = {variant: [] for variant in self.translated.progress}
        for row in rows:
            by_variant[row.variant].append(row)
        return Evaluation(
            sdcorrect=__version__,
            written=datetime.now(timezone.utc),
            profile=self.profile.name,
            metrics=self.outline.metrics,
            base=self.base,
            variants={name: self._result(name, by_variant) for name in by_variant},
            reference=str(self.request.reference) if self.request.reference else None,
            networks=self._networks(),
            style=self.request.style if self.profile.captions else None,
            other_styles=tuple(self.request.other_styles),
            notices=tuple(self._notices(rows)),
        )

    def _result(self, name: str, rows: Mapping[str, Sequence[Measured]]) -> VariantResult:
        progress = self.translated.progress[name]
        metrics, own, base = self.metrics, rows[name], self._compared_with(name)
        return VariantResult(
            sweep=self._fingerprint.sweep.get(name),
            pictures=len(own),
            failed=progress.failed,
            filtered=progress.filtered,
            remaining=progress.remaining,
            metrics={m.name: mean_of(np.array([row.values[m.name] for row in own])) for m in metrics},
            seconds=self._cost(e.seconds.get(name) for e in self.translated.entries),
            unet_evaluations=self._cost(e.unet_evaluations.get(name) for e in self.translated.entries),
            against_base={}
            if base is None
            else {
                m.name: compare(
                    {row.path: row.values[m.name] for row in own},
                    {row.path: row.values[m.name] for row in rows[base]},
                    higher_is_better=m.higher_is_better,
                )
                for m in metrics
            },
        )

    @staticmethod
    def _cost(of_pictures: Iterable[float | None]) -> Mean:
        return mean_of(np.array([cost for cost in of_pictures if cost is not None], dtype=float))

    def _base(self) -> str:
        variants = list(self.translated.progress)
        recipes = [self._fingerprint.of_sweep(variant).recipe for variant in variants]
        base, known = self.request.base or recipes[0], dict.fromkeys([*recipes, *variants])
        if base not in known:
            raise UsageError(f"--base {base}: is none of the variants there: {', '.join(known)}")
        return base

    def _compared_with(self, name: str) -> str | None:
        """The base; in a sweep, the base recipe at the same strength and seed. None for itself."""
        own = self._fingerprint.of_sweep(name)
        for variant in self.translated.progress:
            other = self._fingerprint.of_sweep(variant)
            alike = other.strength in (None, own.strength) and other.seed in (None, own.seed)
            if variant == self.base or (other.recipe == self.base and alike):
                return None if variant == name else variant
        return None

    @property
    def _fingerprint(self) -> Fingerprint:
        return self.translated.job_file.fingerprint

    def _check_texts(self) -> None:
        """Refuse metrics whose texts are missing."""
        if self._needs_captions and self.request.style is None:
            raise UsageError(
                f"profile {self.profile.name}: clip_text needs the style to put before each caption; "
                "give it as --style 'cartoon style of ', or '' for none"
            )
        if any(metric.against == "source_text" for metric in self.metrics):
            without = [e.item.key for e in self.translated.entries if not e.item.source_prompt]
            if without:
                raise UsageError(
                    f"metric clip_text_source: {len(without)} of {self.pictures} pictures "
                    f"{in_brackets(without)} without a source prompt; set source_prompt in the job, "
                    "or choose other metrics with --metrics"
                )

    def _find_companions(self) -> SampleReader:
        request, translated = self.request, self.translated
        regional = [metric.name for metric in self.metrics if metric.region != "whole"]
        if regional and request.masks is None:
            raise UsageError(
                f"metrics {', '.join(regional)} need edit masks: give --masks with a folder or "
                "PIE-Bench's mapping_file.json, or choose other metrics with --metrics"
            )
        truths = {}
        if request.reference is not None:
            truths = find_pictures("--reference", request.reference, translated)
        masks = {}
        if request.masks is not None and regional:
            masks = find_masks(request.masks, translated)
        captions = {}
        if self._needs_captions and not self._writes_captions:
            given = Path(request.captions) if request.captions else None
            captions = find_captions(given, translated)
        return SampleReader(translated, truths, masks, captions)

    def _load(self, device: torch.device, finder: Finder, lpips: Lpips | None) -> Measures:
        request, profile = self.request, self.profile
        on_mini = self.translated.job.model == EMBEDDED
        clip = structure = None
        clip_name = request.clip or profile.clip or (EMBEDDED if on_mini else CLIP)
        if self._needs("clip_image", "clip_text", "style_accuracy"):
            clip = Clip(clip_name, device=device, finder=finder)
        if self._needs("structure_distance"):
            name = request.structure or profile.structure or (clip_name if on_mini else STRUCTURE)
            structure = Structure(name, device=device, finder=finder, raw=profile.raw_structure)
        return Measures(
            profile,
            self.metrics,
            device,
            clip,
            structure,
            lpips,
            request.style or "",
            request.other_styles,
            request.batch_size,
        )

    def _networks(self) -> dict[str, Network]:
        there = {"clip": self.measures.clip, "structure": self.measures.structure, "blip": self._blip}
        return {what: Network(name=n.name, identity=n.identity) for what, n in there.items() if n}

    def _notices(self, rows: Sequence[Measured]) -> Iterator[str]:
        if gone := self.translated.gone:
            names = in_brackets(gone)
            yield f"{len(gone)} recorded {names} no longer among the inputs, and were not measured"
        for what, network in self._networks().items():
            exact = {"clip": self.profile.clip, "structure": self.profile.structure}.get(what)
            if exact and network.name != exact:
                yield f"{what}: used {network.name}, but profile {self.profile.name} specifies {exact}"
        clip = self.measures.clip
        if clip and clip.cut:
            yield f"{clip.cut} texts were cut to the {clip.length} tokens that CLIP reads"
        for metric in self.metrics:
            values = [row.values[metric.name] for row in rows]
            if count := sum(not math.isfinite(value) for value in values):
                yield f"{metric.name}: {count} values are not finite, and are left out of its mean"
        if not self._needs("lpips") and any(metric.kind == "lpips" for metric in self.profile.metrics):
            chosen = ",".join(m.name for m in self.metrics if m.against != "truth")
            yield f"lpips was not measured; add it with --metrics {chosen},lpips (needs torchvision)"

    def _captioned(self, samples: list[Sample]) -> list[Sample]:
        if self._blip is None:
            return samples
        captions = self._blip([sample.source for sample in samples])
        return [replace(s, caption=caption) for s, caption in zip(samples, captions, strict=True)]

    def _needs(self, *kinds: str) -> bool:
        return any(metric.kind in kinds for metric in self.metrics)

    @property
    def _needs_captions(self) -> bool:
        return self.profile.captions and self._needs("clip_text")

    @property
    def _writes_captions(self) -> bool:
        return self._needs_captions and self.request.captions == WRITTEN_BY_BLIP


def _info(metric: Metric) -> MetricInfo:
    return MetricInfo(
        definition=metric.definition,
        better="higher" if metric.higher_is_better else "lower",
        against=metric.against,
        region=metric.region,
    )
