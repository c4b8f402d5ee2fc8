"""Account for every tensor in a file: it is used, or listed here as ignorable, or the file is refused.

The same rule holds for every kind of file that a job names. A loader reports what a file holds and what
it used of it. Tensors that are left over and not in `IGNORABLE` make the file refused, with one line
that names a tensor, what it is (`STRANGERS`) and what would work. Messages that libraries log while
they load become our own warnings.
"""

import logging
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from sdcorrect.errors import UsageError, counted, one_line, printable

logger = logging.getLogger(__name__)

#: Tensors that change no picture, in any kind of file: the reason -> a pattern of whole names.
IGNORABLE = {
    "position numbers, which text encoders compute themselves": r"(.*\.)?position_ids",
    "causal masks, which text encoders compute themselves": r"(.*\.)?attn_mask",
    "averages over the training (EMA) beside the weights": r"(first_stage_model\.)?model_ema\..+",
    "networks that computed the training's loss": r"(first_stage_model\.|vae\.)?loss\..+",
    "weights of the training's loss": r"logvar|lvlb_weights",
    "tables that follow from the scheduler's betas": (
        r"betas|(sqrt_|sqrt_recip_|sqrt_recipm1_|sqrt_one_minus_|log_one_minus_)?alphas_cumprod(_prev)?"
        r"|posterior_(variance|log_variance_clipped|mean_coef[12])|denoiser\.(log_)?sigmas"
    ),
    "compares pictures with texts, but no picture is encoded": r"(.*\.)?logit_scale",
    "the last layer of OpenCLIP, which Stable Diffusion 2 does not use": (
        r"cond_stage_model\.model\.(transformer\.resblocks\.23\..+|text_projection)"
    ),
    "pools the first text encoder, which no family uses": (
        r"(cond_stage_model|conditioner\.embedders\.0)\.transformer\.text_projection(\.weight)?"
    ),
    "notes on how a word was learned": (
        r"step|name|hash|notes|change_vector|string_to_token|sd_checkpoint(_name)?"
    ),
    "counts the steps of the training": r"(.*\.)?(global_step|num_updates|num_batches_tracked)",
}
MERGED = "merge it into its model with the trainer's own tool, and give the result as model"
WORDS = "give them in a file of their own under textual_inversions"
#: Other contents of files: part of the tensors' names, what they are, and what would work.
STRANGERS = (
    (r"control_model\.", "a ControlNet", "give it under controlnets"),
    (r"(^|\.)(position_net|fuser)\.", "GLIGEN's boxes", "give a model without them"),
    (r"motion_modules\.|temporal_transformer", "a motion module for videos", "give an image model"),
    (r"\.oft_|oft_blocks|oft_diag", "OFT", MERGED),
    (r"\.boft_", "BOFT", MERGED),
    (r"\.on_input$", "IA3", MERGED),
    (r"\.[ab][12]\.weight$", "GLoRA", MERGED),
    (r"\.diff(_b)?$", "whole differences of weights", MERGED),
    (r"\.[wb]_norm$|norm\w*\.lora_", "trained normalisations", MERGED),
    (r"lora_(B|up)\..*bias$", "trained biases", MERGED),
    (r"vera_lambda", "VeRA", MERGED),
    (r"bundle_emb|emb_params|string_to_param|embedding_manager", "learned words", WORDS),
    (r"\.lora_|_lora\.|\.hada_|\.lokr_|\.dora_scale", "a LoRA or similar", "give it under loras"),
    (r"label_emb\.|class_embedding\.", "a class embedding, as in unCLIP", "give a model without it"),
    (r"noise_augmentor\.|^embedder\.", "unCLIP's picture encoder", "give a model that reads texts"),
    (r"task_embedding|control_add_embedding|transformer_layes", "ControlNet-Union", "give a plain one"),
    (r"^lora_te2_|^text_encoder_2\.", "SDXL's second text encoder", "give an SDXL model"),
    (r"image_proj|ip_adapter|to_[kv]_ip", "an IP-Adapter", "sdcorrect does not support it"),
    (
        r"(double|single|joint)_blocks[._]|single_transformer_blocks|x_embedder|^(lora_)?transformer[._]",
        "another architecture",
        "give SD 1.x, 2.x or SDXL",
    ),
    (r"edm_|sigma_(max|min|data)", "the mark of an EDM model", "give a model trained on betas"),
    (
        r"^(model\.diffusion_model|first_stage_model|cond_stage_model|conditioner)\.",
        "part of a checkpoint",
        "give a whole checkpoint as model",
    ),
)
UNKNOWN = ("something unknown", "give the file without it, or converted to diffusers' format")

