"""ControlNet: loaded in each format, added where the method says, shown hints made or ready-made."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from checkpoints import FAMILIES, Family, controlnet, lora, original_controlnet_names, tiny
from click.testing import Result
from diffusers import (
    DDIMScheduler,
    StableDiffusionControlNetImg2ImgPipeline,
    StableDiffusionXLControlNetImg2ImgPipeline,
)
from PIL import Image
from safetensors.torch import save_file
from sampling import NEGATIVE, PROMPT, SEED, relative, sdedit
from torch import Tensor

from sdcorrect.core.branches import Branches
from sdcorrect.core.capture import capture
from sdcorrect.core.inject import inject
from sdcorrect.core.observe import Observation, observe
from sdcorrect.core.plan import Injection
from sdcorrect.core.sites import block_at
from sdcorrect.errors import UsageError
from sdcorrect.inputs.hints import canny
from sdcorrect.models import Model, load
from sdcorrect.recipes import BUILT_IN
from sdcorrect.settings import ModelSettings
from sdcorrect.translate import Request, Translator

Where = Callable[[Family, str], Path]
Run = Callable[..., Result]


@pytest.fixture(scope="session")
def network(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Family], Path]:
    root = tmp_path_factory.mktemp("controlnets")
    for family in FAMILIES:
        controlnet(family).save_pretrained(root / family)
    return lambda family: root / family


def load_with(checkpoint: Where, family: Family, *networks: Any, **settings: Any) -> Model:
    settings = {"model": str(checkpoint(family, "folder")), "device": "cpu"} | settings
    return load(ModelSettings.model_validate(settings | {"controlnets": networks}))


@pytest.mark.parametrize("family", FAMILIES)
def test_without_blocks_it_is_diffusers_controlnet_img2img(
    checkpoint: Where, network: Callable[[Family], Path], icon: Image.Image, family: Family
) -> None:
    second = canny(icon.rotate(90), (50, 100))
    hints = [canny(icon, (50, 100)), second]
    paths = str(network(family))
    model = load_with(checkpoint, family, {"path": paths, "scale": 0.9}, {"path": paths, "scale": 0.4})
    parts = model.pipe.components | {
        "scheduler": DDIMScheduler.from_config(model.scheduler.config),
        "controlnet": list(model.controlnets.nets),
    }
    pipe = (
        StableDiffusionXLControlNetImg2ImgPipeline(**parts, add_watermarker=False)
        if family == "sdxl"
        else StableDiffusionControlNetImg2ImgPipeline(**parts, requires_safety_checker=False)
    )
    pipe.set_progress_bar_config(disable=True)
    expected = pipe(
        PROMPT,
        negative_prompt=NEGATIVE,
        image=icon,
        control_image=hints,
        controlnet_conditioning_scale=[0.9, 0.4],
        strength=0.5,
        num_inference_steps=4,
        guidance_scale=5.0,
        generator=torch.Generator().manual_seed(SEED),
        output_type="latent",
    ).images
    ours = sdedit(model, icon, hints=hints)
    assert relative(ours, expected) < 1e-4
    assert relative(ours, sdedit(model, icon, hints=hints[::-1])) > 1e-4


@pytest.mark.parametrize("family", ["sd1", "sdxl"])
@pytest.mark.parametrize("source", ["captured", "inverted"])
def test_on_an_injected_skip_the_residual_lies_exactly(
    checkpoint: Where, network: Callable[[Family], Path], icon: Image.Image, family: Family, source: Any
) -> None:
    """The correction concatenates S_k + residual_k."""
    model = load_with(checkpoint, family, str(network(family)))
    unet = model.pipe.unet
    latents = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(3))
    text = model.text(["a", "b"], icon.size)
    skips = tuple(Injection("skip", (block,)) for block in (4, 5))
    control = model.control([[canny(icon, (50, 100))]] * 2)
    free = 2 if source == "inverted" else 0
    branches = Branches.of(source, guided=False)
    rows = torch.cat([latents, latents.flip(0)]) if free else latents.flip(0)
    texts = type(text).cat([text] * (len(rows) // 2))
    with capture(unet, skips) as captured:
        unet(latents, 301, **text.arguments)
    residuals = control.evaluate(rows, torch.tensor(301), texts, free)

    seen: dict[int, Tensor] = {}

    def look(_module: object, _args: object, kwargs: dict[str, Any]) -> None:
        for block in (4, 5):
            level = block_at(unet, block)
            if level.up_block is _module:
                seen[block] = kwargs["res_hidden_states_tuple"][level.skip_index]

    kept = captured if source == "captured" else None
    with inject(unet, skips, captured=kept, branches=branches, control=control):
        ups = {id(up): up for up in (block_at(unet, b).up_block for b in (4, 5))}.values()
        handles = [up.register_forward_pre_hook(look, with_kwargs=True) for up in ups]
        unet(rows, 301, **texts.arguments, **residuals)
    for handle in handles:
        handle.remove()
    for block in (4, 5):
        residual = residuals["down_block_additional_residuals"][-(block + 1)]
        assert residual[free:].abs().max() > 0.01
        expected = captured.skip[block].repeat(len(rows) // 2, 1, 1, 1) + residual
        tolerance = {"rtol": 0.0, "atol": 0.0} if source == "captured" else {"rtol": 1e-4, "atol": 1e-5}
        torch.testing.assert_close(seen[block], expected, **tolerance)
        assert (residual[:free] == 0).all()


@pytest.mark.parametrize("family", ["sd1", "sdxl"])
def test_pooled_residuals_act_on_the_prompts_branch_alone_as_in_diffusers(
    checkpoint: Where, tmp_path: Path, icon: Image.Image, family: Family
) -> None:
    shuffle = controlnet(family)
    shuffle.register_to_config(global_pool_conditions=True)
    shuffle.save_pretrained(tmp_path / "shuffle")
    model = load_with(checkpoint, family, {"path": str(tmp_path / "shuffle"), "scale": 0.9})
    parts = model.pipe.components | {
        "scheduler": DDIMScheduler.from_config(model.scheduler.config),
        "controlnet": model.controlnets.nets[0],
    }
    pipe = (
        StableDiffusionXLControlNetImg2ImgPipeline(**parts, add_watermarker=False)
        if family == "sdxl"
        else StableDiffusionControlNetImg2ImgPipeline(**parts, requires_safety_checker=False)
    )
    pipe.set_progress_bar_config(disable=True)
    hint = canny(icon, (50, 100))
    expected = pipe(
        PROMPT,
        negative_prompt=NEGATIVE,
        image=icon,
        control_image=hint,
        controlnet_conditioning_scale=0.9,
        strength=0.5,
        num_inference_steps=4,
        guidance_scale=5.0,
        generator=torch.Generator().manual_seed(SEED),
        output_type="latent",
    ).images
    assert relative(sdedit(model, icon, hints=[hint]), expected) < 1e-4


@pytest.mark.parametrize("order", [("plain", "pooled"), ("pooled", "plain")])
def test_beside_a_pooled_network_a_plain_one_acts_everywhere(
    checkpoint: Where,
    network: Callable[[Family], Path],
    tmp_path: Path,
    icon: Image.Image,
    order: tuple[str, str],
) -> None:
    # a single file tells it by its name alone
    save_file(original_controlnet_names(controlnet("sd1", 3)), tmp_path / "v11e_shuffle.safetensors")
    paths = {"plain": network("sd1"), "pooled": tmp_path / "v11e_shuffle.safetensors"}
    model = load_with(checkpoint, "sd1", *(str(paths[name]) for name in order))
    rows = torch.randn(4, 4, 8, 8, generator=torch.Generator().manual_seed(3))
    text = type(model.text(["a"], icon.size)).cat([model.text([p], icon.size) for p in "abcd"])
    hint = canny(icon, (50, 100))
    together = model.control([[hint, hint]]).evaluate(rows, torch.tensor(301), text, 1, 1)
    down, middle = together["down_block_additional_residuals"], together["mid_block_additional_residual"]
    expected = {}
    for name, net in zip(order, model.controlnets.nets, strict=True):
        expected[name] = net(
            rows,
            301,
            text.embeddings,
            model.control([[hint, hint]]).hints[0].repeat(4, 1, 1, 1),
            return_dict=False,
        )
    for k, residual in enumerate((*down, middle)):
        plain, pooled = (
            (*expected[name][0], expected[name][1])[k].clone() for name in ("plain", "pooled")
        )
        assert pooled.shape[2:] == (1, 1)
        plain[:1], pooled[:2] = 0, 0  # the inverted row, and the unconditional one
        torch.testing.assert_close(residual, plain + pooled, rtol=1e-4, atol=1e-5)


def test_a_controlnet_with_a_name_that_bears_on_it_is_another(checkpoint: Where, tmp_path: Path) -> None:
    identities = []
    for name in ("soft.safetensors", "soft_shuffle.safetensors"):
        save_file(original_controlnet_names(controlnet("sd1")), tmp_path / name)
        model = load_with(checkpoint, "sd1", str(tmp_path / name))
        identities.append(model.decisive["controlnets"][0][0])
        assert model.controlnets.nets[0].config.global_pool_conditions == ("shuffle" in name)
    assert identities[0] != identities[1]


@pytest.mark.parametrize("statistics", ["source", "own"])
@pytest.mark.parametrize("weight", [1.0, 0.4])
@pytest.mark.parametrize("which", ["both", "cond"])
@pytest.mark.parametrize("beside", ["captured", "inverted", "sampled"])
def test_the_residual_stays_whatever_becomes_of_the_skip_below_it(
    checkpoint: Where,
    network: Callable[[Family], Path],
    icon: Image.Image,
    beside: Any,
    which: Any,
    weight: float,
    statistics: Any,
) -> None:
    """(1 - w) S_own + w S + residual, in the branches that are meant, S with own statistics or not."""
    model = load_with(checkpoint, "sd1", str(network("sd1")))
    unet, block = model.pipe.unet, 4
    branches = Branches.of(beside, guided=True)
    count = len(branches.donors)
    latents = torch.randn(count + 1, 4, 8, 8, generator=torch.Generator().manual_seed(3))
    texts = model.text(["a", "b", "c", "d"][:count], icon.size)
    control = model.control([[canny(icon, (50, 100))]])
    skip = Injection("skip", (block,), weight=weight, branches=which, statistics=statistics)
    with capture(unet, [skip]) as captured:
        unet(latents[count:], 1, **texts[:1].arguments)
    rows, t = latents[:count], torch.tensor(301)
    residuals = control.evaluate(rows, t, texts, free=int(beside == "inverted"))
    seen: list[Observation] = []
    with observe(unet, (block,), seen.append, pictures=count):
        unet(rows, t, **texts.arguments)
        unet(rows, t, **texts.arguments, **residuals)
        known = captured if beside == "captured" else None
        with inject(unet, [skip], captured=known, branches=branches, control=control):
            unet(rows, t, **texts.arguments, **residuals)
    bare, plain, used = (observation.skip[block] for observation in seen)
    residual = residuals["down_block_additional_residuals"][-(block + 1)]
    changed = [False, *([True] * (count - 1))] if known is None else [True] * count
    if beside == "sampled":
        changed[2] = False  # the source's own branch of the prompt
    for branch, donor in enumerate(branches.donors):
        if not changed[branch] or (which == "cond" and not branches.conditional[branch]):
            assert torch.equal(used[branch], plain[branch])
            continue
        own = bare[branch : branch + 1]
        source = captured.skip[block] if known else bare[donor : donor + 1]
        if statistics == "own":
            source = (source - mean(source)) / deviation(source) * deviation(own) + mean(own)
        expected = (1 - weight) * own + weight * source + residual[branch]
        torch.testing.assert_close(used[branch : branch + 1], expected, rtol=1e-4, atol=1e-4)
        assert relative(used[branch], plain[branch]) > 1e-2


def mean(features: Tensor) -> Tensor:
    return features.mean(dim=(-2, -1), keepdim=True)


def deviation(features: Tensor) -> Tensor:
    return features.std(dim=(-2, -1), keepdim=True, correction=0)


def test_the_inversion_runs_without_it(
    checkpoint: Where, network: Callable[[Family], Path], icon: Image.Image
) -> None:
    model = load_with(checkpoint, "sd1", str(network("sd1")))
    calls: list[int] = []
    model.controlnets.nets[0].register_forward_pre_hook(lambda *_: calls.append(1))
    translator = Translator(model, [BUILT_IN["correct"]], steps=3, strength=1, guidance_scale=5)
    request = Request(icon, 1, "in 3d render style", hints=[canny(icon, (50, 100))])
    result = translator([request], variants=["correct"])["correct"]
    assert len(calls) == 3
    assert result.evaluations == 1 + 2 * 3


def test_a_skip_with_a_residual_is_convolved_at_every_step(
    checkpoint: Where, network: Callable[[Family], Path], icon: Image.Image
) -> None:
    request = Request(icon, 1, "in 3d render style", hints=[canny(icon, (50, 100))])
    once, always = (
        Translator(
            load_with(checkpoint, "sd1", str(network("sd1")), skips_once=on),
            [BUILT_IN["correct"]],
            steps=2,
            strength=1,
            guidance_scale=5,
        )([request], variants=["correct"])["correct"]
        for on in (True, False)
    )
    assert np.array_equal(once.pictures[0], always.pictures[0])


def test_an_inverted_source_that_runs_along_is_not_controlled(
    checkpoint: Where, network: Callable[[Family], Path], icon: Image.Image
) -> None:
    model = load_with(checkpoint, "sd1", str(network("sd1")))
    rows: list[int] = []
    (net,) = model.controlnets.nets
    net.register_forward_pre_hook(
        lambda _module, _args, kwargs: rows.append(len(kwargs["sample"])), with_kwargs=True
    )
    quick = BUILT_IN["pnp"].model_copy(update={"steps": None, "inversion_steps": None})
    translator = Translator(model, [quick], steps=2, strength=1, guidance_scale=5)
    request = Request(icon, 1, "in 3d render style", hints=[canny(icon, (50, 100))])
    translator([request], variants=["pnp"])
    assert rows == [2, 2]  # of the three rows [source, uncond, cond] of each step


def test_what_is_computed_once_more_in_float32_is_controlled_in_it_too(
    checkpoint: Where, network: Callable[[Family], Path], icon: Image.Image
) -> None:
    model = load_with(checkpoint, "sd1", str(network("sd1")), dtype="bfloat16")
    hints = [canny(icon, (50, 100))]
    half = sdedit(model, icon, hints=hints)
    with model.in_float32():
        whole = sdedit(model, icon, hints=hints)
    assert 0 < relative(half, whole) < 0.05
    assert torch.equal(sdedit(model, icon, hints=hints), half)


@pytest.mark.parametrize(
    ("family", "form"),
    [("sd1", "safetensors"), ("sd1", "pth"), ("sd2", "safetensors"), ("sdxl", "diffusers")],
)
def test_a_single_file_is_the_same_network(
    checkpoint: Where, tmp_path: Path, family: Family, form: str
) -> None:
    expected = controlnet(family)
    file = tmp_path / ("control.pth" if form == "pth" else "control.safetensors")
    # SDXL's are passed around under diffusers' names
    tensors = expected.state_dict() if form == "diffusers" else original_controlnet_names(expected)
    torch.save(tensors, file) if form == "pth" else save_file(tensors, file)
    model = load_with(checkpoint, family, str(file))
    (loaded,) = model.controlnets.nets
    for name, value in expected.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value), name


@pytest.mark.parametrize(("family", "other"), [("sd1", "sd2"), ("sd1", "sdxl"), ("sdxl", "sd1")])
def test_a_controlnet_of_another_family_is_told(
    checkpoint: Where,
    network: Callable[[Family], Path],
    tmp_path: Path,
    family: Family,
    other: Family,
) -> None:
    with pytest.raises(UsageError, match="made for another family: its cross_attention_dim"):
        load_with(checkpoint, family, str(network(other)))
    save_file(original_controlnet_names(controlnet(other)), tmp_path / "control.safetensors")
    with pytest.raises(UsageError, match="not a ControlNet for this model's family") as error:
        load_with(checkpoint, family, str(tmp_path / "control.safetensors"))
    assert "\n" not in str(error.value)


def test_what_is_no_controlnet_is_told(checkpoint: Where, tmp_path: Path) -> None:
    save_file(lora(tiny("sd1")), tmp_path / "lora.safetensors")
    for name in ("lora.safetensors", "none/none", "."):
        path = tmp_path / name if name != "none/none" else name
        with pytest.raises(UsageError, match="controlnet ") as error:
            load_with(checkpoint, "sd1", str(path), offline=True)
        assert "\n" not in str(error.value)


def complaint(checkpoint: Where, family: Family, settings: Any) -> str:
    with pytest.raises(UsageError) as error:
        load_with(checkpoint, family, settings)
    message = str(error.value)
    assert "\n" not in message
    return message


UNION = ("task_embedding", "control_add_embedding.linear_1.weight", "transformer_layes.0.ln_1.bias")


def test_a_controlnet_union_is_refused_by_name(checkpoint: Where, tmp_path: Path) -> None:
    plain = controlnet("sdxl")
    tensors = plain.state_dict() | {name: torch.ones(6, 16) for name in UNION}
    save_file(tensors, tmp_path / "union.safetensors")
    message = complaint(checkpoint, "sdxl", str(tmp_path / "union.safetensors"))
    assert "3 tensors in it would not be used, such as" in message
    assert "ControlNet-Union" in message
    for changes in ({"_class_name": "ControlNetUnionModel"}, {"num_control_type": 6}, {}):
        folder = tmp_path / f"union{len(changes)}{'_class_name' in changes}"
        plain.save_pretrained(folder)
        save_file(tensors, folder / "diffusion_pytorch_model.safetensors")
        config = folder / "config.json"
        config.write_text(json.dumps(json.loads(config.read_text()) | changes))
        assert "ControlNet-Union" in complaint(checkpoint, "sdxl", str(folder))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"_class_name": "ControlNetXSAdapter"}, "is not a ControlNet but ControlNetXSAdapter"),
        ({"conditioning_channels": 1}, "its conditioning_channels is 1; expected 3"),
        ({"layers_per_block": 1}, "another family: its layers_per_block is 1, this model's is 2"),
    ],
)
def test_another_architecture_is_told(
    checkpoint: Where, tmp_path: Path, change: dict[str, Any], expected: str
) -> None:
    config = controlnet("sd1").config
    network = type(controlnet("sd1")).from_config({**config, **change})
    network.save_pretrained(tmp_path)
    if "_class_name" in change:
        file = tmp_path / "config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | change))
    assert expected in complaint(checkpoint, "sd1", str(tmp_path))


def test_a_variant_is_loaded_and_named(checkpoint: Where, tmp_path: Path) -> None:
    controlnet("sd1", 2).save_pretrained(tmp_path / "cn", variant="fp16")
    path = str(tmp_path / "cn")
    message = complaint(checkpoint, "sd1", path)
    assert "cn: has only the variant fp16; set variant: fp16" in message
    model = load_with(checkpoint, "sd1", {"path": path, "variant": "fp16"})
    expected = controlnet("sd1", 2).state_dict()
    for name, value in model.controlnets.nets[0].state_dict().items():
        assert torch.equal(value, expected[name]), name
    controlnet("sd1", 3).save_pretrained(tmp_path / "cn")
    plain = load_with(checkpoint, "sd1", path)
    assert plain.decisive["controlnets"] != model.decisive["controlnets"]
    message = complaint(checkpoint, "sd1", {"path": path, "variant": "ema"})
    assert "has no variant ema; it has the variant fp16; set variant: fp16" in message


def test_canny_draws_edges_white_on_black() -> None:
    square = Image.new("RGB", (64, 64))
    square.paste((255, 255, 255), (16, 16, 48, 48))
    edges = np.asarray(canny(square, (50, 100)))
    assert edges.shape == (64, 64, 3)
    assert set(np.unique(edges)) == {0, 255}
    rows, columns = np.nonzero(edges[..., 0])
    assert {rows.min(), columns.min()} <= {15, 16}
    assert {rows.max(), columns.max()} <= {47, 48}
    faint = Image.new("RGB", (64, 64), (100, 100, 100))
    faint.paste((115, 115, 115), (16, 16, 48, 48))
    assert not np.asarray(canny(faint, (50, 100))).any()
    assert np.asarray(canny(faint, (5, 10))).any()


@pytest.fixture
def run(
    translate: Run, pictures: Path, checkpoint: Where, network: Callable[[Family], Path], tmp_path: Path
) -> Run:
    """Translate the pictures with a ControlNet, its settings given: run("out", scale=0.5)."""

    def call(out: str, **settings: Any) -> Result:
        networks = json.dumps([{"path": str(network("sd1"))} | settings])
        model = checkpoint("sd1", "folder")
        arguments = ["--model", model, "--set", f"controlnets={networks}", "--set", "size=64"]
        return translate(pictures, "-o", tmp_path / out, *arguments)

    return call


def test_the_command_line_makes_hints_and_the_scale_matters(run: Run, tmp_path: Path) -> None:
    for out, scale in (("full", 1), ("none", 0)):
        result = run(out, scale=scale)
        assert result.exit_code == 0, result.output
    full, none = ((tmp_path / out / "correct" / "church.png").read_bytes() for out in ("full", "none"))
    assert full != none
    again = run("full", scale=0.5)
    assert again.exit_code == 2
    assert "controlnets was" in again.stderr


def test_ready_made_hints_are_those_of_the_pictures_names(
    run: Run, pictures: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "hints"
    for picture in ("bicycle.png", "church.jpg", "sub/ghost.png"):
        hint = folder / Path(picture).with_suffix(".png")
        hint.parent.mkdir(parents=True, exist_ok=True)
        with Image.open(pictures / picture) as image:
            canny(image.resize((64, 64), Image.Resampling.LANCZOS), (50, 100)).save(hint)
    assert run("made").exit_code == 0
    assert run("found", hint=str(folder)).exit_code == 0
    made, found = (
        (tmp_path / out / "correct" / "bicycle.png").read_bytes() for out in ("made", "found")
    )
    assert made == found
    # one that is changed in place is found changed
    canny(Image.new("RGB", (64, 64)), (50, 100)).save(folder / "bicycle.png")
    assert "1/1 done correct/bicycle.png" in run("found", hint=str(folder)).stderr
    assert (tmp_path / "found" / "correct" / "bicycle.png").read_bytes() != found
    assert "nothing to do" in run("found", hint=str(folder)).stdout
    (folder / "sub" / "ghost.png").unlink()
    Image.new("RGB", (64, 500)).save(folder / "church.png")
    result = run("lacking", hint=str(folder))
    assert result.exit_code == 3
    assert "has no hint: there is no" in result.stderr
    assert "church.png: does not have the shape of the picture" in result.stderr
    assert (tmp_path / "lacking" / "correct" / "bicycle.png").is_file()

    nowhere = run("nowhere", hint=str(tmp_path / "nowhere"))
    assert nowhere.exit_code == 2
    assert "there is no such folder; give a folder of hints, or canny" in nowhere.stderr


def test_control_is_none_without_controlnets(model: Model) -> None:
    assert model.control([[]]) is None
