"""Every key of a job, changed on a finished output folder: refused by name, or it changes no picture."""

import io
import json
import shutil
from collections.abc import Callable, Iterator
from copy import copy
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from checkpoints import controlnet, lora, save_folder, save_single, tiny
from click.testing import Result
from drill import make_pictures
from PIL import Image
from pydantic import BaseModel
from safetensors.torch import save_file

from sdcorrect.batch.jobfile import fingerprint_of
from sdcorrect.batch.runner import ShardRun
from sdcorrect.config import Job, absolute_paths, load_job
from sdcorrect.errors import UsageError
from sdcorrect.models import Model, load
from sdcorrect.models.load import decisive_settings, find
from sdcorrect.models.training import scheduler_for
from sdcorrect.output.ledger import refuse_other_job
from sdcorrect.output.records import Fingerprint
from sdcorrect.output.shards import Shard
from sdcorrect.recipes import Recipe

Settings = dict[str, Any]
Run = Callable[..., Result]
#: In the settings below, `@name` is a file of the fixture `files`.
QUICK: Settings = {
    "input": {"path": "@pictures"},
    "output": {"path": "@out"},
    "prompt": "in 3d render style",
    "method": "sdedit",
    "steps": 2,
    "strength": 1,
    "size": 32,
    "device": "cpu",
}
ATTENTION = {"tensor": "self-attention", "blocks": ["3"]}
FEATURE = {"tensor": "skip", "blocks": ["4"]}
ONE_STEP = {"name": "own", "inversion": "one-step", "inject": [ATTENTION]}
INVERTED = {"name": "own", "inversion": "full", "start": "inverted", "inject": [ATTENTION]}
CROSSED = INVERTED | {
    "source": "sampled",
    "inversion_prompt": "source",
    "words": "refine",
    "inject": [{"tensor": "cross-attention", "blocks": ["3"]}],
}
ITERATED = INVERTED | {"inversion_iterations": 2}
MAPS = {"name": "own", "inversion": "ddpm", "start": "inverted"}
NOISED = {"name": "own", "source": "noised"}
TOLD: Settings = {"source_prompt": "a cat"}
CONTROLNET = {"variant": "fp16", "hint": "@pictures", "thresholds": [1, 2], "scale": 0.5}
P2P: Settings = {"method": "p2p-reweight", "source_prompt": "a cat"}


def recipe(before: Settings, **changes: Any) -> tuple[Settings, Settings]:
    return {"method": before}, {"method": before | changes}


def injection(before: Settings, **changes: Any) -> tuple[Settings, Settings]:
    return recipe(INVERTED | {"inject": [before]}, inject=[before | changes])


