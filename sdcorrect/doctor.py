"""Check what this machine has, and what a job would do on it."""

import os
import platform
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil
import torch
from huggingface_hub import constants

from sdcorrect import __version__
from sdcorrect.config import Job
from sdcorrect.core.footprint import kept_bytes
from sdcorrect.core.layout import UNetLayout
from sdcorrect.errors import UsageError
from sdcorrect.models import choose_device
from sdcorrect.models.machine import name_of
from sdcorrect.models.recognise import Outlined, outlined, recognise
from sdcorrect.models.sources import Finder
from sdcorrect.recipes import Recipe

LIBRARIES = ("diffusers", "transformers", "peft", "safetensors", "huggingface_hub")
GIB, MIB = 2**30, 2**20


@dataclass(frozen=True)
class Finding:
    """One line of the report; `ok` is false if something would not run."""

    what: str
    value: str
    ok: bool = True


def look_at_machine(
    device: str = "auto", dtype: str = "auto", *, offline: bool = False
) -> Iterator[Finding]:
    """Versions, devices, memory, and whether the hub may be contacted."""
    yield Finding("sdcorrect", f"{__version__}, Python {platform.python_version()}, {platform.system()}")
    libraries = [f"{name} {version(name)}" for name in LIBRARIES]
    yield Finding("libraries", ", ".join([f"torch {torch.__version__}", *libraries]))
    memory = psutil.virtual_memory()
    yield Finding(
        "CPU",
        f"{os.cpu_count()} cores, {memory.available / GIB:.1f} of {memory.total / GIB:.1f} GiB free",
    )
    for number in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(number)
        name = torch.cuda.get_device_name(number)
        yield Finding(f"cuda:{number}", f"{name}, {free / GIB:.1f} of {total / GIB:.1f} GiB free")
    try:
        chosen, precision = choose_device(device, dtype)
    except UsageError as error:
        yield Finding("would run on", str(error), ok=False)
    else:
        yield Finding("would run on", f"{chosen}, in {name_of(precision)}")
    cache = Path(constants.HF_HUB_CACHE)
    place = next(folder for folder in (cache, *cache.parents) if folder.exists())
    free = shutil.disk_usage(place).free
    yield Finding("hub cache", f"{cache}, {free / GIB:.1f} GiB free")
    if constants.HF_HUB_OFFLINE or offline:
        who = "HF_HUB_OFFLINE" if constants.HF_HUB_OFFLINE else "the job, --offline or SDCORRECT_OFFLINE"
        yield Finding("hub", f"not contacted: offline by {who}")
    else:
        yield Finding("hub", "contacted for files that are missing")


def look_at_job(job: Job) -> Iterator[Finding]:
    """What each file of `job` is recognised as, and how much memory each recipe needs per picture.

    All of them are looked at, whether or not one is bad. Loads no weights of the model.
    """
    yield from look_at_machine(job.device, job.dtype, offline=job.offline)
    finder, model, told = Finder(offline=True), None, ""
    try:
        model = outlined(job, finder)
    except UsageError as error:
        told = str(error)
        yield Finding("model", told, ok=False)
    else:
        yield from _of_model(model)
    for what, tell in recognise(job, finder, model):
        finding = _finding(what, tell)
        if finding.value != told:  # a model may be bad for want of its base_config
            yield finding
    if model:
        for recipe in job.recipes:
            yield _finding(recipe.name, partial(_kept, recipe, job, model.parts))


def _finding(what: str, tell: Callable[[], str]) -> Finding:
    try:
        return Finding(what, tell())
    except UsageError as error:
        return Finding(what, str(error), ok=False)


def _of_model(model: Outlined) -> Iterator[Finding]:
    checkpoint = model.checkpoint
    layout = UNetLayout.from_config(model.parts["unet"].config)
    levels = ", ".join(
        f"{level[0]} to {level[-1]}{' with attention' if level[0] in layout.attention else ''}"
        for level in layout.levels
    )
    kind = checkpoint.pipeline_class.__name__.removesuffix("Pipeline")
    yield Finding("model", f"{checkpoint.path}: {kind}, {checkpoint.identity[:12]}")
    yield Finding("decoder blocks", levels)


def _kept(recipe: Recipe, job: Job, parts: Mapping[str, Any]) -> str:
    """How much memory a recipe needs per picture, in the precision that this machine would use."""
    unet, vae = parts["unet"].config, parts["vae"].config
    plan = recipe.plan(UNetLayout.from_config(unet))
    latent_px = 2 ** (len(vae["block_out_channels"]) - 1)
    size = job.size or unet["sample_size"] * latent_px
    try:
        _, dtype = choose_device(job.device, job.dtype)
    except UsageError:  # the machine's own line tells why
        return "fits the model; how much it keeps depends on the device"
    side, steps = size // latent_px, recipe.steps or job.steps
    kept = kept_bytes(unet, plan, (side, side), dtype, steps)
    amount = f"{kept / MIB:.1f} MiB" if kept else "nothing"
    return f"keeps {amount} per picture of {size} x {size} px, {name_of(dtype)}"
