"""What identifies a model covers every file that is loaded, whatever its suffix and wherever it lies."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoints import Family, Tensors, controlnet, lora, tiny, vae
from click.testing import Result
from safetensors.torch import load_file, save_file

from sdcorrect.models import find
from sdcorrect.models.hashes import hash_folder
from sdcorrect.settings import ModelSettings

Where = Callable[[Family, str], Path]


def identity(**settings: Any) -> tuple[str, str | None, dict[str, Any]]:
    checkpoint, adapters = find(ModelSettings.model_validate(settings))
    return checkpoint.identity, checkpoint.base_identity, adapters.identity


def read(file: Path) -> Tensors:
    return load_file(file) if file.suffix == ".safetensors" else torch.load(file)


def change(file: Path) -> None:
    """Other weights of the same names and shapes."""
    tensors = {
        key: value * 1.3 if value.is_floating_point() else value for key, value in read(file).items()
    }
    if file.suffix == ".safetensors":
        save_file(tensors, file, {"format": "pt"})
    else:
        torch.save(tensors, file)


def in_shards(module: Any, folder: Path, **options: Any) -> Path:
    """One of several files of a module's weights."""
    module.save_pretrained(folder, max_shard_size="100KB", **options)
    shards = sorted(folder.glob("*-of-*"))
    assert len(shards) > 1
    return shards[-1]


@pytest.fixture
def model(checkpoint: Where, tmp_path: Path) -> Path:
    return Path(shutil.copytree(checkpoint("sd1", "folder"), tmp_path / "model"))


@pytest.mark.parametrize("part", ["unet", "vae"])
@pytest.mark.parametrize("pickled", [True, False])
def test_of_a_model_every_shard_counts(model: Path, part: str, pickled: bool) -> None:
    (model / part / "diffusion_pytorch_model.safetensors").unlink()
    shard = in_shards(tiny("sd1").components[part], model / part, safe_serialization=not pickled)
    before = identity(model=str(model))
    assert identity(model=str(model)) == before
    change(shard)
    assert identity(model=str(model)) != before


def test_a_shard_counts_under_whatever_name_the_index_gives_it(model: Path) -> None:
    folder = model / "unet"
    (folder / "diffusion_pytorch_model.safetensors").unlink()
    shard = in_shards(tiny("sd1").unet, folder)
    odd = shard.rename(folder / "last.weights")
    (index,) = folder.glob("*.index.json")
    index.write_text(index.read_text().replace(shard.name, odd.name))
    before = identity(model=str(model))
    odd.write_bytes(odd.read_bytes()[:-1] + b"\1")
    assert identity(model=str(model)) != before


def test_weights_behind_links_count(model: Path, tmp_path: Path) -> None:
    for part in ("unet", "text_encoder"):
        (model / part).rename(tmp_path / part)
        (model / part).symlink_to(tmp_path / part, target_is_directory=True)
    weights = next((model / "vae").glob("*.safetensors")).rename(tmp_path / "vae.safetensors")
    (model / "vae" / "diffusion_pytorch_model.safetensors").symlink_to(weights)
    (model / "unet" / "loop").symlink_to(model)  # leads back
    last = identity(model=str(model))
    for file in (
        *(tmp_path / "unet").glob("*.safetensors"),
        weights,
        tmp_path / "text_encoder" / "config.json",
    ):
        if file.suffix == ".json":
            file.write_text(json.dumps(json.loads(file.read_text()) | {"note": 1}))
        else:
            change(file)
        now = identity(model=str(model))
        assert now != last, file
        last = now
    linked = tmp_path / "elsewhere"
    linked.symlink_to(model, target_is_directory=True)
    assert identity(model=str(linked)) == last


def adapters_of(kind: str, folder: Path) -> tuple[dict[str, Any], Path]:
    """A job's settings with an adapter of a kind, and a file that it is loaded from."""
    part = folder / "part"
    match kind:
        case "vae .bin":
            vae().save_pretrained(part, safe_serialization=False)
            return {"vae": str(part)}, part / "diffusion_pytorch_model.bin"
        case "vae in shards":
            return {"vae": str(part)}, in_shards(vae(), part)
        case "vae of a pipeline":
            vae().save_pretrained(folder / "real" / "vae", safe_serialization=False)
            (folder / "part").symlink_to(folder / "real", target_is_directory=True)
            return {"vae": str(part)}, folder / "real" / "vae" / "diffusion_pytorch_model.bin"
        case "controlnet .bin":
            controlnet("sd1").save_pretrained(part, safe_serialization=False)
            return {"controlnets": [str(part)]}, part / "diffusion_pytorch_model.bin"
        case "controlnet in shards":
            return {"controlnets": [str(part)]}, in_shards(controlnet("sd1"), part)
        case "controlnet variant":
            controlnet("sd1").save_pretrained(part, variant="fp16")
            file = part / "diffusion_pytorch_model.fp16.safetensors"
            return {"controlnets": [{"path": str(part), "variant": "fp16"}]}, file
        case "lora file":
            save_file(lora(tiny("sd1")), folder / "ink.safetensors")
            (folder / "linked.safetensors").symlink_to(folder / "ink.safetensors")
            return {"loras": [str(folder / "linked.safetensors")]}, folder / "ink.safetensors"
        case _:
            (folder / "real").mkdir()
            torch.save({"<ink>": torch.ones(32)}, folder / "real" / "learned_embeds.bin")
            part.symlink_to(folder / "real", target_is_directory=True)
            return {"textual_inversions": [str(part)]}, folder / "real" / "learned_embeds.bin"


@pytest.mark.parametrize(
    "kind",
    [
        "vae .bin",
        "vae in shards",
        "vae of a pipeline",
        "controlnet .bin",
        "controlnet in shards",
        "controlnet variant",
        "lora file",
        "embedding .bin",
    ],
)
def test_of_what_is_laid_over_a_model_every_file_counts(
    checkpoint: Where, tmp_path: Path, kind: str
) -> None:
    settings, file = adapters_of(kind, tmp_path)
    settings["model"] = str(checkpoint("sd1", "folder"))
    before = identity(**settings)
    assert identity(**settings) == before
    change(file)
    assert identity(**settings) != before


def test_notes_and_other_libraries_weights_do_not_count(model: Path) -> None:
    before = identity(model=str(model))
    for name in ("README.md", "unet/README.md", "unet/diffusion_flax_model.msgpack", "unet/.DS_Store"):
        (model / name).write_bytes(b"notes")
    assert identity(model=str(model)) == before


def test_a_folder_that_cannot_be_listed_is_told(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        hash_folder(tmp_path / "nothing", ("*",))


def test_other_weights_are_refused_on_resume(
    translate: Callable[..., Result], pictures: Path, checkpoint: Where, tmp_path: Path
) -> None:
    settings, file = adapters_of("vae .bin", tmp_path)
    arguments = [
        pictures,
        "-o",
        tmp_path / "out",
        "--limit",
        "1",
        "--model",
        checkpoint("sd1", "folder"),
    ]
    arguments += ["--set", f"vae={settings['vae']}"]
    assert translate(*arguments).exit_code == 0
    change(file)
    again = translate(*arguments)
    assert again.exit_code == 2
    assert "vae was" in again.stderr
