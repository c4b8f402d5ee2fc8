import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from sampling import NEGATIVE, PROMPT, SEED, of_diffusers, relative, sdedit

from sdcorrect.errors import UsageError
from sdcorrect.models import MINI, Model, choose_device, load
from sdcorrect.recipes import BUILT_IN
from sdcorrect.settings import ModelSettings
from sdcorrect.translate import Request, Translator


def translate(
    model: Model, image: Image.Image, *names: str, strength: float = 0.8
) -> dict[str, Image.Image]:
    recipes = [BUILT_IN[name] for name in names]
    translator = Translator(model, recipes, steps=5, strength=strength, guidance_scale=5)
    translations = translator([Request(image, SEED, PROMPT, NEGATIVE)], variants=names)
    return {name: translations[name].pictures[0] for name in names}


@pytest.mark.parametrize("strength", [0.8, 1.0])
def test_without_blocks_it_is_the_img2img_pipeline_of_diffusers(
    model: Model, icon: Image.Image, strength: float
) -> None:
    expected = of_diffusers(model, icon, steps=5, strength=strength)
    assert relative(sdedit(model, icon, steps=5, strength=strength), expected) < 1e-4

    (picture,) = model.decode(expected)
    ours = translate(model, icon, "sdedit", strength=strength)["sdedit"]
    difference = np.asarray(ours, dtype=int) - np.asarray(picture, dtype=int)
    assert np.abs(difference).max() <= 1  # one step of 8 bits, where a rounding falls the other way


def test_variants_share_their_source_and_do_not_change_each_other(
    model: Model, icon: Image.Image
) -> None:
    together = translate(model, icon, "sdedit", "correct", "correct-attention", "ddim")
    for name, picture in together.items():
        assert picture.tobytes() == translate(model, icon, name)[name].tobytes()
    assert len({picture.tobytes() for picture in together.values()}) == 4


def test_bfloat16_takes_the_same_path_to_nearly_the_same_picture(
    model: Model, icon: Image.Image
) -> None:
    half = load(ModelSettings(device="cpu", dtype="bfloat16"))
    assert half.dtype == torch.bfloat16
    ours, expected = (
        np.asarray(translate(each, icon, "correct")["correct"], dtype=float) for each in (half, model)
    )
    assert 0 < np.abs(ours - expected).mean() < 6


def test_what_a_solver_draws_as_it_goes_is_the_pictures_own(model: Model, icon: Image.Image) -> None:
    recipes = [BUILT_IN["sdedit"]]
    translator = Translator(model, recipes, steps=3, strength=1, guidance_scale=5, scheduler="lcm")

    def pictures(*seeds: int) -> list[bytes]:
        requests = [Request(icon, seed, PROMPT, NEGATIVE) for seed in seeds]
        translation = translator(requests, variants=["sdedit"])["sdedit"]
        return [picture.tobytes() for picture in translation.pictures]

    first, second = pictures(1, 2)
    assert first != second
    torch.manual_seed(5)
    assert pictures(2, 1) == [second, first]


def test_noise_depends_on_the_seed_alone(model: Model) -> None:
    posterior, start = model.noise([3, 4, 3], (64, 32))
    assert start.shape == (3, 4, 8, 16)
    assert torch.equal(start[0], start[2])
    assert not torch.equal(start[0], start[1])
    assert not torch.equal(start[0], posterior[0])
    assert torch.equal(model.noise([4], (64, 32))[1], start[1:2])


def test_decoding_and_encoding_return_the_picture(model: Model, icon: Image.Image) -> None:
    latents = model.encode([icon], torch.zeros(1, 4, 16, 16))
    assert latents.shape == (1, 4, 16, 16)
    assert 0.5 < float(latents.std()) < 1.5
    (picture,) = model.decode(latents)
    assert picture is not None
    assert np.abs(np.asarray(picture, dtype=float) - np.asarray(icon, dtype=float)).mean() < 6


def test_a_result_that_is_not_finite_is_no_picture(model: Model) -> None:
    latents = torch.zeros(2, 4, 16, 16)
    latents[1] = torch.nan
    good, bad = model.decode(latents)
    assert good is not None
    assert bad is None


