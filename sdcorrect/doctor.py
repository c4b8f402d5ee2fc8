"""Check what this machine has, and what a job would do on it."""

import os
import platform
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import psutil
import torch
from huggingface_hub import constants

from sdcorrect import __version__
from sdcorrect.config import Job
from sdcorrect.core.footprint import kept_bytes
from sdcorrect.core.layout import UNetLayout
from sdcorrect.errors import UsageError
from sdcorrect.models import choose_device, find
from sdcorrect.models.architecture import read_config
from sdcorrect.models.machine import name_of
from sdcorrect.models.recognise import recognise

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

    Loads no weights of the model.
    """
    yield from look_at_machine(job.device, job.dtype, offline=job.offline)
    try:
        checkpoint, adapters = find(job.model_copy(update={"offline": True}))
        unet, vae = (read_config(f"model {job.model}", checkpoint.config, p) for p in ("unet", "vae"))
        latent_px = 2 ** (len(vae["block_out_channels"]) - 1)
        _, dtype = choose_device(job.device, job.dtype)
    except UsageError as error:
        yield Finding("model", str(error), ok=False)
        return
    layout = UNetLayout.from_config(unet)
    levels = ", ".join(
        f"{level[0]} to {level[-1]}{' with attention' if level[0] in layout.attention else ''}"
        for level in layout.levels
    )
    kind = checkpoint.pipeline_class.__name__.removesuffix("Pipeline")
    yield Finding("model", f"{checkpoint.path}: {kind}, {checkpoint.identity[:12]}")
    yield Finding("decoder blocks", levels)
    for what, tell in recognise(job, checkpoint, adapters):
        try:
            yield Finding(what, tell())
        except UsageError as error:
            yield Finding(what, str(error), ok=False)
    size = job.size or unet["sample_size"] * latent_px
    for recipe in job.recipes:
        try:
            plan = recipe.plan(layout)
        except UsageError as error:
            yield Finding(recipe.name, str(error), ok=False)
            continue
        side, steps = size // latent_px, recipe.steps or job.steps
        kept = kept_bytes(unet, plan, (side, side), dtype, steps)
        amount = f"{kept / MIB:.1f} MiB" if kept else "nothing"
        yield Finding(recipe.name, f"keeps {amount} per picture of {size} x {size} px, {name_of(dtype)}")
