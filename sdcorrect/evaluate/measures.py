"""Compute the chosen metrics for a batch of pictures; shared parts are computed once."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from sdcorrect.evaluate.clip import Clip
from sdcorrect.evaluate.lpips import Lpips
from sdcorrect.evaluate.pixels import grey_ssim, mse, psnr, ssim, to_tensor
from sdcorrect.evaluate.profiles import Metric, Profile, Region
from sdcorrect.evaluate.results import Measured
from sdcorrect.evaluate.samples import Sample
from sdcorrect.evaluate.structure import Structure, structure_distance

#: A picture in a batch: the sample's position, the variant's name (or SOURCE or TRUTH), and the region.
Key = tuple[int, str, Region]
SOURCE, TRUTH = "/source", "/truth"  #: not valid as names of variants


@dataclass(frozen=True)
class Measures:
    """The metrics, and the networks that they need.

    Args:
        style: words before each caption.
        other_styles: the prompts that style accuracy compares a picture's own with.
        batch_size: pictures per batch in a network.
    """

    profile: Profile
    metrics: Sequence[Metric]
    device: torch.device
    clip: Clip | None = None
    structure: Structure | None = None
    lpips: Lpips | None = None
    style: str = ""
    other_styles: Sequence[str] = ()
    batch_size: int = 16

    def __call__(self, samples: Sequence[Sample]) -> Iterator[list[Measured]]:
        """Yield the measurements of each sample, one for each variant."""
        batch = _Batch(self, samples)
        for n, sample in enumerate(samples):
            yield [
                Measured(
                    variant,
                    sample.entry.item.key,
                    {metric.name: batch.value(metric, n, variant) for metric in self.metrics},
                )
                for variant in sample.outputs
            ]


class _Batch:
    def __init__(self, measures: Measures, samples: Sequence[Sample]) -> None:
        self.measures = measures
        self.samples = samples
        self.pixels: dict[Key, Tensor] = {}
        self.embeddings: dict[Key, Tensor] = {}
        self.similarities: dict[Key, Tensor] = {}
        if measures.clip:
            kinds = {"clip_image", "clip_text", "style_accuracy"}
            self.embeddings = self._through(measures.clip.images, kinds)
        if measures.structure:
            self.similarities = self._through(measures.structure.similarities, {"structure_distance"})

    def value(self, metric: Metric, n: int, variant: str) -> float:
        """The value of `metric` for the output of sample `n` by `variant`; NaN for an empty region."""
        if self._is_empty(n, metric.region):
            return float("nan")
        output = (n, variant, metric.region)
        if metric.kind == "style_accuracy":
            return self._style_accuracy(output)
        if metric.kind == "clip_text":
            return self._clip_text(metric, output)
        other = (n, TRUTH if metric.against == "truth" else SOURCE, metric.region)
        if metric.kind == "clip_image":
            return float(self.embeddings[output] @ self.embeddings[other])
        if metric.kind == "structure_distance":
            return structure_distance(self.similarities[output], self.similarities[other])
        if metric.kind == "ssim" and self.measures.profile.grey:
            return grey_ssim(self._picture(output), self._picture(other))
        return self._of_pixels(metric)(self._tensor(output), self._tensor(other))

    def _of_pixels(self, metric: Metric) -> Callable[[Tensor, Tensor], float]:
        if metric.kind == "lpips":
            assert self.measures.lpips
            return self.measures.lpips
        return {"ssim": ssim, "psnr": psnr, "mse": mse}[metric.kind]

    def _clip_text(self, metric: Metric, output: Key) -> float:
        n, _, region = output
        sample, key = self.samples[n], output
        if metric.against == "source_text":
            key, text = (n, SOURCE, region), sample.entry.item.source_prompt or ""
        elif self.measures.profile.captions:
            text = f"{self.measures.style}{sample.caption}"
        else:
            text = sample.entry.prompt
        cosine = float(self.embeddings[key] @ self._text(text))
        return max(100 * cosine, 0.0) if self.measures.profile.clip_score else cosine

    def _style_accuracy(self, output: Key) -> float:
        prompt = self.samples[output[0]].entry.prompt
        own, *others = (
            float(self.embeddings[output] @ self._text(style))
            for style in (prompt, *self.measures.other_styles)
        )
        return float(own > max(others))

    def _text(self, text: str) -> Tensor:
        assert self.measures.clip
        return self.measures.clip.texts([text])[0]

    def _through(
        self, network: Callable[[Sequence[Image.Image]], Sequence[Tensor] | Tensor], kinds: set[str]
    ) -> dict[Key, Tensor]:
        """The results of `network` on the pictures that metrics of these kinds need."""
        keys = iter(self._needed(kinds))
        found: dict[Key, Tensor] = {}
        while part := list(islice(keys, self.measures.batch_size)):
            found |= dict(zip(part, network([self._picture(key) for key in part]), strict=True))
        return found

    def _needed(self, kinds: set[str]) -> list[Key]:
        needed: dict[Key, None] = {}
        for metric in self.measures.metrics:
            if metric.kind in kinds:
                needed |= dict.fromkeys(self._looked_at(metric))
        return list(needed)

    def _looked_at(self, metric: Metric) -> Iterator[Key]:
        for n, sample in enumerate(self.samples):
            if self._is_empty(n, metric.region):
                continue
            if metric.against != "text":
                yield n, TRUTH if metric.against == "truth" else SOURCE, metric.region
            if metric.against != "source_text":
                yield from ((n, variant, metric.region) for variant in sample.outputs)

    def _tensor(self, key: Key) -> Tensor:
        if key not in self.pixels:
            self.pixels[key] = to_tensor(self._picture(key), self.measures.device)
        return self.pixels[key]

    def _picture(self, key: Key) -> Image.Image:
        n, name, region = key
        sample = self.samples[n]
        if name == TRUTH:
            assert sample.truth
            picture = sample.truth
        else:
            picture = sample.source if name == SOURCE else sample.outputs[name]
        if region == "whole":
            return picture
        kept = self._region(n, region)
        return Image.fromarray(np.asarray(picture) * kept[..., None])

    def _region(self, n: int, region: Region) -> NDArray[np.bool_]:
        mask = self.samples[n].mask
        assert mask is not None
        return mask if region == "edited" else ~mask

    def _is_empty(self, n: int, region: Region) -> bool:
        return region != "whole" and not self._region(n, region).any()
