"""Report what each file of a job is recognised as, so that mistakes show before a long run.

No weights of the checkpoint are read: its models are built from their configurations, and adapters
are matched with them. One bad file hides no other: without a checkpoint, adapters are read alone.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from diffusers import AutoencoderKL
from transformers import CLIPTokenizer

from sdcorrect.errors import counted, printable
from sdcorrect.models.accounts import account_for
from sdcorrect.models.adapters import find_inversion, find_lora
from sdcorrect.models.checkpoints import Checkpoint, check_base, find_base, find_checkpoint
from sdcorrect.models.controlnets import find_controlnet, outline_controlnet
from sdcorrect.models.lora_files import read_lora
from sdcorrect.models.loras import ADAPTED, FAMILIES, place
from sdcorrect.models.original import taken
from sdcorrect.models.pipelines import TEXT_ENCODERS, account_for_single_file, outline
from sdcorrect.models.sources import Finder
from sdcorrect.models.tensors import read_shapes
from sdcorrect.models.training import scheduler_for
from sdcorrect.models.vaes import find_vae
from sdcorrect.models.words import Word, fitting_word, read_word
from sdcorrect.settings import ControlNet, Lora, ModelSettings, TextualInversion

Parts = Mapping[str, Any]
#: What is said of a file that could be read, where there is no model to match it with.
UNMATCHED = "can be read; not compared with the model, which cannot be used"


@dataclass(frozen=True)
class Outlined:
    """A checkpoint, and its models without weights."""

    checkpoint: Checkpoint
    parts: Parts


def outlined(settings: ModelSettings, finder: Finder) -> Outlined:
    """The checkpoint that a job names; raises UsageError if it cannot be used."""
    checkpoint = find_checkpoint(settings, finder)
    return Outlined(checkpoint, outline(checkpoint))


def recognise(
    settings: ModelSettings, finder: Finder, model: Outlined | None
) -> Iterator[tuple[str, Callable[[], str]]]:
    """Yield the role of each file in the job, and a function that says what it is recognised as.

    The functions are called in this order. They raise UsageError for a file that is missing or would be
    refused.

    Args:
        model: what the other files are matched with; None if it cannot be used.
    """
    if model:
        yield "trained for", partial(_training, settings, model)
    elif settings.base_config:
        yield "base_config", partial(_base, settings.base_config, settings, finder)
    if settings.vae:
        yield "vae", partial(_vae, settings.vae, finder, model)
    words: list[Word] = []
    for inversion in settings.textual_inversions:
        yield "textual inversion", partial(_word, inversion, finder, model, words)
    for lora in settings.loras:
        yield "lora", partial(_lora, lora, finder, model)
    for network in settings.controlnets:
        yield "controlnet", partial(_controlnet, network, finder, model)


def _training(settings: ModelSettings, model: Outlined) -> str:
    checkpoint, parts = model.checkpoint, model.parts
    if checkpoint.path.is_file():
        account_for_single_file(checkpoint, parts, vae_replaced=settings.vae is not None)
    config = scheduler_for(checkpoint.name, checkpoint.config, checkpoint.marks, settings).config
    width = parts["unet"].config.cross_attention_dim
    snr = "zero" if config.rescale_betas_zero_snr else "not zero"
    return (
        f"{FAMILIES.get(width, f'texts {width} wide')}: prediction_type {config.prediction_type}, "
        f"terminal SNR {snr}, timestep_spacing {config.timestep_spacing}"
    )


def _base(base: str, settings: ModelSettings, finder: Finder) -> str:
    found = find_base(base, settings, finder)
    check_base(base, found)
    return f"{found.path}: {UNMATCHED}"


def _vae(name: str, finder: Finder, model: Outlined | None) -> str:
    path = find_vae(name, finder).path
    if path.is_file():
        shapes = read_shapes("vae", path)
        if model is None:
            return f"{path}: {UNMATCHED}"
        vae = model.parts["vae"]
        account_for("vae", str(path), shapes, taken(shapes, {"vae": vae}))
    else:
        folder = path / "vae" if (path / "vae").is_dir() else path
        vae = AutoencoderKL.from_config(AutoencoderKL.load_config(folder, local_files_only=True))
    kind = "single file" if path.is_file() else "folder"
    channels, factor = vae.config.latent_channels, vae.config.scaling_factor
    return f"{path}: {kind}, {channels} channels, scaling_factor {factor:g}"


def _word(
    inversion: TextualInversion, finder: Finder, model: Outlined | None, before: list[Word]
) -> str:
    file = find_inversion(inversion, finder).path
    if model is None:
        return f"{inversion.path}: the word {printable(read_word(inversion, file).text)}; {UNMATCHED}"
    encoders = [part for part in TEXT_ENCODERS if part in model.parts]
    tokenizers = [
        CLIPTokenizer.from_pretrained(
            model.checkpoint.config / part.replace("text_encoder", "tokenizer")
        )
        for part in encoders
    ]
    widths = [model.parts[part].get_input_embeddings().embedding_dim for part in encoders]
    known = {token for tokenizer in tokenizers for token in tokenizer.get_vocab()}
    word = fitting_word(inversion, file, widths, known, before)
    before.append(word)
    of = " and ".join(f"{len(vectors)} vectors of {vectors.shape[1]}" for vectors in word.vectors)
    return f"{inversion.path}: the word {printable(word.text)}, {of}"


def _lora(lora: Lora, finder: Finder, model: Outlined | None) -> str:
    file = read_lora(lora.path, find_lora(lora, finder).path)
    if model is None:
        return f"{lora.path}: {counted(len(file.layers), 'layer')}, weight {lora.weight:g}; {UNMATCHED}"
    placed = place(lora.path, file, {part: model.parts[part] for part in ADAPTED if part in model.parts})
    kinds = ", ".join(sorted({str(layer.layer.kind) for layer in placed}))
    counts = {part: sum(layer.part == part for layer in placed) for part in ADAPTED}
    layers = ", ".join(f"{count} of the {part}" for part, count in counts.items() if count)
    ranks = _range([layer.rank for layer in placed])
    alphas = _range([layer.alpha for layer in placed])
    return (
        f"{lora.path}: {kinds}, {counted(len(placed), 'layer')} ({layers}), rank {ranks}, "
        f"alpha {alphas}, weight {lora.weight:g}"
    )


def _range(values: Sequence[float]) -> str:
    least, most = min(values), max(values)
    return f"{least:g}" if least == most else f"{least:g} to {most:g}"


def _controlnet(settings: ControlNet, finder: Finder, model: Outlined | None) -> str:
    found = find_controlnet(settings, finder)
    if model is None:
        if found.path.is_file():
            read_shapes("controlnet", found.path)
        return f"{settings.path}: {UNMATCHED}"
    network = outline_controlnet(settings, found, model.parts["unet"])
    pooled = ", acts only on the prompt (pooled)" if network.config.global_pool_conditions else ""
    kind = "single file" if found.path.is_file() else "folder"
    return f"{settings.path}: {kind}{pooled}, hints {settings.hint}, scale {settings.scale:g}"