def test_each_prompt_is_encoded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model = load(ModelSettings(device="cpu"))
    calls: list[int] = []
    model.pipe.text_encoder.register_forward_pre_hook(lambda *_: calls.append(1))
    embeddings = model.text(["a cat", "a dog", "a cat", ""], (64, 64)).embeddings
    assert embeddings.shape == (4, 24, model.pipe.text_encoder.config.hidden_size)
    assert torch.equal(embeddings[0], embeddings[2])
    assert len(calls) == 3


def test_of_many_prompts_only_the_last_stay_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sdcorrect.models.model.KEPT_ENCODINGS", 2)
    model = load(ModelSettings(device="cpu"))
    calls: list[int] = []
    model.pipe.text_encoder.register_forward_pre_hook(lambda *_: calls.append(1))
    for prompt, read in {"a": 1, "b": 2, "c": 3}.items():
        model.embed(prompt)
        assert len(calls) == read
    for prompt, read in (("c", 3), ("b", 3), ("a", 4)):
        model.embed(prompt)
        assert len(calls) == read


def test_a_prompt_over_the_limit_is_reported_with_what_is_cut(
    model: Model, caplog: pytest.LogCaptureFixture
) -> None:
    model.embed(" ".join(["basketball"] * 40) + " violin")
    assert "violin" in caplog.text
    assert "reads only 22" in caplog.text


def test_the_embedded_weights_are_float16_and_computed_in_float32(model: Model) -> None:
    for file in MINI.rglob("*.safetensors"):
        with safe_open(file, "pt") as tensors:
            # a batch normalisation counts its batches, too
            weights = [key for key in tensors.keys() if not key.endswith("num_batches_tracked")]  # noqa: SIM118
            assert {tensors.get_slice(key).get_dtype() for key in weights} == {"F16"}
    assert {parameter.dtype for parameter in model.pipe.unet.parameters()} == {torch.float32}


def test_a_diffusers_folder_is_a_model_and_its_content_names_it(tmp_path: Path, model: Model) -> None:
    folder = shutil.copytree(MINI, tmp_path / "model")
    assert load(ModelSettings(model=str(folder), device="cpu")).identity == model.identity
    (folder / "all-in-one.safetensors").write_bytes(b"what lies beside its parts is not loaded")
    shutil.rmtree(folder / "clip")
    assert load(ModelSettings(model=str(folder), device="cpu")).identity == model.identity
    (folder / "unet" / "config.json").write_text((MINI / "unet" / "config.json").read_text() + "\n")
    assert load(ModelSettings(model=str(folder), device="cpu")).identity != model.identity


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nowhere", "model nowhere: there is no such file or folder; give one, or a hub id"),
        ("minni", "model minni: there is no such file or folder; did you mean mini?"),
        (str(MINI.with_name("minni2")), "there is no such file or folder; did you mean mini?"),
        ("./no/such/folder", "there is no such file or folder"),
        ("{tmp}", "no model_index.json"),
        (
            "nobody/nothing",
            "model nobody/nothing: not on this machine, and the hub is not contacted offline",
        ),
    ],
)
def test_a_model_that_is_not_there_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, message: str
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UsageError, match=message) as error:
        load(ModelSettings(model=name.format(tmp=tmp_path), device="cpu"))
    assert "\n" not in str(error.value)


def test_a_broken_pipeline_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "model_index.json").write_text('{"_class_name": "StableDiffusionPipeline", "unet": [1]}')
    with pytest.raises(UsageError, match="not a Stable Diffusion pipeline") as error:
        load(ModelSettings(model=str(tmp_path), device="cpu"))
    assert "\n" not in str(error.value)


def test_devices() -> None:
    expected = "cuda" if torch.cuda.is_available() else "cpu"
    device, dtype = choose_device("auto", "auto")
    assert device.type == expected
    assert dtype == (torch.float16 if expected == "cuda" else torch.float32)
    with pytest.raises(UsageError, match="there is no device 'warp'"):
        choose_device("warp", "auto")


def test_mini_names_no_folder_of_the_machine_that_trained_it() -> None:
    settings = list(MINI.rglob("*.json"))
    assert any("_name_or_path" in file.read_text() for file in settings)
    for file in settings:
        assert '"/' not in file.read_text() or file.name in {"vocab.json", "tokenizer.json"}, file
