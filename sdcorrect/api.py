"""The Python interface: translate pictures with a loaded Stable Diffusion model."""

import hashlib
import io
import logging
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm.auto import tqdm

from sdcorrect import models
from sdcorrect.batch.attempts import Attempts, Result
from sdcorrect.batch.size import find_batch_size
from sdcorrect.config import Job, load_job, placeholders
from sdcorrect.core.schedule import ddim_scheduler
from sdcorrect.errors import LONGEST, SdcorrectError, UsageError, printable
from sdcorrect.inputs.beside import Beside
from sdcorrect.inputs.decode import decode
from sdcorrect.inputs.icons import doubt_of
from sdcorrect.inputs.items import Item, seed_of
from sdcorrect.inputs.pictures import Picture, Sizing, on_background, read_picture, sized
from sdcorrect.settings import ModelSettings
from sdcorrect.translate import Translator

#: A picture: a file, a Pillow image, or an 8-bit array (height, width, 3).
Source = str | Path | Image.Image | NDArray[np.uint8]
SOURCES = (str, Path, Image.Image, np.ndarray)

#: A recipe's name, or a recipe as a mapping, as in a job.
Method = str | Mapping[str, Any]

#: Modes that PNG stores without conversion; all others go through TIFF.
PNG_MODES = {"1", "L", "LA", "P", "RGB", "RGBA", "I;16"}
#: Settings of a job that `translate` does not take as keywords.
NOT_ASKED = {*ModelSettings.model_fields, "input", "output", "limit", "prompt", "method", "variants"}

#: Settings in which the command line fills in placeholders.
TEMPLATES = ("prompt", "negative_prompt", "source_prompt", "mask_words")

#: Settings that a job requires, and that this interface never uses.
NO_FOLDERS = {"input.path": ".", "output.path": "."}

#: Components that a pipeline must have.
PARTS = {"unet", "vae", "text_encoder", "tokenizer", "scheduler"}


logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Translated:
    """The result of one recipe on one picture."""

    image: Image.Image
    seed: int
    evaluations: int  #: U-Net evaluations, including the inversion
    seconds: float  #: time of this recipe, including the inversion; in a batch, this picture's share


