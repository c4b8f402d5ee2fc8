"""Measure what recipes cost, on the same pictures in one process."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from statistics import mean, median
from typing import Any

import numpy as np
from PIL import Image
from torch import nn

from sdcorrect.config import Job, load_job
from sdcorrect.errors import UsageError
from sdcorrect.inputs.hints import canny
from sdcorrect.models import Model
from sdcorrect.models.clock import Clock
from sdcorrect.models.memory import forget_peak, peak_bytes
from sdcorrect.recipes import BUILT_IN
from sdcorrect.translate import Request, Translator

#: Recipes that are at least this many times faster than the slowest run this often in a round.
OFTEN = 10


@dataclass(frozen=True)
class Cost:
    """What one recipe costs per picture: medians over its runs."""

    recipe: str
    runs: int
    seconds: float
    evaluations: int  #: U-Net evaluations, including the inversion
    ratio: float  #: its seconds over those of the base
    ratio_low: float  #: lower quartile of the runs' ratios
    ratio_high: float  #: upper quartile
    outside_model: float  #: the share of time spent outside U-Net, VAE and text encoder
    peak_memory_mib: float | None  #: None where the system does not report it


@dataclass(frozen=True)
class Timing:
    """What one run of a recipe took per picture."""

    recipe: str
    seconds: float
    evaluations: int
    outside_model: float
    peak_memory_mib: float | None


class Stopwatch:
    """Measures the seconds spent inside a model's networks, and in total."""

    def __init__(self, model: Model) -> None:
        pipe = model.pipe
        self._networks: list[nn.Module] = [
            pipe.unet,
            pipe.vae.encoder,
            pipe.vae.decoder,
            pipe.text_encoder,
        ]
        self._clock = Clock(model.device)
        self._inside = ExitStack()

    @contextmanager
    def watching(self) -> Iterator[None]:
        with ExitStack() as hooks, self._clock.span("whole"):
            for network in self._networks:
                hooks.callback(network.register_forward_pre_hook(self._begin).remove)
                hooks.callback(network.register_forward_hook(self._end, always_call=True).remove)
            yield

    def _begin(self, *_: object) -> None:
        self._inside.enter_context(self._clock.span("inside"))

    def _end(self, *_: object) -> None:
        self._inside.close()

    @property
    def seconds(self) -> float:
        """Seconds inside the networks."""
        return self._clock.seconds.get("inside", 0.0)

    @property
    def whole(self) -> float:
        return self._clock.seconds.get("whole", 0.0)


def all_fitting(model: Model, settings: Mapping[str, Any]) -> tuple[list[str], dict[str, str]]:
    """The built-in recipes that fit `model` and a job of `settings`, and why the others do not."""
    left_out = {}
    for name in BUILT_IN:
        try:
            job = load_job(None, {**settings, "variants": [name]})
            translator = Translator.of_job(job, model, job.recipes)
            translator.check_prompts(job.prompt, job.source_prompt)
        except UsageError as error:
            left_out[name] = str(error)
    return [name for name in BUILT_IN if name not in left_out], left_out


def compare(
    model: Model,
    job: Job,
    pictures: Sequence[Image.Image],
    *,
    repeats: int,
    base: str,
    warm_up: bool = True,
) -> list[Cost]:
    """Time the recipes of `job` in turn, in `repeats` rounds, after a warm-up that is not counted.

    Each recipe runs alone, so that nothing is shared. Each run is compared with the runs of `base` right
    before and after it, so that a slow phase of the machine affects both.

    Raises:
        UsageError: a recipe does not fit the model or the job.
    """
    translators = {recipe.name: Translator.of_job(job, model, [recipe]) for recipe in job.recipes}
    for translator in translators.values():
        translator.check_prompts(job.prompt, job.source_prompt)
    names = sorted(translators, key=lambda name: name != base)  # the base first
    often = dict.fromkeys(names, 1)
    if warm_up:
        seconds = {name: _run(translators[name], name, job, pictures).seconds for name in names}
        dearest = max(seconds.values())
        often = {name: OFTEN if seconds[name] * OFTEN <= dearest else 1 for name in names}
    order = [name for i in range(OFTEN) for name in names if i < often[name]] * repeats + [base]
    runs = [_run(translators[name], name, job, pictures) for name in order]
    return [cost_of(runs, name, base) for name in translators]


def cost_of(runs: Sequence[Timing], name: str, base: str) -> Cost:
    own = [run for run in runs if run.recipe == name]
    low, middle, high = np.quantile(_ratios(runs, name, base), (0.25, 0.5, 0.75)).tolist()
    return Cost(
        name,
        len(own),
        median(run.seconds for run in own),
        own[0].evaluations,
        middle,
        low,
        high,
        median(run.outside_model for run in own),
        max((run.peak_memory_mib for run in own if run.peak_memory_mib is not None), default=None),
    )


def _ratios(runs: Sequence[Timing], name: str, base: str) -> list[float]:
    """The seconds of each run of `name` over the mean of the two nearest runs of `base`."""
    if name == base:
        return [1.0]
    ratios = []
    for i, run in enumerate(runs):
        if run.recipe == name:
            before = next(other.seconds for other in reversed(runs[:i]) if other.recipe == base)
            after = next(other.seconds for other in runs[i:] if other.recipe == base)
            ratios.append(run.seconds / mean((before, after)))
    return ratios


def _run(translator: Translator, name: str, job: Job, pictures: Sequence[Image.Image]) -> Timing:
    model, evaluations = translator.model, 0
    watch = Stopwatch(model)
    forget_peak(model.device)
    with watch.watching():
        for picture in pictures:
            request = Request(
                picture,
                job.seeds[0],
                job.prompt,
                job.negative_prompt,
                job.source_prompt,
                [canny(picture, network.thresholds) for network in job.controlnets],
            )
            translation = translator([request], variants=[name])[name]
            evaluations += translation.evaluations
    return Timing(
        name,
        watch.whole / len(pictures),
        evaluations // len(pictures),
        1 - watch.seconds / watch.whole,
        _peak_mib(model),
    )


def _peak_mib(model: Model) -> float | None:
    """What tensors took at most; on the CPU the resident set of the process, model included."""
    peak = peak_bytes(model.device)
    return None if peak is None else peak / 2**20


def report(costs: Sequence[Cost], job: Job, model: Model, base: str) -> dict[str, Any]:
    """The costs and the settings they were measured with, for JSON."""
    return {
        "model": model.name,
        "device": str(model.device),
        "steps": job.steps,
        "strength": job.strength,
        "size": job.size or model.native_size,
        "base": base,
        "recipes": [asdict(cost) for cost in costs],
    }
