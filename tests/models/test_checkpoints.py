"""Every family in every format; and what is no whole Stable Diffusion, in one line."""

import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoints import FAMILIES, Family, original_names, save_folder, save_single, tiny, unet_of
from safetensors.torch import save_file
from torch import nn

from sdcorrect.errors import UsageError
from sdcorrect.models import Model, load
from sdcorrect.settings import ModelSettings

Where = Callable[[Family, str], Path]


def load_from(path: Path | str, **settings: Any) -> Model:
    return load(ModelSettings(model=str(path), device="cpu", **settings))


def complaint(path: Path | str, **settings: Any) -> str:
    with pytest.raises(UsageError) as error:
        load_from(path, **settings)
    message = str(error.value)
    assert "\n" not in message
    return message


def weights_of(model: Model) -> dict[str, torch.Tensor]:
    return {
        f"{part}.{key}": value
        for part, module in model.pipe.components.items()
        if isinstance(module, nn.Module)
        for key, value in module.state_dict().items()
    }


@pytest.mark.parametrize("form", ["folder", "safetensors", "ckpt"])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_format_of_a_family_holds_the_same_model(
    checkpoint: Where, family: Family, form: str
) -> None:
    loaded = load_from(checkpoint(family, form), base_config=str(checkpoint(family, "folder")))
    pipe = tiny(family)
    weights = weights_of(loaded)
    assert len(weights) > 800
    for part, module in pipe.components.items():
        if isinstance(module, nn.Module):
            for key, value in module.state_dict().items():
                assert torch.equal(weights[f"{part}.{key}"], value), f"{part}.{key}"
    assert loaded.scheduler.config.prediction_type == pipe.scheduler.config.prediction_type
    assert loaded.pipe.unet.config.use_linear_projection == (family != "sd1")


def test_a_base_config_that_is_no_pipeline_is_named(checkpoint: Where, tmp_path: Path) -> None:
    message = complaint(checkpoint("sd1", "safetensors"), base_config=str(tmp_path))
    assert message.startswith(f"base_config {tmp_path}: this folder is not a diffusers pipeline")


def test_a_single_file_is_known_by_its_own_content(checkpoint: Where, tmp_path: Path) -> None:
    base = str(checkpoint("sd1", "folder"))
    first = load_from(checkpoint("sd1", "safetensors"), base_config=base).identity
    moved = shutil.copy(checkpoint("sd1", "safetensors"), tmp_path / "elsewhere.safetensors")
    assert load_from(moved, base_config=base).identity == first
    other = original_names(tiny("sd1"))
    other["first_stage_model.quant_conv.bias"] += 1
    save_file(other, tmp_path / "other.safetensors")
    assert load_from(tmp_path / "other.safetensors", base_config=base).identity != first


def test_what_a_single_file_takes_its_settings_from_decides_too(
    checkpoint: Where, tmp_path: Path
) -> None:
    base = shutil.copytree(checkpoint("sd1", "folder"), tmp_path / "base")
    file = checkpoint("sd1", "safetensors")
    before = load_from(file, base_config=str(base)).decisive
    (base / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    assert load_from(file, base_config=str(base)).decisive == before
    scheduler = base / "scheduler" / "scheduler_config.json"
    scheduler.write_text(scheduler.read_text().replace('"epsilon"', '"v_prediction"'))
    assert load_from(file, base_config=str(base)).decisive != before


def test_a_variant_of_a_folder_is_loaded_and_named(tmp_path: Path) -> None:
    folder = save_folder(tiny("sd1"), tmp_path / "both")
    halved = tiny("sd1")
    nn.init.constant_(halved.unet.conv_in.bias, 0.5)
    save_folder(halved, folder, variant="fp16")
    plain, variant = load_from(folder), load_from(folder, variant="fp16")
    assert not torch.equal(plain.pipe.unet.conv_in.bias, variant.pipe.unet.conv_in.bias)
    assert plain.identity != variant.identity
    assert "fp32" in complaint(folder, variant="fp32")


def test_a_checkpoint_with_code_in_it_is_refused_unexecuted(checkpoint: Where, tmp_path: Path) -> None:
    class Payload:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.mkdir, (str(tmp_path / "executed"),)

    content = {"state_dict": original_names(tiny("sd1")), "callbacks": Payload()}
    torch.save(content, tmp_path / "zipped.ckpt")
    with (tmp_path / "plain.ckpt").open("wb") as stream:
        pickle.dump({"callbacks": Payload()}, stream, protocol=2)
    for name in ("zipped", "plain"):
        message = complaint(tmp_path / f"{name}.ckpt", base_config=str(checkpoint("sd1", "folder")))
        assert "contains code beside its weights (posix.mkdir), which was not run" in message
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("size", [0, 5, 3000, 100_000])
@pytest.mark.parametrize("form", ["safetensors", "ckpt"])
def test_a_file_that_is_cut_short_is_told(
    checkpoint: Where, tmp_path: Path, form: str, size: int
) -> None:
    cut = tmp_path / f"cut.{form}"
    cut.write_bytes(checkpoint("sd1", form).read_bytes()[:size])
    assert f"cut.{form}: cannot be read as weights" in complaint(cut)


def test_a_folder_whose_weights_are_cut_short_is_told(checkpoint: Where, tmp_path: Path) -> None:
    folder = shutil.copytree(checkpoint("sd1", "folder"), tmp_path / "model")
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    assert f"{weights}: cannot be read as weights" in complaint(folder)


def test_an_inpainting_unet_is_refused_in_either_format(tmp_path: Path) -> None:
    inpainting = tiny("sd1", in_channels=9)
    for path in (
        save_folder(inpainting, tmp_path / "folder"),
        save_single(inpainting, tmp_path / "single.safetensors"),
    ):
        assert "takes 9 channels, so it is an inpainting model" in complaint(path)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (
            {"_class_name": "FluxPipeline", "unet": None},
            "not a Stable Diffusion pipeline but FluxPipeline",
        ),
        ({"text_encoder": [None, None]}, "no first text encoder, like the SDXL refiner"),
    ],
)
def test_other_pipelines_are_refused(
    checkpoint: Where, tmp_path: Path, change: dict[str, Any], expected: str
) -> None:
    folder = shutil.copytree(checkpoint("sd1", "folder"), tmp_path / "model")
    index = folder / "model_index.json"
    index.write_text(json.dumps(json.loads(index.read_text()) | change))
    assert expected in complaint(folder)


