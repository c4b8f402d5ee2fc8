"""How a checkpoint was trained: its betas, what its U-Net predicts, and its terminal SNR.

A folder says so in its scheduler's configuration. A single file uses that of its family, and may say
where it differs, by empty tensors or in its header.
"""

import inspect
import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import diffusers
from diffusers import DDIMScheduler
from torch import Tensor

from sdcorrect.core.schedule import ddim_scheduler
from sdcorrect.errors import UsageError, printable
from sdcorrect.models.accounts import warn_of_unknown
from sdcorrect.models.architecture import read_config
from sdcorrect.settings import ModelSettings

logger = logging.getLogger(__name__)

#: The names in files for what a U-Net predicts -> diffusers' names.
PREDICTIONS = {
    "epsilon": "epsilon",
    "eps": "epsilon",
    "v": "v_prediction",
    "v_prediction": "v_prediction",
    "v_pred": "v_prediction",
    "vpred": "v_prediction",
    "sample": "sample",
    "x0": "sample",
}
#: Keys of a header that say what it predicts: ModelSpec's, old and new, and those of trainers.
PREDICTION_KEYS = ("modelspec.prediction_type", "modelspec.predict_key", "prediction_type")
V_KEYS = ("v_pred", "ss_v_parameterization", "v_parameterization")
ZERO_SNR_KEYS = ("ztsnr", "zero_snr", "ss_zero_terminal_snr", "zero_terminal_snr")
#: Empty tensors that say so by their names, as in NoobAI.
V_TENSOR, ZERO_SNR_TENSOR = "v_pred", "ztsnr"
NO_SIGNAL = 1e-4  #: last alphas_cumprod below which SNR is zero; Stable Diffusion's is 0.0047
TABLE_TOLERANCE = 2e-3  #: error of alphas_cumprod in half precision
ARCHITECTURE = "modelspec.architecture"
#: Architectures whose settings differ from those of their family's model -> the model that has them.
BASES = {"stable-diffusion-v2-512": "stabilityai/stable-diffusion-2-1-base"}
#: All keys of a header that are read.
MARKS = {*PREDICTION_KEYS, *V_KEYS, *ZERO_SNR_KEYS, ARCHITECTURE}

#: Keys of a scheduler's configuration that describe the training.
OF_TRAINING = {
    "beta_start",
    "beta_end",
    "beta_schedule",
    "trained_betas",
    "num_train_timesteps",
    "prediction_type",
    "rescale_betas_zero_snr",
    "timestep_spacing",
    "thresholding",
    "dynamic_thresholding_ratio",
    "sample_max_value",
    "original_inference_steps",
    "timestep_scaling",
}
#: Keys that describe how that scheduler steps; the job's `scheduler` replaces it.
OF_STEPPING = {
    "steps_offset",
    "set_alpha_to_one",
    "clip_sample",
    "clip_sample_range",
    "skip_prk_steps",
    "solver_order",
    "solver_type",
    "solver_p",
    "algorithm_type",
    "lower_order_final",
    "euler_at_final",
    "final_sigmas_type",
    "predict_x0",
    "disable_corrector",
    "use_karras_sigmas",
    "use_exponential_sigmas",
    "use_beta_sigmas",
    "use_lu_lambdas",
    "lambda_min_clipped",
    "variance_type",
    "interpolation_type",
    "flow_shift",
    "time_shift_type",
    "gamma",
    "noise_sampler_seed",
}
#: Values of other keys that are compatible with a schedule of betas.
NO_MATTER = (None, False, "discrete", "exponential")
SPACINGS = ("leading", "trailing")


@dataclass(frozen=True)
class Marks:
    """What a single file says about its training; None where it says nothing."""

    prediction_type: str | None = None
    zero_snr: bool | None = None
    base: str | None = None  #: the hub id of the model that it was fine-tuned from
    #: the names of the tensors that say so
    tensors: frozenset[str] = frozenset()
    #: the cumulative products of 1 - beta, if the file has them
    alphas_cumprod: Tensor | None = field(default=None, compare=False)


def read_marks(
    name: str,
    tensors: Collection[str],
    header: Mapping[str, str],
    given: str | None,
    alphas_cumprod: Tensor | None = None,
) -> Marks:
    """Read the marks from the names of a file's `tensors`, its `header` and its `alphas_cumprod`.

    If the job has `given` a prediction type, the file's is ignored.

    Raises:
        UsageError: a mark is unknown, or two contradict each other.
    """
    predicted = None if given else _predicted(name, tensors, header)
    zero = ZERO_SNR_TENSOR in tensors or any(_is_true(header.get(key)) for key in ZERO_SNR_KEYS)
    zero = zero or (alphas_cumprod is not None and float(alphas_cumprod[-1]) < NO_SIGNAL)
    return Marks(
        predicted,
        True if zero else None,
        BASES.get(header.get(ARCHITECTURE, "").lower()),
        frozenset({V_TENSOR, ZERO_SNR_TENSOR} & set(tensors)),
        alphas_cumprod,
    )


