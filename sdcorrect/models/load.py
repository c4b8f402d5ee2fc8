"""Load all that a job says of its model, in the order in which the parts need each other."""

from sdcorrect.core.schedule import ddim_scheduler
from sdcorrect.models.checkpoints import find_checkpoint, load_pipeline
from sdcorrect.models.machine import choose_device, settle
from sdcorrect.models.model import Model
from sdcorrect.models.sources import Finder
from sdcorrect.settings import ModelSettings


def load(settings: ModelSettings) -> Model:
    """Load a job's model, ready to evaluate.

    Raises:
        UsageError: a part is not there or does not fit, or the device cannot be used.
    """
    device, dtype = choose_device(settings.device, settings.dtype)
    finder = Finder(settings.offline)
    checkpoint = find_checkpoint(settings, finder)
    pipe = load_pipeline(checkpoint, dtype, variant=settings.variant, vae=None)
    settle(pipe, settings, device)
    return Model(
        checkpoint.name, checkpoint.identity, pipe, ddim_scheduler(pipe.scheduler.config), device
    )


def load_model(name: str, device: str = "auto", dtype: str = "auto") -> Model:
    """Load the model `name` with nothing laid over it.

    Raises:
        UsageError: it is not there, is not Stable Diffusion, or the device cannot be used.
    """
    return load(ModelSettings.model_validate({"model": name, "device": device, "dtype": dtype}))
