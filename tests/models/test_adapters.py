"""VAE, LoRA and textual inversion, in the formats that people have them in."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoints import FAMILIES, Family, Tensors, lora, original_names, tiny, vae
from safetensors.torch import save_file
from torch import Tensor
from transformers import CLIPTokenizer

from sdcorrect.errors import UsageError
from sdcorrect.models import Model, find, load
from sdcorrect.settings import ModelSettings

Where = Callable[[Family, str], Path]


def load_with(checkpoint: Where, family: Family, **settings: Any) -> Model:
    return load(ModelSettings(model=str(checkpoint(family, "folder")), device="cpu", **settings))


def complaint(checkpoint: Where, family: Family, **settings: Any) -> str:
    with pytest.raises(UsageError) as error:
        load_with(checkpoint, family, **settings)
    message = str(error.value)
    assert "\n" not in message
    return message


def saved(tensors: Tensors, file: Path) -> str:
    save_file(tensors, file)
    return str(file)


def with_loras(family: Family, *weighted: tuple[Tensors, float]) -> Mapping[str, Tensor]:
    """The weights that the LoRAs' formula says: W + weight * B A."""
    pipe = tiny(family)
    expected = {}
    for tensors, weight in weighted:
        for key in tensors:
            if not key.endswith("lora_A.weight"):
                continue
            part, layer = key.removesuffix(".lora_A.weight").split(".", 1)
            module = pipe.components[part]
            if part != "unet" and not hasattr(module, "text_model"):
                layer = layer.removeprefix("text_model.")
            name = f"{part}.{layer}.weight"
            before = expected.get(name, module.get_submodule(layer).weight)
            expected[name] = before + weight * tensors[key.replace("lora_A", "lora_B")] @ tensors[key]
    return expected


def weight_of(model: Model, name: str) -> Tensor:
    part, layer = name.split(".", 1)
    return model.pipe.components[part].get_parameter(layer)