#: Messages of libraries that do not matter: they change no picture, or their tensors are accounted for.
HARMLESS = re.compile(
    r"torchvision|safety.checker|kept in float32|LOAD REPORT|^Some weights of|EMA weights|deprecat"
    r"|Fetching|device_map|fast processor|fast image processor|unsafe serialization"
    r"|no file named diffusion_pytorch_model\.safetensors",
    re.I,
)
#: Words in a header's keys that suggest how to use the file.
BEARING = re.compile(
    r"alpha|rank|(^|_)dim($|_)|lora|dora|scal(e|ing)|predict|snr|sigma|v_pred|parameteri[sz]ation", re.I
)
#: Keys of trainers and model sites that only describe the training; alphas and ranks are in tensors too.
NOTES = re.compile(r"ss_.*|sshs_.*|modelspec\..*|format|sd_merge_.*|thumbnail|recipe")


def ignorable(key: str) -> bool:
    """Whether a tensor of this name may be ignored, because it changes no picture."""
    return any(re.fullmatch(pattern, key) for pattern in IGNORABLE.values())


def stranger(what: str, keys: Iterable[str]) -> tuple[str, str]:
    """What tensors that do not belong in a file of the kind `what` are, and what would work."""
    for pattern, kind, remedy in STRANGERS:
        if f"under {what.replace(' ', '_')}" not in remedy and any(
            re.search(pattern, key) for key in keys
        ):
            return kind, remedy
    return UNKNOWN


def account_for(what: str, name: str, held: Iterable[str], used: Collection[str]) -> None:
    """Refuse a file if any of its tensors would be dropped.

    Args:
        what: the file's role in the job, such as "vae"; begins the message.
        name: the file's name in the job.
        held: the names of all tensors in the file.
        used: the names of those that a loader has used.

    Raises:
        UsageError: a tensor is neither used nor ignorable.
    """
    rest = [key for key in held if key not in used and not ignorable(key)]
    if rest:
        kind, remedy = stranger(what, rest)
        count = counted(len(rest), "tensor")
        raise UsageError(
            f"{what} {name}: {count} in it would not be used, such as {printable(rest[0])}: "
            f"{kind}; {remedy}"
        )


def account_for_loading(what: str, name: str, part: str, told: Mapping[str, Any]) -> None:
    """Refuse a part for which `from_pretrained(..., output_loading_info=True)` did not find or use all.

    Libraries fill missing tensors with random numbers, and continue.

    Args:
        part: the part of a pipeline, such as "unet".
        told: the second result of that call.

    Raises:
        UsageError: a tensor is missing, has another shape, or is neither used nor ignorable.
    """
    missing = [key for key in sorted(told["missing_keys"]) if not ignorable(key)]
    if missing:
        raise UsageError(
            f"{what} {name}: {len(missing)} tensors of its {part} are missing, such as {missing[0]}"
        )
    for key, shape, expected in told["mismatched_keys"]:
        raise UsageError(
            f"{what} {name}: {key} of its {part} has the shape {tuple(shape)}, "
            f"but its config.json says {tuple(expected)}"
        )
    account_for(what, f"{name} ({part})", sorted(told["unexpected_keys"]), ())


def account_for_header(what: str, name: str, header: Mapping[str, str], used: Collection[str]) -> None:
    """Warn of keys in a file's header that seem to say how to use it, but that no loader has read.

    Args:
        header: the metadata of a .safetensors file.
        used: the keys that a loader has read.
    """
    for key in header:
        if key not in used and BEARING.search(key) and not NOTES.fullmatch(key):
            warn_of_unknown(f"{what} {name}: its header", key, header[key])


def warn_of_unknown(whose: str, key: str, value: object) -> None:
    """Warn that `whose` setting `key` is not used, because nothing here knows it."""
    said = f"{printable(key)}: {printable(value)[:60]}"
    logger.warning("%s says %s, which is unknown and not used", whose, said)


@contextmanager
def notices(what: str, name: str) -> Iterator[None]:
    """Within this context, messages of diffusers, transformers and peft become our own warnings.

    Only their logs say what they do not use of a file, such as keys of a config.json.
    """
    libraries = [logging.getLogger(library) for library in ("diffusers", "transformers", "peft")]
    before = [(library, library.level, library.handlers, library.propagate) for library in libraries]
    listener = _Listener(logging.WARNING)
    for library in libraries:
        library.setLevel(logging.WARNING)
        library.handlers, library.propagate = [listener], False
    try:
        yield
    finally:
        for library, level, handlers, propagate in before:
            library.setLevel(level)
            library.handlers, library.propagate = handlers, propagate
    for told in dict.fromkeys(listener.told):
        if not HARMLESS.search(told):
            logger.warning("%s %s: %s", what, name, printable(told))


class _Listener(logging.Handler):
    def __init__(self, level: int) -> None:
        super().__init__(level)
        self.told: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.told.append(one_line(record.getMessage(), 300))
