"""Load everything that a job names for its model, in the order in which parts depend on each other."""

from typing import Any

from diffusers import DDIMScheduler, StableDiffusionXLPipeline

from sdcorrect.libraries import plain_outlines
from sdcorrect.models.adapters import Adapters, find_adapters
from sdcorrect.models.checkpoints import Checkpoint, find_checkpoint
from sdcorrect.models.controlnets import load_controlnets
from sdcorrect.models.machine import choose_device, place_on_device
from sdcorrect.models.model import Model
from sdcorrect.models.pipelines import load_pipeline
from sdcorrect.models.safety import add_safety_checker
from sdcorrect.models.sources import Finder
from sdcorrect.models.training import scheduler_for
from sdcorrect.models.vaes import load_vae
from sdcorrect.models.words import add_words
from sdcorrect.settings import ModelSettings

#: Settings that decide what a picture becomes, beside the files.
COMPUTED = {"prompt_syntax", "prediction_type", "zero_snr", "vae_dtype", "vae_tiling", "safety_checker"}
#: Settings that keep the mathematics but choose other kernels, which round differently: some pixels of
#: a picture may differ by a level.
ROUNDED = {"vae_slicing", "channels_last", "skips_once", "compile", "tf32"}


def find(settings: ModelSettings) -> tuple[Checkpoint, Adapters]:
    """Find everything that a job names for its model, and download what is on the hub; loads nothing.

    Raises:
        UsageError: a part is neither here nor on the hub, or is not a model.
    """
    finder = Finder(settings.offline)
    return find_checkpoint(settings, finder), find_adapters(settings, finder)


def decisive_settings(
    settings: ModelSettings, checkpoint: Checkpoint, adapters: Adapters, scheduler: DDIMScheduler
) -> dict[str, Any]:
    """Everything about a model that decides the pictures, beside the checkpoint's identity."""
    return {
        "base_config": checkpoint.base_identity,
        "timestep_spacing": scheduler.config.timestep_spacing,
        **adapters.identity,
        **settings.model_dump(mode="json", include=COMPUTED),
        # without defaults, so that output folders of versions without these settings remain valid
        **settings.model_dump(mode="json", include=ROUNDED, exclude_defaults=True),
    }


@plain_outlines()
def load(settings: ModelSettings) -> Model:
    """Load a job's model, ready to run.

    Raises:
        UsageError: a part is missing or does not fit, or the device cannot be used.
    """
    device, dtype = choose_device(settings.device, settings.dtype)
    checkpoint, adapters = find(settings)
    xl = checkpoint.pipeline_class is StableDiffusionXLPipeline
    vae = adapters.vae and load_vae(adapters.vae, checkpoint.config, dtype, xl=xl)
    scheduler = scheduler_for(checkpoint.name, checkpoint.config, checkpoint.marks, settings)
    pipe = load_pipeline(checkpoint, dtype, scheduler=scheduler, variant=settings.variant, vae=vae)
    if settings.safety_checker:
        add_safety_checker(pipe, checkpoint)
    add_words(pipe, adapters.textual_inversions)
    if adapters.loras:
        from sdcorrect.models.loras import fuse_loras  # imports peft, which is slow

        fuse_loras(pipe, adapters.loras)
    controlnets = load_controlnets(pipe, adapters.controlnets, dtype)
    place_on_device(pipe, controlnets, settings, device)
    return Model(
        checkpoint.name,
        checkpoint.identity,
        decisive_settings(settings, checkpoint, adapters, scheduler),
        pipe,
        scheduler,
        device,
        settings.prompt_syntax,
        controlnets,
        [network.scale for network in settings.controlnets],
        settings.skips_once,
    )
