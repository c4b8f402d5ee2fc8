"""Report what each file of a job is recognised as, so that mistakes show before a long run.

No weights of the checkpoint are read: its models are built from their configurations, and adapters
are matched with them.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from diffusers import AutoencoderKL
from transformers import CLIPTokenizer

from sdcorrect.errors import counted, printable
from sdcorrect.models.accounts import account_for
from sdcorrect.models.adapters import Adapters
from sdcorrect.models.checkpoints import Checkpoint
from sdcorrect.models.controlnets import outline_controlnet
from sdcorrect.models.lora_files import read_lora
from sdcorrect.models.loras import ADAPTED, FAMILIES, place
from sdcorrect.models.original import taken
from sdcorrect.models.pipelines import TEXT_ENCODERS, account_for_single_file, outline
from sdcorrect.models.sources import Found
from sdcorrect.models.tensors import read_shapes
from sdcorrect.models.training import scheduler_for
from sdcorrect.models.words import read_words
from sdcorrect.settings import ControlNet, Lora, ModelSettings, TextualInversion

Parts = Mapping[str, Any]


def recognise(
    settings: ModelSettings, checkpoint: Checkpoint, adapters: Adapters
) -> Iterator[tuple[str, Callable[[], str]]]:
    """Yield the role of each file in the job, and a function that says what it is recognised as.

    The functions raise UsageError for a file that would be refused.
    """
    parts = outline(checkpoint)
    yield "trained for", partial(_training, settings, checkpoint, parts)
    if adapters.vae:
        yield "vae", partial(_vae, adapters.vae.path, parts["vae"])
    words = adapters.textual_inversions
    for number in range(len(words)):
        yield "textual inversion", partial(_word, checkpoint, parts, words[: number + 1])
    for lora, found in adapters.loras:
        yield "lora", partial(_lora, lora, found, parts)
    for network, found in adapters.controlnets:
        yield "controlnet", partial(_controlnet, network, found, parts["unet"])


def _training(settings: ModelSettings, checkpoint: Checkpoint, parts: Parts) -> str:
    if checkpoint.path.is_file():
        account_for_single_file(checkpoint, parts, vae_replaced=settings.vae is not None)
    config = scheduler_for(checkpoint.name, checkpoint.config, checkpoint.marks, settings).config
    width = parts["unet"].config.cross_attention_dim
    snr = "zero" if config.rescale_betas_zero_snr else "not zero"
    return (
        f"{FAMILIES.get(width, f'texts {width} wide')}: prediction_type {config.prediction_type}, "
        f"terminal SNR {snr}, timestep_spacing {config.timestep_spacing}"
    )


def _vae(path: Path, own: Any) -> str:
    vae = own
    if path.is_file():
        shapes = read_shapes("vae", path)
        account_for("vae", str(path), shapes, taken(shapes, {"vae": own}))
    else:
        folder = path / "vae" if (path / "vae").is_dir() else path
        vae = AutoencoderKL.from_config(AutoencoderKL.load_config(folder, local_files_only=True))
    kind = "single file" if path.is_file() else "folder"
    channels, factor = vae.config.latent_channels, vae.config.scaling_factor
    return f"{path}: {kind}, {channels} channels, scaling_factor {factor:g}"


def _word(
    checkpoint: Checkpoint, parts: Parts, inversions: Sequence[tuple[TextualInversion, Found]]
) -> str:
    encoders = [part for part in TEXT_ENCODERS if part in parts]
    tokenizers = [
        CLIPTokenizer.from_pretrained(checkpoint.config / part.replace("text_encoder", "tokenizer"))
        for part in encoders
    ]
    widths = [parts[part].get_input_embeddings().embedding_dim for part in encoders]
    known = {token for tokenizer in tokenizers for token in tokenizer.get_vocab()}
    word = read_words(inversions, widths, known)[-1]
    of = " and ".join(f"{len(vectors)} vectors of {vectors.shape[1]}" for vectors in word.vectors)
    return f"{inversions[-1][0].path}: the word {printable(word.text)}, {of}"


def _lora(lora: Lora, found: Found, parts: Parts) -> str:
    placed = place(
        lora.path,
        read_lora(lora.path, found.path),
        {part: parts[part] for part in ADAPTED if part in parts},
    )
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


def _controlnet(settings: ControlNet, found: Found, unet: Any) -> str:
    network = outline_controlnet(settings, found, unet)
    pooled = ", acts only on the prompt (pooled)" if network.config.global_pool_conditions else ""
    kind = "single file" if found.path.is_file() else "folder"
    return f"{settings.path}: {kind}{pooled}, hints {settings.hint}, scale {settings.scale:g}"
