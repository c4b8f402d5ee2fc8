"""What a model was trained for: read from folders and files, and sampled so; or refused by name."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoints import Family, original_names, save_folder, tiny
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    LCMScheduler,
    StableDiffusionXLImg2ImgPipeline,
    UniPCMultistepScheduler,
)
from PIL import Image
from safetensors.torch import save_file
from sampling import PROMPT, SEED, of_diffusers, relative, sdedit
from torch import Tensor

from sdcorrect.core.schedule import ddim_scheduler, solver_from
from sdcorrect.errors import UsageError
from sdcorrect.models import Model, load
from sdcorrect.models.training import read_marks, scheduler_for
from sdcorrect.recipes import BUILT_IN
from sdcorrect.settings import ModelSettings
from sdcorrect.translate import Translator

Where = Callable[[Family, str], Path]
SD_BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
ZERO_SNR = SD_BETAS | {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True}
SOLVERS = {"dpm++": DPMSolverMultistepScheduler, "unipc": UniPCMultistepScheduler}


def load_from(path: Path, **settings: Any) -> Model:
    return load(ModelSettings.model_validate({"model": str(path), "device": "cpu"} | settings))


def complaint(path: Path, **settings: Any) -> str:
    with pytest.raises(UsageError) as error:
        load_from(path, **settings)
    message = str(error.value)
    assert "\n" not in message
    return message


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.name.startswith("sdcorrect")]


def edit(file: Path, **changes: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


@pytest.fixture
def folder(tmp_path: Path) -> Callable[..., Path]:
    """A folder of a family whose scheduler's configuration is changed, or is another one."""

    def make(family: Family, *, kind: str = "", scheduler: Any = None, **changes: Any) -> Path:
        path = save_folder(tiny(family), tmp_path / "model")
        config = path / "scheduler" / "scheduler_config.json"
        if scheduler is not None:
            config.write_text(json.dumps({"_class_name": kind} | scheduler))
            edit(path / "model_index.json", scheduler=["diffusers", kind])
        edit(config, **changes)
        return path

    return make