class StableDiffusion:
    """A loaded model. Get one from `load` or `from_pipe`."""

    def __init__(self, model: models.Model) -> None:
        self.model = model

    @overload
    def translate(
        self,
        pictures: Source,
        prompt: str,
        *,
        method: Method = ...,
        progress: bool = ...,
        strength: float = ...,
        seed: int = ...,
        **settings: Any,
    ) -> Translated: ...

    @overload
    def translate(
        self,
        pictures: Sequence[Source],
        prompt: str,
        *,
        method: Method = ...,
        progress: bool = ...,
        strength: float = ...,
        seed: int = ...,
        **settings: Any,
    ) -> list[Translated]: ...

    @overload
    def translate(
        self,
        pictures: Source,
        prompt: str,
        *,
        method: Method = ...,
        variants: Sequence[Method] = ...,
        progress: bool = ...,
        **settings: Any,
    ) -> dict[str, Translated]: ...

    @overload
    def translate(
        self,
        pictures: Sequence[Source],
        prompt: str,
        *,
        method: Method = ...,
        variants: Sequence[Method] = ...,
        progress: bool = ...,
        **settings: Any,
    ) -> dict[str, list[Translated]]: ...

    def translate(
        self,
        pictures: Source | Sequence[Source],
        prompt: str,
        *,
        method: Method | None = None,
        variants: Sequence[Method] = (),
        progress: bool = True,
        **settings: Any,
    ) -> Any:
        """Translate one picture or several, of any sizes, as `sdcorrect translate` does.

        For a file, the result equals that of the command line, byte for byte.

        Args:
            pictures: files, Pillow images or arrays; transparent parts are laid on white,
                unless `background` is transparent.
            method: a recipe's name, or a recipe as a mapping, as in a job; by default `correct`.
            variants: several recipes instead of `method`; they share encoding and inversion.
            progress: whether to show a bar of U-Net evaluations.
            settings: other settings of a job: strength, steps, seed, guidance_scale, size, batch_size,
                negative_prompt, source_prompt ... A list of strengths or seeds makes a sweep.

        Returns:
            A `Translated` for a single picture, a list of them for several; with `variants` or in a
            sweep, a dict of such results by variant, such as `correct-strength-0.5`.

        Raises:
            UsageError: a setting is wrong or does not fit the model, or something is no picture.
            SdcorrectError: a picture cannot be read or translated.
        """
        single = isinstance(pictures, SOURCES) or not isinstance(pictures, Iterable)
        job = _job(prompt, method, variants, settings)
        made = self._translate([pictures] if single else list(pictures), job, progress)  # type: ignore[list-item, arg-type]
        results = {name: of[0] if single else of for name, of in made.items()}
        return results if variants or job.sweeps else next(iter(results.values()))

    def _translate(self, sources: list[Source], job: Job, progress: bool) -> dict[str, list[Translated]]:
        translator = Translator.of_job(job, self.model, job.recipes)
        translator.check_prompts(job.prompt, job.source_prompt, job.mask_words)
        sizing = Sizing(job.resize, job.size or self.model.native_size, self.model.multiple)
        beside, read = Beside(job, sizing), [_read(i, one, job, sizing) for i, one in enumerate(sources)]
        if doubt := doubt_of(self.model, read):
            logger.warning(doubt)
        names = tuple(translator.methods)
        made: dict[tuple[str, str], Translated] = {}
        with _bar(translator, names, len(sources), progress) as shown:
            for alike in _of_one_size(beside.add_to(picture) for picture in read):
                attempts = _attempts(translator, job, alike)
                for part in attempts(alike, names):
                    for picture, name, result in part:
                        seed = translator.methods[name].seed
                        made[picture.item.key, name] = _translated(picture, name, result, seed, job)
                    shown.refresh()
        return {name: [made[picture.item.key, name] for picture in read] for name in names}


def load(model: str | Path = "mini", **settings: Any) -> StableDiffusion:
    """Load a model: mini, a folder, a file or a hub id.

    Args:
        settings: a job's settings for its model: device, dtype, vae, loras, controlnets ...

    Raises:
        UsageError: a part is missing or does not fit, or the device cannot be used.
    """
    models.quiet_libraries()
    for key in (set(Job.model_fields) - set(ModelSettings.model_fields)) & set(settings):
        raise UsageError(f"{key}: is a setting of translate, not of load")
    job = load_job(None, {**NO_FOLDERS, "prompt": "any", "model": str(model), **settings})
    return StableDiffusion(models.load(job))


def from_pipe(pipe: Any) -> StableDiffusion:
    """Use the model of a loaded diffusers pipeline, on its device and in its precision.

    Nothing is copied, and the pipeline is not changed.

    Raises:
        UsageError: it is not a Stable Diffusion pipeline.
    """
    if missing := PARTS - set(getattr(pipe, "components", ())):
        raise UsageError(
            f"from_pipe: {type(pipe).__name__} has no {sorted(missing)[0]}; give a Stable Diffusion "
            "pipeline that diffusers has loaded"
        )
    scheduler = ddim_scheduler(pipe.scheduler.config)
    name = str(getattr(pipe, "name_or_path", "") or type(pipe).__name__)
    return StableDiffusion(models.Model(name, "", {}, pipe, scheduler, pipe.device))