#: The settings of a finished job, and what is then changed in them.
REFUSED: dict[str, tuple[Settings, Settings]] = {
    "model": ({}, {"model": "@sd1"}),
    "variant": ({"model": "@sd1"}, {"variant": "fp16"}),
    "base_config": (
        {"model": "@single.safetensors", "base_config": "@sd1"},
        {"base_config": "@other sd1"},
    ),
    "prediction_type": ({}, {"prediction_type": "v_prediction"}),
    "zero_snr": ({}, {"zero_snr": True}),
    "timestep_spacing": ({}, {"timestep_spacing": "trailing"}),
    "vae": ({}, {"vae": "@sd1"}),
    "loras.path": ({"loras": ["@lora"]}, {"loras": ["@other lora"]}),
    "loras.weight": ({"loras": ["@lora"]}, {"loras": [{"path": "@lora", "weight": 0.5}]}),
    # where neither the file nor the job says which word it is for, the file's name does
    "textual_inversions.path": ({"textual_inversions": ["@cat"]}, {"textual_inversions": ["@dog"]}),
    "textual_inversions.token": (
        {"textual_inversions": ["@cat"]},
        {"textual_inversions": [{"path": "@cat", "token": "x"}]},
    ),
    "controlnets.path": ({"controlnets": ["@controlnet"]}, {"controlnets": ["@other controlnet"]}),
    **{
        f"controlnets.{key}": (
            {"controlnets": ["@controlnet"]},
            {"controlnets": [{"path": "@controlnet", key: value}]},
        )
        for key, value in {
            "variant": "fp16",
            "hint": "@pictures",
            "thresholds": [1, 2],
            "scale": 0.5,
        }.items()
    },
    "prompt_syntax": ({}, {"prompt_syntax": "weighted"}),
    "safety_checker": ({}, {"safety_checker": True}),
    "dtype": ({}, {"dtype": "bfloat16"}),
    "vae_dtype": ({}, {"vae_dtype": "bfloat16"}),
    "vae_slicing": ({}, {"vae_slicing": True}),
    "vae_tiling": ({}, {"vae_tiling": True}),
    "channels_last": ({}, {"channels_last": True}),
    "skips_once": ({}, {"skips_once": True}),
    "compile": ({}, {"compile": True}),
    "tf32": ({}, {"tf32": True}),
    "output.format": ({}, {"output": {"path": "@out", "format": "jpg"}}),
    "output.embed_metadata": ({}, {"output": {"path": "@out", "embed_metadata": False}}),
    "output.keep": ({}, {"output": {"path": "@out", "keep": ["exif"]}}),
    "background": ({}, {"background": "transparent"}),
    "match_colors": ({}, {"match_colors": "source"}),
    "prompt": ({}, {"prompt": "in oil"}),
    "negative_prompt": ({}, {"negative_prompt": "blurry"}),
    "source_prompt": ({"source_prompt": "a cat"}, {"source_prompt": "a dog"}),
    "equalizer": (P2P | {"equalizer": {"style": 2}}, {"equalizer": {"style": 3}}),
    "mask": ({"mask": "alpha"}, {"mask": "@pictures"}),
    "mask_words": (
        {"mask": "words", "mask_words": "style"},
        {"mask": "words", "mask_words": ["3d", "style"]},
    ),
    "mask_threshold": (
        {"mask": "words", "mask_words": "style"},
        {"mask": "words", "mask_words": "style", "mask_threshold": 0.25},
    ),
    "mask_feather": ({"mask": "alpha"}, {"mask": "alpha", "mask_feather": 3}),
    "invert_mask": ({"mask": "alpha"}, {"mask": "alpha", "invert_mask": True}),
    "strength": ({}, {"strength": 0.5}),
    "steps": ({}, {"steps": 3}),
    "guidance_scale": ({}, {"guidance_scale": 2}),
    "scheduler": ({}, {"scheduler": "dpm++"}),
    "steps_offset": ({}, {"steps_offset": 0}),
    "seed": ({}, {"seed": 1}),
    "size": ({}, {"size": 40}),
    "resize": ({}, {"resize": "crop"}),
    "method.inversion": recipe(INVERTED, inversion="one-step", start="noise"),
    "method.timestep": recipe(ONE_STEP, timestep=500),
    "method.scale_input": recipe(ONE_STEP, scale_input=True),
    "method.inversion_steps": recipe(INVERTED, inversion_steps=3),
    "method.inversion_prompt": (
        {"method": INVERTED, "source_prompt": "a cat"},
        {"method": INVERTED | {"inversion_prompt": "source"}},
    ),
    "method.inversion_guidance": (
        {"method": INVERTED | {"inversion_prompt": "source"}, "source_prompt": "a cat"},
        {"method": INVERTED | {"inversion_prompt": "source", "inversion_guidance": 2}},
    ),
    "method.start": recipe(INVERTED, start="noise"),
    "method.source": recipe(INVERTED, source="sampled"),
    "method.inversion_iterations": recipe(INVERTED, inversion_iterations=2),
    "method.inversion_average": recipe(ITERATED, inversion_average=[0, 2]),
    "method.noise_shift": recipe(MAPS, noise_shift=1),
    "method.last_map": recipe(MAPS, last_map=False),
    "method.last_map_norm": recipe(MAPS, last_map_norm=0.5),
    "method.source_branch_prompt": recipe(INVERTED, source_branch_prompt="target"),
    "method.source_guidance": (
        TOLD | {"method": NOISED},
        {"method": NOISED | {"source_guidance": 2}},
    ),
    "method.eta": (TOLD | {"method": NOISED}, {"method": NOISED | {"eta": 0.5}}),
    "method.noise": (
        TOLD | {"method": NOISED | {"eta": 0.5}},
        {"method": NOISED | {"eta": 0.5, "noise": "posterior"}},
    ),
    "method.step_to": (TOLD | {"method": NOISED}, {"method": NOISED | {"step_to": "clean"}}),
    "method.unconditional": (
        TOLD | {"method": INVERTED},
        {"method": INVERTED | {"unconditional": "source"}},
    ),
    "method.guidance_threshold": recipe(INVERTED, guidance_threshold=0.5),
    "method.model": ({"timestep_spacing": "trailing"}, {"method": {"name": "sdedit", "model": "turbo"}}),
    "method.strength": recipe({"name": "own"}, strength=0.5),
    "method.steps_offset": recipe({"name": "own"}, steps_offset=0),
    "method.inject.tensor": injection(ATTENTION, tensor="key-value"),
    "method.inject.blocks": injection(ATTENTION, blocks=["4"]),
    "method.inject.window": injection(ATTENTION, window=[0, 0.5]),
    "method.inject.timesteps": injection(ATTENTION, timesteps=[0, 500]),
    "method.inject.weight": injection(ATTENTION, weight=0.5),
    "method.inject.max_tokens": injection(ATTENTION, max_tokens=16),
    "method.inject.statistics": injection(FEATURE, statistics="own"),
    "method.inject.branches": injection(ATTENTION, branches="cond"),
    "method.words": (
        {"method": CROSSED, "source_prompt": "a cat", "prompt": "a dog"},
        {"method": CROSSED | {"words": "replace"}},
    ),
    "method.posterior": recipe(INVERTED, posterior="mean"),
    "method.guidance_window": recipe(INVERTED, guidance_window=[0, 0.5]),
    "method.reuse_every": recipe(INVERTED, reuse_every=2),
    "method.steps": recipe(INVERTED, steps=3),
    "method.guidance_scale": recipe(INVERTED, guidance_scale=2),
    "method.negative_prompt": recipe(INVERTED, negative_prompt="blurry"),
    "method.scheduler": recipe({"name": "own"}, scheduler="dpm++"),
    "method.solver_steps": recipe({"name": "own", "scheduler": "dpm++"}, solver_steps=2),
}
#: The same of settings that no picture shows, and why.
HARMLESS: dict[str, tuple[str, Settings, Settings]] = {
    "revision": ("of a hub id, whose identity is the commit", {}, {"revision": "main"}),
    "device": (
        "where it is computed; shards may run on several, in the precision of `dtype`",
        {},
        {"device": "auto"},
    ),
    "offline": ("where files come from; they are known by content", {}, {"offline": True}),
    "input.path": (
        "pictures are known by their path in it and their content",
        {},
        {"input": {"path": "@copied pictures"}},
    ),
    "input.recursive": ("which pictures", {}, {"input": {"path": "@pictures", "recursive": False}}),
    "input.captions": (
        "each picture's record has its prompt; others are done again",
        {"prompt": "{caption}", "input": {"path": "@pictures", "captions": "@captions"}},
        {"input": {"path": "@pictures", "captions": "@other captions"}},
    ),
    "input.classes": (
        "each picture's record has its prompt; others are done again",
        {"prompt": "{class}", "input": {"path": "@pictures", "classes": "@classes"}},
        {"input": {"path": "@pictures", "classes": "@other classes"}},
    ),
    **{
        f"input.{key}": ("which pictures", {}, {"input": {"path": "@pictures", key: value}})
        for key, value in {"min_side": 40, "max_side": 64, "max_aspect": 1, "max_pixels": 5000}.items()
    },
    "output.path": ("another folder", {}, {"output": {"path": "@elsewhere"}}),
    "method.name": ("another variant, beside those before", {}, {"method": {"name": "own"}}),
    "method.summary": (
        "words for people",
        {"method": {"name": "own"}},
        {"method": {"name": "own", "summary": "x"}},
    ),
    "variants": ("more recipes, each refused like `method`", {}, {"variants": ["sdedit", "correct"]}),
    "batch_size": (
        "its economy: kernels round by it, as they do where memory halves it",
        {},
        {"batch_size": "auto"},
    ),
    "limit": ("how many pictures", {}, {"limit": 1}),
    "spill": ("where latents wait, as they are", {"method": "ddim"}, {"spill": "@spill"}),
}
#: It moves parts between devices and computes the same; where there is no other device it is refused.
REFUSED_ON_THE_CPU = {"cpu_offload"}
#: The same pixels in a smaller file.
OF_THE_FILE = {"output.png_compression"}
#: Of the harmless ones, those that are proven each time.
OFTEN = {"batch_size", "limit", "spill"}


