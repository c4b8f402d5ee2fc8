"""Load all that a job says of its model, in the order in which the parts need each other."""

from sdcorrect.core.schedule import ddim_scheduler
from sdcorrect.models.adapters import Adapters, add_words, find_adapters, lay_loras, load_vae
from sdcorrect.models.checkpoints import Checkpoint, find_checkpoint, load_pipeline
from sdcorrect.models.machine import choose_device, settle
from sdcorrect.models.model import Model
from sdcorrect.models.sources import Finder
from sdcorrect.settings import ModelSettings


def find(settings: ModelSettings) -> tuple[Checkpoint, Adapters]:
    """All that a job says of its model, brought to this machine and not loaded yet.

    Raises:
        UsageError: a part is neither here nor to be had from the hub, or is no model.
    """
    finder = Finder(settings.offline)
    return find_checkpoint(settings, finder), find_adapters(settings, finder)


def load(settings: ModelSettings) -> Model:
    """Load a job's model, ready to evaluate.

    Raises:
        UsageError: a part is not there or does not fit, or the device cannot be used.
    """
    device, dtype = choose_device(settings.device, settings.dtype)
    checkpoint, adapters = find(settings)
    vae = adapters.vae and load_vae(adapters.vae, checkpoint.config, dtype)
    pipe = load_pipeline(checkpoint, dtype, variant=settings.variant, vae=vae)
    add_words(pipe, adapters.textual_inversions)
    lay_loras(pipe, adapters.loras)
    settle(pipe, settings, device)
    identity = {
        "model": checkpoint.identity,
        **adapters.identity,
        "prompt_syntax": settings.prompt_syntax,
    }
    return Model(
        checkpoint.name,
        identity,
        pipe,
        ddim_scheduler(pipe.scheduler.config),
        device,
        prompt_syntax=settings.prompt_syntax,
    )


def load_model(name: str, device: str = "auto", dtype: str = "auto") -> Model:
    """Load the model `name` with nothing laid over it.

    Raises:
        UsageError: it is not there, is not Stable Diffusion, or the device cannot be used.
    """
    return load(ModelSettings.model_validate({"model": name, "device": device, "dtype": dtype}))