def _predicted(name: str, tensors: Collection[str], header: Mapping[str, str]) -> str | None:
    told: dict[str, str] = {}  # where it is said -> what the U-Net predicts
    if V_TENSOR in tensors:
        told[f"the tensor {V_TENSOR}"] = "v_prediction"
    for key in PREDICTION_KEYS:
        if key in header:
            value = header[key].strip().lower().replace("-", "_")
            told[key] = PREDICTIONS.get(value, value)
            if value not in PREDICTIONS:
                raise UsageError(
                    f"model {name}: its header says {key}: {printable(header[key])[:60]}; "
                    "expected epsilon, v or sample; set prediction_type to the right one"
                )
    told |= {key: "v_prediction" for key in V_KEYS if _is_true(header.get(key))}
    if len(set(told.values())) > 1:
        said = ", ".join(f"{key} says {value}" for key, value in told.items())
        raise UsageError(f"model {name}: {said}; set prediction_type to the right one")
    return next(iter(told.values()), None)


def _is_true(value: str | None) -> bool:
    return value is not None and value.strip().lower() not in ("false", "0", "none", "no")


def scheduler_for(name: str, config: Path, marks: Marks, settings: ModelSettings) -> DDIMScheduler:
    """The paper's schedule on a checkpoint's training settings, which the job can override.

    Args:
        name: the checkpoint's name.
        config: the diffusers folder that its configuration comes from.
        marks: what a single file itself says.

    Raises:
        UsageError: it was not trained on betas, or its settings contradict each other.
    """
    told = _of_folder(name, config)
    if marks.prediction_type not in (None, told["prediction_type"]):
        logger.warning(
            "model %s: its file says that it predicts %s, but %s says %s; the file is believed "
            "(set prediction_type to override it)",
            name,
            marks.prediction_type,
            settings.base_config or "its family",
            told["prediction_type"],
        )
    changes: dict[str, Any] = {
        "prediction_type": settings.prediction_type or marks.prediction_type,
        "rescale_betas_zero_snr": marks.zero_snr if settings.zero_snr is None else settings.zero_snr,
    }
    told |= {key: value for key, value in changes.items() if value is not None}
    spacing = settings.timestep_spacing or _spacing_of(name, told.get("timestep_spacing"))
    scheduler = DDIMScheduler.from_config(ddim_scheduler(told).config, timestep_spacing=spacing)
    if settings.zero_snr is None and settings.base_config is None:
        _check_table(name, marks.alphas_cumprod, scheduler.alphas_cumprod)
    return scheduler


def _check_table(name: str, own: Tensor | None, family: Tensor) -> None:
    """Refuse a single file whose noise schedule is not its family's.

    Raises:
        UsageError: the two differ.
    """
    if own is None:
        return
    if own.shape != family.shape or (own.float() - family).abs().max() > TABLE_TOLERANCE:
        raise UsageError(
            f"model {name}: its alphas_cumprod differ from its family's, so it was trained on other "
            "betas; set base_config to a diffusers folder whose scheduler has them"
        )


def _spacing_of(name: str, own: str | None) -> str:
    if own in (None, *SPACINGS):
        return own or "leading"
    logger.warning(
        "model %s: its scheduler has timestep_spacing %s; using leading, as in the paper "
        "(set timestep_spacing: leading to silence this warning)",
        name,
        printable(own),
    )
    return "leading"


def _of_folder(name: str, folder: Path) -> dict[str, Any]:
    """The training settings of the scheduler in a diffusers folder, with its class's defaults."""
    config = read_config(f"model {name}", folder, "scheduler", "scheduler_config.json")
    kind = str(config.get("_class_name", "a scheduler without _class_name"))
    expected = inspect.signature(getattr(diffusers, kind, object)).parameters
    if "beta_schedule" not in expected or "trained_betas" not in expected:
        raise UsageError(
            f"model {name}: was trained for {_what(kind)} ({printable(kind)}), but sdcorrect needs "
            "the betas of DDPM; give an SD 1.x, SD 2.x or SDXL that has them"
        )
    told = {key: value.default for key, value in expected.items() if key in OF_TRAINING}
    told |= {key: value for key, value in config.items() if key in OF_TRAINING}
    told.setdefault("prediction_type", "epsilon")
    _refuse_other_noise(name, kind, config, told["prediction_type"])
    return told


def _what(kind: str) -> str:
    if kind.startswith("EDM"):
        return "EDM's noise"
    if "Flow" in kind:
        return "flow matching"
    return "another kind of noise"


def _refuse_other_noise(name: str, kind: str, config: Mapping[str, Any], predicted: Any) -> None:
    """Refuse a scheduler that supports betas, but is configured for another kind of noise."""
    if predicted not in set(PREDICTIONS.values()):
        raise UsageError(
            f"model {name}: its scheduler says prediction_type: {printable(predicted)}; "
            "expected epsilon, v_prediction or sample"
        )
    for key, value in config.items():
        if key.startswith("_") or key in OF_TRAINING | OF_STEPPING or value in NO_MATTER:
            continue
        if key.startswith(("use_flow", "sigma_", "timestep_type", "snr_shift", "shift", "use_dynamic")):
            raise UsageError(
                f"model {name}: its {printable(kind)} says {key}: {printable(value)}, but sdcorrect "
                "supports only the betas of DDPM; give an SD 1.x, SD 2.x or SDXL that has them"
            )
        warn_of_unknown(f"model {name}: its scheduler", key, value)