def _job(
    prompt: str,
    method: Method | None,
    variants: Sequence[Method],
    settings: Mapping[str, Any],
) -> Job:
    if prompt == "":
        raise UsageError("prompt: is empty; say what the pictures should become")
    if isinstance(variants, str | Mapping):
        raise UsageError("variants: should be a list of recipes, such as ['sdedit', 'correct']")
    if method is not None and variants:
        raise UsageError("method and variants: give only one; variants names several recipes")
    for key in NOT_ASKED & set(settings):
        place = "sdcorrect.load" if key in ModelSettings.model_fields else "the command line"
        raise UsageError(f"{key}: is a setting of {place}, not of translate")
    told = {k: v.tolist() if isinstance(v, np.ndarray | np.generic) else v for k, v in settings.items()}
    recipes = {"method": "correct" if method is None else method, "variants": list(variants)}
    job = load_job(None, {**NO_FOLDERS, "prompt": prompt, **recipes, **told})
    texts = {key: text for key in TEMPLATES if (text := getattr(job, key))}
    for key, text in texts.items():
        for name in sorted(placeholders(text)):
            raise UsageError(
                f"{key}: {{{name}}} is filled in by the command line alone; give the words themselves"
            )
    return job.model_copy(update={key: text.format() for key, text in texts.items()})


def _read(place: int, source: Source, job: Job, sizing: Sizing) -> Picture:
    """Read `source` and resize it for the model, exactly as a batch reads a file."""
    if not isinstance(source, SOURCES):
        raise UsageError(
            f"picture {place}: should be a path, a Pillow image or an array; "
            f"found {printable(repr(source))[:LONGEST]}"
        )
    name = str(source) if isinstance(source, str | Path) else f"picture {place}"
    key = f"{place}: {name}"
    asked = job.prompt, job.negative_prompt, job.source_prompt, None, job.mask_words
    item = Item(Path(name), key, Path(name), *asked)
    try:
        if isinstance(source, str | Path):
            return read_picture(item, sizing, job.input)
        data = _encoded(source)
        return sized(item, decode(data, job.input), hashlib.sha256(data).hexdigest(), sizing)
    except SdcorrectError as error:
        raise SdcorrectError(f"{name}: {error}") from None


def _encoded(source: Image.Image | NDArray[np.uint8]) -> bytes:
    """A picture in memory as the bytes of a lossless file."""
    image = source if isinstance(source, Image.Image) else _of_array(source)
    stream = io.BytesIO()
    image.save(stream, "PNG" if image.mode in PNG_MODES else "TIFF")
    return stream.getvalue()


def _of_array(samples: NDArray[np.uint8]) -> Image.Image:
    try:
        return Image.fromarray(samples)
    except (TypeError, ValueError):
        raise SdcorrectError(
            f"an array of shape {samples.shape} and {samples.dtype} is no picture; "
            "give (height, width, 3) of uint8"
        ) from None


def _attempts(translator: Translator, job: Job, alike: list[Picture]) -> Attempts:
    """Attempts for pictures of one size, as many at a time as the job says or memory takes."""
    attempts = Attempts(translator, batch_size=1)
    if job.batch_size == "auto":
        found = find_batch_size(translator, attempts.request(alike[0]), len(alike))
        attempts.batch_size = found.size
    else:
        attempts.batch_size = job.batch_size
    return attempts


def _of_one_size(pictures: Iterator[Picture]) -> list[list[Picture]]:
    alike: defaultdict[tuple[int, int], list[Picture]] = defaultdict(list)
    for picture in pictures:
        alike[picture.image.size].append(picture)
    return list(alike.values())


def _translated(picture: Picture, name: str, result: Result, job_seed: int, job: Job) -> Translated:
    if result.image is None or result.problem:
        raise SdcorrectError(f"{picture.item.key} ({name}): {result.problem}")
    seed = seed_of(picture.item, picture.sha256, job_seed)
    image = on_background(result.image, picture, job.background)
    return Translated(image, seed, result.evaluations or 0, result.seconds)


@contextmanager
def _bar(
    translator: Translator, names: tuple[str, ...], pictures: int, progress: bool
) -> Iterator["tqdm[Any]"]:
    """A bar that advances with each U-Net evaluation."""
    model = translator.model
    total, before = translator.evaluations(names) * pictures, model.evaluations
    with tqdm(total=total, unit=" evaluations", disable=not progress) as shown:

        def show(*_: object) -> None:
            shown.update(min(model.evaluations - before, total) - shown.n)

        hook = model.pipe.unet.register_forward_hook(show)
        try:
            yield shown
        finally:
            hook.remove()
