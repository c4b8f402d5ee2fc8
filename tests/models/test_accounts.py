"""Nothing in a file is dropped in silence: with one tensor unknown or renamed, it is refused."""

import logging
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoints import (
    Family,
    Tensors,
    controlnet,
    lora,
    original_controlnet_names,
    original_names,
    tiny,
    vae,
)
from safetensors.torch import load_file, save_file

from sdcorrect.errors import UsageError
from sdcorrect.models import Model, load
from sdcorrect.models.accounts import account_for, account_for_header, ignorable, notices
from sdcorrect.settings import ModelSettings

Where = Callable[[Family, str], Path]
Job = dict[str, Any]
#: Makes a good file of a kind in a folder: the file whose tensors are spoilt, and the job that uses it.
Good = Callable[[Where, Path], tuple[Path, Job]]


def load_job(job: Job) -> Model:
    return load(ModelSettings.model_validate({"device": "cpu", **job}))


def single_file(family: Family) -> Good:
    def good(checkpoint: Where, folder: Path) -> tuple[Path, Job]:
        file = folder / "model.safetensors"
        save_file(original_names(tiny(family)), file)
        return file, {"model": str(file), "base_config": str(checkpoint(family, "folder"))}

    return good


def folder_part(family: Family, weights: str) -> Good:
    def good(checkpoint: Where, folder: Path) -> tuple[Path, Job]:
        copy = shutil.copytree(checkpoint(family, "folder"), folder / "model")
        return copy / weights, {"model": str(copy)}

    return good


def vae_folder(checkpoint: Where, folder: Path) -> tuple[Path, Job]:
    vae().save_pretrained(folder / "vae")
    job = {"model": str(checkpoint("sd1", "folder")), "vae": str(folder / "vae")}
    return folder / "vae" / "diffusion_pytorch_model.safetensors", job


def vae_file(checkpoint: Where, folder: Path) -> tuple[Path, Job]:
    prefix, file = "first_stage_model.", folder / "vae.safetensors"
    tensors = original_names(tiny("sd1")).items()
    save_file({k.removeprefix(prefix): v for k, v in tensors if k.startswith(prefix)}, file)
    return file, {"model": str(checkpoint("sd1", "folder")), "vae": str(file)}


def of_kohya(make: Callable[[str], Tensors]) -> Good:
    """A LoRA whose layers `make` gives, under the names of kohya's trainer and its like."""

    def good(checkpoint: Where, folder: Path) -> tuple[Path, Job]:
        names = ("down_blocks_0_attentions_0", "mid_block_attentions_0")
        names = tuple(f"lora_unet_{name}_transformer_blocks_0_attn1_to_q" for name in names)
        tensors = {k: v for name in names for k, v in make(name).items()}
        save_file(tensors, folder / "ink.safetensors", {"ss_network_alpha": "1"})
        job = {"model": str(checkpoint("sd1", "folder")), "loras": [str(folder / "ink.safetensors")]}
        return folder / "ink.safetensors", job

    return good


def plain_lora(name: str) -> Tensors:
    width = 16 if "down" in name else 32
    matrices = {"lora_down.weight": torch.ones(3, width), "lora_up.weight": torch.ones(width, 3)}
    return {f"{name}.{key}": value for key, value in matrices.items()} | {
        f"{name}.alpha": torch.tensor(2.0)
    }


def dora(name: str) -> Tensors:
    return plain_lora(name) | {f"{name}.dora_scale": torch.ones(16 if "down" in name else 32, 1)}


def loha(name: str) -> Tensors:
    width = 16 if "down" in name else 32
    shapes = {"a": (width, 3), "b": (3, width)}
    return {f"{name}.hada_w{i}_{s}": torch.ones(shape) for i in "12" for s, shape in shapes.items()}