def trailing(config: dict[str, Any]) -> DDIMScheduler:
    return DDIMScheduler.from_config(ddim_scheduler(config).config, timestep_spacing="trailing")


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_zero_snr_model_is_solved_on_betas_that_are_rescaled_once(solver: Any) -> None:
    ddim = trailing(ZERO_SNR)
    expected = SOLVERS[solver].from_config(
        SD_BETAS, **{key: ddim.config[key] for key in ("prediction_type", "rescale_betas_zero_snr")}
    )
    expected.set_timesteps(6)
    ours, timesteps = solver_from(solver, ddim, 20, 1.0, 6)
    assert timesteps.tolist() == expected.timesteps.tolist()
    assert timesteps[0] == 999
    torch.testing.assert_close(ours.sigmas, expected.sigmas, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("solver", ["ddim", *SOLVERS, "lcm"])
@pytest.mark.parametrize("strength", [0.3, 0.5, 1.0])
@pytest.mark.parametrize("zero_snr", [True, False])
def test_every_solver_starts_with_the_signal_that_ddim_has(
    solver: Any, strength: float, zero_snr: bool
) -> None:
    ddim = trailing(ZERO_SNR | {"rescale_betas_zero_snr": zero_snr})
    x0, noise = torch.randn(2, 1, 4, 8, 8).unbind()
    ours, timesteps = solver_from(solver, ddim, 20, strength, 4)
    started = ours.add_noise(x0, noise, timesteps[:1])
    expected = ddim.add_noise(x0, noise, timesteps[:1])
    assert relative(started, expected) < 1e-3
    assert started.isfinite().all()


def perfect(scheduler: Any, timesteps: Tensor, x0: Tensor, noise: Tensor) -> Tensor:
    """Denoised by a U-Net that predicts the velocity of every timestep exactly."""
    alphas = DDIMScheduler.from_config(ZERO_SNR).alphas_cumprod
    latents = scheduler.add_noise(x0, noise, timesteps[:1])
    for t in timesteps:
        a = alphas[t]
        velocity = a.sqrt() * noise - (1 - a).sqrt() * x0
        drawing = {"generator": torch.Generator()} if isinstance(scheduler, LCMScheduler) else {}
        latents = scheduler.step(velocity, t, latents, **drawing).prev_sample
    return latents


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("strength", [0.5, 1.0])
def test_from_true_velocities_a_solver_comes_back_to_the_picture(solver: Any, strength: float) -> None:
    x0, noise = torch.randn(2, 1, 4, 8, 8, generator=torch.Generator().manual_seed(1)).unbind()
    ours, timesteps = solver_from(solver, trailing(ZERO_SNR), 20, strength, 6)
    assert relative(perfect(ours, timesteps, x0, noise), x0) < 1e-2


@pytest.mark.parametrize("spacing", ["leading", "trailing"])
@pytest.mark.parametrize("name", ["ddim", "dpm++", "lcm"])
def test_a_zero_snr_folder_is_sampled_as_diffusers_samples_it(
    folder: Callable[..., Path], icon: Image.Image, spacing: str, name: Any
) -> None:
    model = load_from(folder("sd2", rescale_betas_zero_snr=True, timestep_spacing=spacing))
    assert model.scheduler.config.rescale_betas_zero_snr
    assert model.scheduler.config.timestep_spacing == spacing
    if name == "dpm++":
        return _solver_of_the_recipe_starts_where_ddim_would(model)
    kind = {"ddim": DDIMScheduler, "lcm": LCMScheduler}[name]
    expected = of_diffusers(model, icon, strength=1.0, scheduler=kind)
    ours = sdedit(model, icon, strength=1.0, solver=name)
    assert relative(ours, expected) < 1e-4


def _solver_of_the_recipe_starts_where_ddim_would(model: Model) -> None:
    recipe = BUILT_IN["correct-fast"]
    translator = Translator(model, [recipe], steps=20, strength=0.5, guidance_scale=5)
    solver, timesteps = translator.methods[recipe.name].solver(model.scheduler)
    start = int(timesteps[0])
    torch.testing.assert_close(
        solver.alphas_cumprod[start], DDIMScheduler.from_config(ZERO_SNR).alphas_cumprod[start]
    )


@pytest.mark.parametrize("solver", ["ddim", "dpm++", "unipc", "lcm"])
def test_without_signal_noise_alone_cannot_be_predicted(solver: Any) -> None:
    ddim = trailing(ZERO_SNR | {"prediction_type": "epsilon"})
    with pytest.raises(UsageError, match="set prediction_type: v_prediction, or zero_snr: false"):
        solver_from(solver, ddim, 20, 1.0, 4)
    solver_from(solver, ddim, 20, 0.5, 4)


def test_how_a_folders_own_solver_steps_is_not_taken_over(folder: Callable[..., Path]) -> None:
    path = folder("sd1", kind="DPMSolverMultistepScheduler", scheduler=SD_BETAS)
    own = {"use_karras_sigmas": True, "algorithm_type": "sde-dpmsolver++", "solver_order": 3}
    plain = load_from(path).scheduler
    edit(path / "scheduler" / "scheduler_config.json", **own)
    for name in SOLVERS:
        ours, _ = solver_from(name, load_from(path).scheduler, 20, 0.8, 6)
        expected, _ = solver_from(name, plain, 20, 0.8, 6)
        assert torch.equal(ours.sigmas, expected.sigmas)
        assert ours.config == expected.config


def test_the_jobs_word_is_above_the_models(folder: Callable[..., Path]) -> None:
    path = folder("sd2", rescale_betas_zero_snr=True, timestep_spacing="trailing")
    own = load_from(path)
    other = load_from(path, zero_snr=False, prediction_type="epsilon", timestep_spacing="leading")
    assert other.identity == own.identity
    for key in ("zero_snr", "prediction_type", "timestep_spacing"):
        assert other.decisive[key] != own.decisive[key]
    assert torch.equal(other.scheduler.alphas_cumprod, ddim_scheduler().alphas_cumprod)
    assert other.scheduler.config.prediction_type == "epsilon"
    assert other.scheduler.config.timestep_spacing == "leading"


def test_a_spacing_that_is_not_taken_over_is_told(
    folder: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    path = folder("sd1", kind="EulerDiscreteScheduler", scheduler=SD_BETAS)
    assert load_from(path).scheduler.config.timestep_spacing == "leading"
    assert "its scheduler has timestep_spacing linspace; using leading" in caplog.text
    caplog.clear()
    load_from(path, timestep_spacing="leading")
    assert not told(caplog)


@pytest.mark.parametrize(
    ("kind", "scheduler", "expected"),
    [
        ("EDMEulerScheduler", {"sigma_data": 0.5}, "was trained for EDM's noise (EDMEulerScheduler)"),
        ("EDMDPMSolverMultistepScheduler", {"sigma_max": 80.0}, "trained for EDM's noise (EDMDPM"),
        ("FlowMatchEulerDiscreteScheduler", {"shift": 3.0}, "flow matching (FlowMatchEuler"),
        ("NobodysScheduler", SD_BETAS, "another kind of noise (NobodysScheduler)"),
        ("UniPCMultistepScheduler", {"use_flow_sigmas": True}, "says use_flow_sigmas: True"),
        ("UniPCMultistepScheduler", {"prediction_type": "flow_prediction"}, "flow_prediction"),
        ("EulerDiscreteScheduler", {"timestep_type": "continuous"}, "timestep_type: continuous"),
        ("CogVideoXDDIMScheduler", {"snr_shift_scale": 3.0}, "snr_shift_scale: 3.0"),
    ],
)
def test_what_was_not_trained_on_betas_is_refused(
    folder: Callable[..., Path], kind: str, scheduler: dict[str, Any], expected: str
) -> None:
    assert expected in complaint(folder("sd1", kind=kind, scheduler=scheduler))


def test_sd15s_own_scheduler_is_read_without_a_word(
    folder: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    published = SD_BETAS | {
        "_diffusers_version": "0.6.0",
        "num_train_timesteps": 1000,
        "set_alpha_to_one": False,
        "skip_prk_steps": True,
        "steps_offset": 1,
        "trained_betas": None,
        "clip_sample": False,
    }
    model = load_from(folder("sd1", kind="PNDMScheduler", scheduler=published))
    assert torch.equal(model.scheduler.alphas_cumprod, ddim_scheduler().alphas_cumprod)
    assert not told(caplog)
    edit(Path(model.name) / "scheduler" / "scheduler_config.json", noise_colour="pink")
    load_from(Path(model.name))
    assert "its scheduler says noise_colour: pink, which is unknown" in caplog.text


@pytest.fixture
def single(checkpoint: Where, tmp_path: Path) -> Callable[..., Path]:
    """A single file with more tensors, and a header."""

    def make(family: Family = "sdxl", /, *tensors: str, **header: str) -> Path:
        marks = {name: torch.tensor([]) for name in tensors}
        metadata = {key.replace("__", "."): value for key, value in header.items()}
        file = tmp_path / "single.safetensors"
        save_file(original_names(tiny(family)) | marks, file, {"format": "pt"} | metadata)
        return file

    return make


@pytest.mark.parametrize(
    ("tensors", "header", "prediction_type", "zero_snr"),
    [
        ((), {}, "epsilon", False),
        (("v_pred",), {}, "v_prediction", False),
        (("v_pred", "ztsnr"), {}, "v_prediction", True),
        ((), {"modelspec__prediction_type": "v"}, "v_prediction", False),
        ((), {"modelspec__predict_key": "v"}, "v_prediction", False),
        ((), {"modelspec__prediction_type": "epsilon"}, "epsilon", False),
        (("ztsnr",), {"modelspec__prediction_type": "v-prediction"}, "v_prediction", True),
        ((), {"ss_v_parameterization": "True", "ss_zero_terminal_snr": "True"}, "v_prediction", True),
        ((), {"ss_v_parameterization": "False", "ss_zero_terminal_snr": "False"}, "epsilon", False),
    ],
)
def test_a_single_file_says_what_it_was_trained_for(
    checkpoint: Where,
    tensors: tuple[str, ...],
    header: dict[str, str],
    prediction_type: str,
    zero_snr: bool,
) -> None:
    metadata = {key.replace("__", "."): value for key, value in header.items()}
    marks = read_marks("m", tensors, metadata, None)
    config = scheduler_for("m", checkpoint("sdxl", "folder"), marks, ModelSettings()).config
    assert config.prediction_type == prediction_type
    assert config.rescale_betas_zero_snr == zero_snr


def test_a_table_of_noise_in_a_single_file_says_it_too(checkpoint: Where) -> None:
    config = checkpoint("sd1", "folder")
    zero = DDIMScheduler.from_config(ZERO_SNR).alphas_cumprod
    marks = read_marks("m", (), {}, None, zero)
    assert scheduler_for("m", config, marks, ModelSettings()).config.rescale_betas_zero_snr
    usual = ddim_scheduler().alphas_cumprod.half()
    marks = read_marks("m", (), {}, None, usual)
    assert not scheduler_for("m", config, marks, ModelSettings()).config.rescale_betas_zero_snr
    linear = DDIMScheduler(beta_schedule="linear").alphas_cumprod
    with pytest.raises(UsageError, match="was trained on other betas; set base_config"):
        scheduler_for("m", config, read_marks("m", (), {}, None, linear), ModelSettings())
    given = ModelSettings(base_config=str(config))
    scheduler_for("m", config, read_marks("m", (), {}, None, linear), given)


def test_a_marked_file_is_sampled_as_diffusers_samples_a_folder_that_says_it(
    checkpoint: Where, single: Callable[..., Path], icon: Image.Image
) -> None:
    base = str(checkpoint("sdxl", "folder"))
    ours = load_from(single("sdxl", "v_pred", "ztsnr"), base_config=base, timestep_spacing="trailing")
    parts = tiny("sdxl").components | {"scheduler": trailing(ZERO_SNR)}
    pipe = StableDiffusionXLImg2ImgPipeline(**parts, add_watermarker=False)
    pipe.set_progress_bar_config(disable=True)
    expected = pipe(
        PROMPT,
        negative_prompt="blurry",
        image=icon,
        strength=1.0,
        num_inference_steps=4,
        guidance_scale=5.0,
        generator=torch.Generator().manual_seed(SEED),
        output_type="latent",
    ).images
    assert relative(sdedit(ours, icon, strength=1.0), expected) < 1e-4


@pytest.mark.parametrize(
    ("tensors", "header", "expected"),
    [
        (
            (),
            {"modelspec__prediction_type": "rectified-flow"},
            "its header says modelspec.prediction_type: rectified-flow",
        ),
        (
            ("v_pred",),
            {"modelspec__prediction_type": "epsilon"},
            "v_pred says v_prediction, modelspec.prediction_type says epsilon; set prediction_type",
        ),
        (("edm_mean", "edm_std"), {}, "the mark of an EDM model"),
        (("edm_vpred.sigma_max",), {}, "the mark of an EDM model"),
    ],
)
def test_marks_that_cannot_be_followed_are_refused(
    checkpoint: Where, single: Callable[..., Path], tensors: Any, header: Any, expected: str
) -> None:
    base = str(checkpoint("sdxl", "folder"))
    assert expected in complaint(single("sdxl", *tensors, **header), base_config=base)


def test_the_jobs_word_settles_what_a_file_says_of_itself(
    checkpoint: Where, single: Callable[..., Path]
) -> None:
    file = single("sdxl", "v_pred", "ztsnr", modelspec__prediction_type="epsilon")
    settings = {"base_config": str(checkpoint("sdxl", "folder")), "prediction_type": "epsilon"}
    model = load_from(file, zero_snr=False, **settings)
    assert model.scheduler.config.prediction_type == "epsilon"
    assert not model.scheduler.config.rescale_betas_zero_snr


def test_an_sd2_base_by_its_mark_takes_that_models_settings(single: Callable[..., Path]) -> None:
    file = single("sd2", modelspec__architecture="stable-diffusion-v2-512")
    assert "settings of stabilityai/stable-diffusion-2-1-base, which is" in complaint(file, offline=True)
    file = single("sd2", modelspec__architecture="stable-diffusion-v2-768-v")
    assert "settings of stabilityai/stable-diffusion-2-1, which is" in complaint(file, offline=True)