@pytest.mark.parametrize("form", ["kohya", "peft"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_lora_adds_its_product_to_the_weights(
    checkpoint: Where, tmp_path: Path, family: Family, form: Any
) -> None:
    file = saved(lora(tiny(family), form=form), tmp_path / "ink.safetensors")
    model = load_with(checkpoint, family, loras=[{"path": file, "weight": 0.5}])
    expected = with_loras(family, (lora(tiny(family), form="peft"), 0.5))
    assert len(expected) > 100
    for name, value in expected.items():
        torch.testing.assert_close(weight_of(model, name), value, rtol=0, atol=1e-6)
    assert not [name for name, _ in model.pipe.unet.named_modules() if "lora" in name]


def test_several_loras_add_up_and_weight_zero_changes_nothing(checkpoint: Where, tmp_path: Path) -> None:
    first, second = (lora(tiny("sd1"), form="peft", rank=rank) for rank in (1, 3))
    files = [saved(t, tmp_path / f"{i}.safetensors") for i, t in enumerate((first, second))]
    both = load_with(
        checkpoint, "sd1", loras=[{"path": files[0], "weight": 0.3}, {"path": files[1], "weight": -0.7}]
    )
    for name, value in with_loras("sd1", (first, 0.3), (second, -0.7)).items():
        torch.testing.assert_close(weight_of(both, name), value, rtol=0, atol=1e-6)

    plain = load_with(checkpoint, "sd1")
    zero = load_with(checkpoint, "sd1", loras=[{"path": files[0], "weight": 0}])
    for name, value in plain.pipe.unet.state_dict().items():
        assert torch.equal(zero.pipe.unet.state_dict()[name], value)
    assert len({str(model.decisive) for model in (plain, zero, both)}) == 3


@pytest.mark.parametrize("form", ["kohya", "peft"])
@pytest.mark.parametrize(("family", "other"), [("sd1", "sd2"), ("sd1", "sdxl"), ("sdxl", "sd1")])
def test_a_lora_of_another_family_is_told(
    checkpoint: Where,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    family: Family,
    other: Family,
    form: Any,
) -> None:
    file = saved(lora(tiny(other), form=form), tmp_path / "other.safetensors")
    capfd.readouterr()
    assert "made for another family: it reads texts" in complaint(checkpoint, family, loras=[file])
    assert "size mismatch" not in capfd.readouterr().err


def test_a_lora_whose_layers_have_no_place_is_told(checkpoint: Where, tmp_path: Path) -> None:
    of_text = {k: v for k, v in lora(tiny("sdxl")).items() if "te2" in k}
    file = saved(of_text, tmp_path / "te2.safetensors")
    assert "8 of its 8 layers have no place" in complaint(checkpoint, "sd1", loras=[file])
    whole = saved(original_names(tiny("sd1")), tmp_path / "whole.safetensors")
    assert "contains no LoRA layers" in complaint(checkpoint, "sd1", loras=[whole])


def other_vae() -> Tensors:
    torch.manual_seed(5)
    pipe = tiny("sd1")
    pipe.vae = vae()
    return {k: v for k, v in original_names(pipe).items() if k.startswith("first_stage_model.")}


@pytest.mark.parametrize("form", ["file", "bare file", "folder", "pipeline"])
def test_another_vae_takes_the_place_of_the_checkpoints_own(
    checkpoint: Where, tmp_path: Path, form: str
) -> None:
    torch.manual_seed(5)
    another = vae()
    if form.endswith("file"):
        prefix = "first_stage_model."
        tensors = {
            k.removeprefix(prefix if form == "bare file" else ""): v for k, v in other_vae().items()
        }
        save_file(tensors, tmp_path / "better.safetensors")
        path = tmp_path / "better.safetensors"
    else:
        path = tmp_path / "better"
        another.save_pretrained(path / "vae" if form == "pipeline" else path)
    model = load_with(checkpoint, "sd1", vae=str(path))
    expected = original_names(tiny("sd1"))["first_stage_model.quant_conv.weight"]
    assert not torch.equal(model.pipe.vae.quant_conv.weight, expected)
    for name, value in model.pipe.vae.state_dict().items():
        if form in ("folder", "pipeline"):
            assert torch.equal(another.state_dict()[name], value)
        assert not value.is_meta
    assert model.decisive["vae"]


def test_a_checkpoint_without_a_vae_is_whole_with_one(checkpoint: Where, tmp_path: Path) -> None:
    whole = original_names(tiny("sd1"))
    file = tmp_path / "pruned.safetensors"
    save_file({k: v for k, v in whole.items() if not k.startswith("first_stage_model")}, file)
    base = checkpoint("sd1", "folder")
    settings = ModelSettings(model=str(file), base_config=str(base), vae=str(base), device="cpu")
    assert torch.equal(
        load(settings).pipe.vae.quant_conv.weight, whole["first_stage_model.quant_conv.weight"]
    )


def test_what_is_no_vae_is_told(checkpoint: Where, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "cut.safetensors").write_bytes(b"\x40\0\0\0\0\0\0\0{")
    file = saved(lora(tiny("sd1")), tmp_path / "lora.safetensors")
    for path in ("empty", "cut.safetensors", "none"):
        assert f"{path}: " in complaint(checkpoint, "sd1", vae=str(tmp_path / path))
    assert "not a VAE of Stable Diffusion" in complaint(checkpoint, "sd1", vae=file)
    vae(latent_channels=16).save_pretrained(tmp_path / "wide")
    assert "its latents have 16 channels" in complaint(checkpoint, "sd1", vae=str(tmp_path / "wide"))


VECTORS = torch.linspace(-1, 1, 2 * 32).reshape(2, 32)


def inversion_file(form: str, folder: Path) -> str:
    match form:
        case "diffusers":
            return saved({"<inked>": VECTORS}, folder / "learned_embeds.safetensors")
        case "web ui":
            torch.save(
                {"string_to_param": {"*": VECTORS}, "name": "<inked>", "step": 5}, folder / "a.pt"
            )
            return str(folder / "a.pt")
        case _:
            return saved({"emb_params": VECTORS}, folder / "<inked>.safetensors")


def ids_of(tokenizer: CLIPTokenizer, text: str) -> list[int]:
    return tokenizer(text, add_special_tokens=False).input_ids


@pytest.mark.parametrize("form", ["diffusers", "web ui", "params"])
def test_a_learned_word_has_its_embedding(checkpoint: Where, tmp_path: Path, form: str) -> None:
    model = load_with(checkpoint, "sd1", textual_inversions=[inversion_file(form, tmp_path)])
    ids = ids_of(model.pipe.tokenizer, "<inked>")
    assert torch.equal(model.pipe.text_encoder.get_input_embeddings().weight[ids], VECTORS)
    plain = load_with(checkpoint, "sd1")
    assert not torch.allclose(
        model.embed("an <inked> cat").embeddings, plain.embed("an <inked> cat").embeddings
    )
    assert torch.equal(model.embed("a cat").embeddings, plain.embed("a cat").embeddings)
    assert model.decisive != plain.decisive


def test_a_word_may_be_given_another_name(checkpoint: Where, tmp_path: Path) -> None:
    file = inversion_file("diffusers", tmp_path)
    model = load_with(checkpoint, "sd1", textual_inversions=[{"path": file, "token": "inky"}])
    ids = ids_of(model.pipe.tokenizer, "inky")
    assert torch.equal(model.pipe.text_encoder.get_input_embeddings().weight[ids], VECTORS)


def test_sdxl_learns_a_word_in_both_encoders(checkpoint: Where, tmp_path: Path) -> None:
    second = torch.ones(2, 48)
    file = saved({"clip_l": VECTORS, "clip_g": second}, tmp_path / "inked.safetensors")
    model = load_with(checkpoint, "sdxl", textual_inversions=[file])
    for tokenizer, encoder, value in (
        (model.pipe.tokenizer, model.pipe.text_encoder, VECTORS),
        (model.pipe.tokenizer_2, model.pipe.text_encoder_2, second),
    ):
        ids = ids_of(tokenizer, "inked")
        assert torch.equal(encoder.get_input_embeddings().weight[ids], value)


def test_a_word_of_another_family_or_known_already_is_told(checkpoint: Where, tmp_path: Path) -> None:
    file = inversion_file("diffusers", tmp_path)
    assert "its vectors are 32 wide, but this model's are 48" in complaint(
        checkpoint, "sd2", textual_inversions=[file]
    )
    assert "made for 1 text encoders, but this model has 2" in complaint(
        checkpoint, "sdxl", textual_inversions=[file]
    )
    assert "already in the tokenizer's vocabulary" in complaint(
        checkpoint, "sd1", textual_inversions=[file, file]
    )
    two = saved({"a": VECTORS, "b": VECTORS + 1}, tmp_path / "two.safetensors")
    assert "contains 2 tensors" in complaint(checkpoint, "sd1", textual_inversions=[two])


@pytest.mark.parametrize(
    ("kind", "first", "other"),
    [
        ("loras", {}, {"weight": 0.9}),
        ("textual_inversions", {}, {"token": "inky"}),
        ("controlnets", {}, {"scale": 0.9}),
        ("controlnets", {}, {"thresholds": [10, 20]}),
        ("controlnets", {"hint": "here"}, {"hint": "there"}),
    ],
)
def test_the_same_file_used_otherwise_is_told_apart(
    checkpoint: Where, tmp_path: Path, kind: str, first: dict[str, Any], other: dict[str, Any]
) -> None:
    file = inversion_file("diffusers", tmp_path)
    common = {"model": str(checkpoint("sd1", "folder"))}

    def identity(**used: Any) -> Any:
        settings = ModelSettings.model_validate(common | {kind: [{"path": file} | used]})
        return find(settings)[1].identity[kind]

    assert identity(**first) == identity(**first)
    assert identity(**first) != identity(**other)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"loras": ["no/such.safetensors"]}, "there is no such file or folder"),
        ({"loras": ["none/none"]}, "not on this machine"),
        ({"vae": "none/none"}, "not on this machine"),
        ({"textual_inversions": ["none/none"]}, "not on this machine"),
    ],
)
def test_what_is_not_there_is_told(checkpoint: Where, settings: dict[str, Any], told: str) -> None:
    assert told in complaint(checkpoint, "sd1", offline=True, **settings)


def test_a_folder_without_the_usual_file_asks_for_its_name(checkpoint: Where, tmp_path: Path) -> None:
    assert (
        "has no pytorch_lora_weights.safetensors or adapter_model.safetensors; name the file"
        in complaint(checkpoint, "sd1", loras=[str(tmp_path)])
    )
