"""What each file of a job was recognised as, before the night; no weights of a checkpoint are loaded."""

from collections.abc import Iterator

from sdcorrect.errors import UsageError
from sdcorrect.models.adapters import Adapters
from sdcorrect.models.checkpoints import Checkpoint, outline
from sdcorrect.settings import ModelSettings

#: What a file is to the job, and what it was recognised as or why it is refused.
Recognised = tuple[str, str | UsageError]


def recognise(
    settings: ModelSettings, checkpoint: Checkpoint, adapters: Adapters
) -> Iterator[Recognised]:
    """Each file of a job in the order in which they are loaded.

    Raises:
        UsageError: the checkpoint's configurations cannot be read.
    """
    parts = outline(checkpoint)
    unet = parts["unet"]
    yield _try("model", lambda: _model(settings, checkpoint, parts))
    if adapters.vae:
        vae = adapters.vae
        yield _try("vae", lambda: _vae(vae, parts["vae"]))
    for inversion in adapters.textual_inversions:
        # one after the other: of two that are one word, the second is refused
        earlier = adapters.textual_inversions[: adapters.textual_inversions.index(inversion) + 1]
        yield _try(
            "textual inversion",
            lambda e=earlier: _word(_words(checkpoint, parts, e)[-1]),  # type: ignore[misc]
        )
    for lora, found in adapters.loras:
        yield _try("lora", lambda lo=lora, f=found: _lora(lo, f, parts))  # type: ignore[misc]
    for network, found in adapters.controlnets:
        yield _try("controlnet", lambda n=network, f=found: _controlnet(n, f, unet))  # type: ignore[misc]