def keys_of(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """The dotted keys of all settings; of a section or a list's entries, those within."""
    for name, field in model.model_fields.items():
        inner = None if name == "variants" else model_in(field.annotation)
        if inner:
            yield from keys_of(inner, f"{prefix}{name}.")
        else:
            yield prefix + name


def model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(filter(None, map(model_in, get_args(annotation))), None)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Whatever a setting may name."""
    root = tmp_path_factory.mktemp("files")
    pipe = tiny("sd1")
    for variant in (None, "fp16"):
        save_folder(pipe, root / "sd1", variant=variant)
        controlnet("sd1").save_pretrained(root / "controlnet", variant=variant)
    save_single(pipe, root / "single.safetensors")
    save_folder(tiny("sd1", layers_per_block=1), root / "other sd1")
    weights = lora(pipe)
    save_file(weights, root / "lora")
    save_file({key: 2 * value for key, value in weights.items()}, root / "other lora")
    for name in ("cat", "dog"):
        save_file({"emb_params": torch.ones(1, 32)}, root / name)
    controlnet("sd1", seed=3).save_pretrained(root / "other controlnet")
    pictures = make_pictures(root / "pictures", 2)
    shutil.copytree(pictures, root / "copied pictures")
    for name, word in {"": "a cat", "other ": "a dog"}.items():
        images = [{"id": n, "file_name": f"{n:04}.png"} for n in range(2)]
        captions = [{"image_id": n, "caption": word} for n in range(2)]
        coco = {"images": images, "annotations": captions}
        (root / f"{name}captions").write_text(json.dumps(coco))
        (root / f"{name}classes").write_text(f"pictures {word}\n")
    return root


def job_of(files: Path, *changes: Settings) -> Job:
    settings = dict(QUICK)
    for change in changes:
        settings |= change
    return load_job(None, json.loads(json.dumps(settings).replace("@", f"{files}/")))


def mark_of(job: Job, model: Model) -> Fingerprint:
    """The fingerprint of `job`, for which nothing more is loaded than `dtype` asks for."""
    own = load(job) if job.dtype != "auto" else copy(model)
    checkpoint, adapters = find(job)
    scheduler = scheduler_for(checkpoint.name, checkpoint.config, checkpoint.marks, job)
    own.decisive = decisive_settings(job, checkpoint, adapters, scheduler)
    own.identity = find(job)[0].identity
    return fingerprint_of(job, own, job.size or model.native_size)


def test_every_key_is_known_to_be_decisive_or_harmless() -> None:
    assert model_in(Job.model_fields["variants"].annotation) is Recipe
    known = [*REFUSED, *HARMLESS, *REFUSED_ON_THE_CPU, *OF_THE_FILE]
    assert sorted(known) == sorted(keys_of(Job))


@pytest.mark.parametrize("key", REFUSED)
def test_a_decisive_key_is_refused_by_name(files: Path, model: Model, key: str) -> None:
    base, changes = REFUSED[key]
    before = mark_of(job_of(files, base), model)
    after = mark_of(job_of(files, base, changes), model)
    for mark in (before, after):
        again = Fingerprint.model_validate(json.loads(mark.as_json()))
        assert again == mark
        refuse_other_job(files, again, mark)
    section, _, rest = key.partition(".")
    # which of its files is part of what the model is
    told = {"method": rest.partition(".")[0], "output": rest, "variant": "model"}.get(section, section)
    with pytest.raises(UsageError, match=rf"(\b{told} was .* and is |another recipe \(.*\b{told}\b)"):
        refuse_other_job(files, before, after)


@pytest.mark.parametrize("key", [*REFUSED, *HARMLESS])
def test_a_job_is_read_as_it_was_written(files: Path, key: str) -> None:
    changes = REFUSED[key] if key in REFUSED else HARMLESS[key][1:]
    job = absolute_paths(job_of(files, *changes))
    assert Job.model_validate(json.loads(json.dumps(job.model_dump(mode="json")))) == job


@pytest.mark.parametrize(
    "key", [key if key in OFTEN else pytest.param(key, marks=pytest.mark.slow) for key in HARMLESS]
)
def test_what_a_harmless_key_leaves_is_what_a_new_run_makes(
    files: Path, model: Model, tmp_path: Path, key: str
) -> None:
    _, base, changes = HARMLESS[key]
    finished, changed = job_of(files, base), job_of(files, base, changes)
    own = load(changed) if key in {"revision", "device", "offline"} else model
    refuse_other_job(files, mark_of(finished, model), mark_of(changed, own))
    made = outputs_of(finished, model, tmp_path / "one")
    gone_on = outputs_of(changed, own, tmp_path / "one")
    anew = outputs_of(changed, own, tmp_path / "other")
    assert made and anew
    if key == "batch_size":
        made, anew = (levels_of(outputs) for outputs in (made, anew))
        assert all(abs(made[name] - anew[name]).max() <= 1 for name in anew)
    else:
        assert {name: gone_on[name] for name in anew} == anew


def outputs_of(job: Job, model: Model, out: Path) -> dict[str, bytes]:
    output = job.output.model_copy(update={"path": out})
    for record in ShardRun(job.model_copy(update={"output": output}), model, Shard()).records():
        assert record is None or record.status != "failed", record
    return {file.relative_to(out).as_posix(): file.read_bytes() for file in out.rglob("*.png")}


def levels_of(outputs: dict[str, bytes]) -> dict[str, "np.ndarray[Any, np.dtype[np.int16]]"]:
    return {
        name: np.asarray(Image.open(io.BytesIO(data))).astype(np.int16) for name, data in outputs.items()
    }


@pytest.mark.parametrize("shards", [1, 2])
def test_a_job_with_a_controlnet_goes_on(
    files: Path, translate: Run, tmp_path: Path, shards: int
) -> None:
    network = [f"model={files / 'sd1'}", f"controlnets=[{files / 'controlnet'}]"]
    command = ["--method", "sdedit", *(word for setting in network for word in ("--set", setting))]
    out = tmp_path / "out"
    for index in [*range(shards), *range(shards)]:
        shard = ["--num-shards", shards, "--shard-index", index]
        result = translate(files / "pictures", "-o", out, *command, *shard)
        assert result.exit_code == 0, result.stderr
    assert "nothing to do" in result.stdout


def test_another_job_is_refused_with_exit_code_2(files: Path, translate: Run, tmp_path: Path) -> None:
    command = [files / "pictures", "-o", tmp_path / "out", "--method", "sdedit"]
    assert translate(*command).exit_code == 0
    for changes, told in {
        "channels_last=true": "channels_last was None and is True",
        "cpu_offload=true": "cpu_offload: the model runs on the CPU anyway",
    }.items():
        result = translate(*command, "--set", "device=cpu", "--set", changes)
        assert result.exit_code == 2
        assert told in result.stderr and result.stderr.count("\n") == 1