@pytest.mark.parametrize("content", ["", "{", "[]", "7"])
def test_an_index_that_is_none_is_told(tmp_path: Path, content: str) -> None:
    (tmp_path / "model_index.json").write_text(content)
    assert "model_index.json" in complaint(tmp_path)


def test_a_file_that_holds_no_whole_model_says_what_is_absent(checkpoint: Where, tmp_path: Path) -> None:
    base = str(checkpoint("sd1", "folder"))
    whole = original_names(tiny("sd1"))

    def without(prefix: str) -> Path:
        file = tmp_path / "part.safetensors"
        save_file({key: value for key, value in whole.items() if not key.startswith(prefix)}, file)
        return file

    unet = "model.diffusion_model."
    assert "contains no Stable Diffusion U-Net" in complaint(without(unet), base_config=base)
    assert "contains no VAE; set one, vae:" in complaint(without("first_stage"), base_config=base)
    assert "contains no text encoder" in complaint(without("cond_stage"), base_config=base)
    gap = without(f"{unet}middle_block.1.proj_in")
    assert "some tensors of its U-Net or VAE are missing" in complaint(gap, base_config=base)
    gap = without("cond_stage_model.transformer.text_model.final")
    assert "2 tensors of its text_encoder are missing, such as final" in complaint(gap, base_config=base)


def test_a_base_config_of_another_family_is_told(checkpoint: Where) -> None:
    file, base = checkpoint("sd2", "safetensors"), checkpoint("sd1", "folder")
    assert "not a whole Stable Diffusion checkpoint" in complaint(file, base_config=str(base))


def test_what_is_not_a_checkpoint_is_told(tmp_path: Path) -> None:
    (tmp_path / "model.zip").write_bytes(b"PK")
    assert "not a checkpoint; expected .bin, .ckpt" in complaint(tmp_path / "model.zip")
    torch.save([1, 2], tmp_path / "list.ckpt")
    assert "contains no named tensors" in complaint(tmp_path / "list.ckpt")
    save_file(unet_of("sd1").state_dict(), tmp_path / "unet.safetensors")
    assert "a LoRA belongs under `loras`" in complaint(tmp_path / "unet.safetensors")


@pytest.mark.parametrize("name", ["nobody/nothing", "nobody/nothing/weights.safetensors"])
def test_a_hub_id_while_offline_is_one_line(name: str) -> None:
    assert "the hub is not contacted offline; run `sdcorrect prefetch`" in complaint(name, offline=True)


@pytest.mark.parametrize(
    ("family", "base"),
    [
        ("sd1", "stable-diffusion-v1-5/stable-diffusion-v1-5"),
        ("sd2", "stabilityai/stable-diffusion-2-1"),
        ("sdxl", "stabilityai/stable-diffusion-xl-base-1.0"),
    ],
)
def test_offline_a_single_file_says_where_its_tokenizer_would_come_from(
    checkpoint: Where, family: Family, base: str
) -> None:
    message = complaint(checkpoint(family, "safetensors"), offline=True)
    assert f"needs the tokenizer and settings of {base}" in message
    assert "run `sdcorrect prefetch`" in message


def test_what_decides_a_picture_is_told_apart(model: Model) -> None:
    for setting, value in {
        "prompt_syntax": "weighted",
        "timestep_spacing": "trailing",
        "vae_dtype": "bfloat16",
    }.items():
        other = load(ModelSettings.model_validate({"device": "cpu", setting: value}))
        assert other.identity == model.identity
        assert other.decisive != model.decisive, setting