def lokr(name: str) -> Tensors:
    width = 16 if "down" in name else 32
    shapes = {"w1": (4, 2), "w2_a": (width // 4, 3), "w2_b": (3, width // 2)}
    return {f"{name}.lokr_{role}": torch.ones(shape) for role, shape in shapes.items()}


def lora_of_diffusers(form: str) -> Good:
    def good(checkpoint: Where, folder: Path) -> tuple[Path, Job]:
        tensors = {k: v for k, v in lora(tiny("sd1"), form="peft").items() if "attn1" in k}
        if form == "old":
            rename = {".to_out.0.": ".to_out.", "unet.": "", "lora_A": "down", "lora_B": "up"}
            tensors = {renamed(key, rename): value for key, value in tensors.items()}
        if form == "peft":
            tensors = {k.replace("unet.", "base_model.model."): v for k, v in tensors.items()}
            (folder / "adapter_config.json").write_text('{"r": 2, "lora_alpha": 4}')
        header = {"lora_adapter_metadata": '{"unet.r": 2, "unet.lora_alpha": 4}'}
        save_file(tensors, folder / "ink.safetensors", header if form == "diffusers" else None)
        job = {"model": str(checkpoint("sd1", "folder")), "loras": [str(folder / "ink.safetensors")]}
        return folder / "ink.safetensors", job

    return good


def renamed(key: str, rename: dict[str, str]) -> str:
    """The key of an old attention processor."""
    for old, new in rename.items():
        key = key.replace(old, new)
    return re.sub(r"attn1\.(\w+)\.", r"attn1.processor.\1_lora.", key)


def learned_word(layout: str) -> Good:
    def good(checkpoint: Where, folder: Path) -> tuple[Path, Job]:
        family: Family = "sdxl" if layout == "sdxl" else "sd1"
        content = {
            "sdxl": {"clip_l": torch.ones(3, 32), "clip_g": torch.ones(3, 48)},
            "params": {"emb_params": torch.ones(3, 32)},
            "diffusers": {"<Ink>": torch.ones(3, 32)},
        }[layout]
        save_file(content, folder / "Ink.safetensors")
        model = str(checkpoint(family, "folder"))
        return folder / "Ink.safetensors", {
            "model": model,
            "textual_inversions": [str(folder / "Ink.safetensors")],
        }

    return good


def controlnet_folder(checkpoint: Where, folder: Path) -> tuple[Path, Job]:
    controlnet("sd1").save_pretrained(folder / "control")
    job = {"model": str(checkpoint("sd1", "folder")), "controlnets": [str(folder / "control")]}
    return folder / "control" / "diffusion_pytorch_model.safetensors", job


def controlnet_file(checkpoint: Where, folder: Path) -> tuple[Path, Job]:
    save_file(original_controlnet_names(controlnet("sd1")), folder / "control.safetensors")
    job = {
        "model": str(checkpoint("sd1", "folder")),
        "controlnets": [str(folder / "control.safetensors")],
    }
    return folder / "control.safetensors", job


GOOD: dict[str, Good] = {
    "sd1 file": single_file("sd1"),
    "sd2 file": single_file("sd2"),
    "sdxl file": single_file("sdxl"),
    "unet folder": folder_part("sd1", "unet/diffusion_pytorch_model.safetensors"),
    "text encoder folder": folder_part("sd1", "text_encoder/model.safetensors"),
    "second text encoder folder": folder_part("sdxl", "text_encoder_2/model.safetensors"),
    "vae of a folder": folder_part("sd1", "vae/diffusion_pytorch_model.safetensors"),
    "vae folder": vae_folder,
    "vae file": vae_file,
    "kohya": of_kohya(plain_lora),
    "dora": of_kohya(dora),
    "loha": of_kohya(loha),
    "lokr": of_kohya(lokr),
    "lora of diffusers": lora_of_diffusers("diffusers"),
    "old attention processors": lora_of_diffusers("old"),
    "lora of peft": lora_of_diffusers("peft"),
    "word of diffusers": learned_word("diffusers"),
    "word of a web ui": learned_word("params"),
    "word of sdxl": learned_word("sdxl"),
    "controlnet folder": controlnet_folder,
    "controlnet file": controlnet_file,
}


def with_one_more(tensors: Tensors, number: int) -> str:
    name = list(tensors)[number].rpartition(".")[0] + ".novelty"
    tensors[name] = torch.ones(2)
    return name


def with_one_renamed(tensors: Tensors, number: int) -> str:
    name = list(tensors)[number]
    tensors[f"{name}_"] = tensors.pop(name)
    return name


def told_by(job: Job, caplog: pytest.LogCaptureFixture) -> str:
    """Why a job is refused, or else the one warning that it gives."""
    try:
        load_job(job)
    except UsageError as error:
        return str(error)
    (told,) = [record.getMessage() for record in caplog.records if "sdcorrect" in record.name]
    return told


@pytest.mark.parametrize(
    "spoil", [with_one_more, pytest.param(with_one_renamed, marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("kind", GOOD)
def test_a_tensor_that_is_not_known_or_not_there_is_refused_or_told(
    checkpoint: Where,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    kind: str,
    spoil: Callable[[Tensors, int], str],
) -> None:
    file, job = GOOD[kind](checkpoint, tmp_path)
    load_job(job)
    good = load_file(file)
    for number in {0, len(good) - 1}:
        tensors = dict(good)
        name = spoil(tensors, number)
        save_file(tensors, file, {"format": "pt"})
        caplog.clear()
        told = told_by(job, caplog)
        assert "\n" not in told
        assert str(tmp_path) in told
        assert spoil is with_one_renamed or name in told


@pytest.mark.parametrize("kind", ["sd1 file", "sd2 file", "sdxl file", "vae file"])
def test_what_training_leaves_in_published_files_is_no_matter(
    checkpoint: Where, tmp_path: Path, kind: str
) -> None:
    file, job = GOOD[kind](checkpoint, tmp_path)
    names = ["model_ema.decay", "betas", "alphas_cumprod", "sqrt_one_minus_alphas_cumprod", "logvar"]
    names += [f"model_ema.diffusion_modelinput_blocks{i}" for i in range(101)]
    names += ["posterior_mean_coef1", "denoiser.sigmas"]
    names += {
        "vae file": ["loss.logvar", "loss.discriminator.main.0.weight"],
        "sd1 file": ["cond_stage_model.transformer.text_model.embeddings.position_ids"],
        "sd2 file": [
            "cond_stage_model.model.logit_scale",
            "cond_stage_model.model.transformer.resblocks.23.ln_1.bias",
        ],
        "sdxl file": [
            "conditioner.embedders.0.transformer.text_model.embeddings.position_ids",
            "conditioner.embedders.1.model.logit_scale",
            "first_stage_model.loss.logvar",
        ],
    }[kind]
    save_file(load_file(file) | {name: torch.ones(2) for name in names}, file)
    load_job(job)


def test_what_a_stranger_is_and_what_would_work_is_told() -> None:
    with pytest.raises(UsageError) as error:
        account_for("model", "m.ckpt", ["a", "control_model.zero_convs.0.0.bias", "betas"], {"a"})
    assert str(error.value) == (
        "model m.ckpt: 1 tensor in it would not be used, such as control_model.zero_convs.0.0.bias: "
        "a ControlNet; give it under controlnets"
    )
    assert not ignorable("model.betas.weight")


def test_a_header_that_bears_on_the_result_and_is_not_read_is_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    header = {"lora_alpha": "4", "network_rank": "8", "ss_network_alpha": "1", "author": "alphabet"}
    account_for_header("lora", "ink", header, {"network_rank"})
    assert [record.getMessage() for record in caplog.records] == [
        "lora ink: its header says lora_alpha: 4, which is unknown and not used"
    ]


def test_what_libraries_tell_while_they_load_becomes_our_own_warning(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    library = logging.getLogger("diffusers.some.module")
    with notices("model", "m"):
        library.warning("The config attributes {'x': 1} were passed,\n but are not expected")
        library.warning("Some weights of the model were not used")  # accounted for by tensor
    assert [record.getMessage() for record in caplog.records] == [
        "model m: The config attributes {'x': 1} were passed, but are not expected"
    ]
    assert capfd.readouterr() == ("", "")
