"""What cannot be had or read is told in words for those who wrote the job, and what to do."""

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoints import Family, controlnet, save_folder, tiny, vae
from hub import REVISION, serving

from sdcorrect.errors import UsageError
from sdcorrect.models import load
from sdcorrect.models.reasons import reason_of
from sdcorrect.settings import ModelSettings

Where = Callable[[Family, str], Path]
#: What only programmers can do.
FOR_PROGRAMMERS = ("local_files_only", "weights_only", "stacktrace", "from_pretrained", "torch.load")


def complaint(**settings: Any) -> str:
    with pytest.raises(UsageError) as error:
        load(ModelSettings.model_validate({"device": "cpu"} | settings))
    message = str(error.value)
    assert "\n" not in message
    assert not any(advice in message for advice in FOR_PROGRAMMERS)
    return message


@pytest.fixture(scope="module")
def fp16(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_folder(tiny("sd1"), tmp_path_factory.mktemp("fp16") / "model", variant="fp16")


def test_a_folder_with_a_variant_alone_says_which_to_set(fp16: Path) -> None:
    message = complaint(model=str(fp16))
    assert "its unet has only the variant fp16; set variant: fp16" in message
    load(ModelSettings(model=str(fp16), variant="fp16", device="cpu"))


def test_a_part_with_a_variant_alone_says_which_to_set(
    checkpoint: Where, fp16: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(checkpoint("sd1", "folder"), tmp_path / "model")
    shutil.rmtree(folder / "text_encoder")
    shutil.copytree(fp16 / "text_encoder", folder / "text_encoder")
    assert "its text_encoder has only the variant fp16; set" in complaint(model=str(folder))
    # where a variant is asked for, parts that have none are taken without
    load(ModelSettings(model=str(folder), variant="fp16", device="cpu"))
    assert "has no variant ema; it has" not in complaint(model=str(folder))
    shutil.rmtree(folder / "vae")
    assert "vae/config.json cannot be read" in complaint(model=str(folder), variant="fp16")


def test_a_vae_with_a_variant_alone_says_which_file_to_name(checkpoint: Where, tmp_path: Path) -> None:
    own = vae()
    own.save_pretrained(tmp_path / "vae", variant="fp16")
    model = str(checkpoint("sd1", "folder"))
    message = complaint(model=model, vae=str(tmp_path / "vae"))
    file = tmp_path / "vae" / "diffusion_pytorch_model.fp16.safetensors"
    assert f"has only weights of the variant fp16; name their file: {file}" in message
    loaded = load(ModelSettings(model=model, vae=str(file), device="cpu")).pipe.vae
    for name, value in own.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value), name


@pytest.mark.parametrize(
    ("family", "told"), [("sd1", "an SD 1.x"), ("sd2", "an SD 2.x"), ("sdxl", "an SDXL")]
)
def test_a_single_file_without_its_tokenizer_says_its_family(
    checkpoint: Where, family: Family, told: str
) -> None:
    message = complaint(model=str(checkpoint(family, "safetensors")), offline=True)
    assert f"is {told} and needs the tokenizer" in message
    assert "run `sdcorrect prefetch` with network access first" in message
    assert message.endswith(
        f"or give a diffusers folder of {told} that is here: --set base_config=FOLDER"
    )


class Payload:
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.folder / "executed"),)


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder", "own vae", "controlnet"])
def test_a_pickle_with_code_in_any_part_says_so(checkpoint: Where, tmp_path: Path, part: str) -> None:
    folder = tmp_path / "model"
    save_folder(tiny("sd1"), folder, safe_serialization=False)
    for file in (folder / "text_encoder").glob("*.safetensors"):  # transformers writes nothing else
        file.unlink()
    torch.save(tiny("sd1").text_encoder.state_dict(), folder / "text_encoder" / "pytorch_model.bin")
    job = {"model": str(folder)}
    if part == "own vae":
        vae().save_pretrained(tmp_path / "part", safe_serialization=False)
        job |= {"vae": str(tmp_path / "part")}
    elif part == "controlnet":
        controlnet("sd1").save_pretrained(tmp_path / "part", safe_serialization=False)
        job |= {"controlnets": [str(tmp_path / "part")]}
    load(ModelSettings.model_validate({"device": "cpu"} | job))
    (weights,) = (folder / part if (folder / part).is_dir() else tmp_path / "part").glob("*.bin")
    torch.save(torch.load(weights) | {"callbacks": Payload(tmp_path)}, weights)
    assert f"{weights}: contains code beside its weights (posix.mkdir)" in complaint(**job)
    assert not (tmp_path / "executed").exists()


@pytest.fixture
def silent() -> Iterator[str]:
    """The address of a server that takes calls and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


#: Finds what jobs name, in a process of its own: the hub's client reads its address when it is imported.
FIND = """
import logging, sys, time
from sdcorrect.errors import UsageError
from sdcorrect.models import find
from sdcorrect.settings import ModelSettings
logging.basicConfig()
for job in eval(sys.argv[1]):
    began = time.monotonic()
    try:
        print("found", find(ModelSettings.model_validate(job))[0].identity)
    except UsageError as error:
        print(error)
    print(time.monotonic() - began)
"""


def find_all(jobs: list[dict[str, Any]], address: str, cache: Path) -> tuple[list[str], str]:
    done = subprocess.run(
        [sys.executable, "-c", FIND, repr(jobs)],
        env=os.environ | {"HF_ENDPOINT": address, "HF_HOME": str(cache)},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    assert "Retrying" not in done.stderr
    lines = done.stdout.splitlines()
    assert max(map(float, lines[1::2])) < 20
    return lines[::2], done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("hub", ["refuses", "is silent"])
def test_a_hub_that_does_not_answer_is_given_up_in_seconds(
    tmp_path: Path, silent: str, hub: str
) -> None:
    jobs: list[dict[str, Any]] = [
        {"model": "owner/name"},
        {"model": "owner/name/weights.safetensors"},
        {"vae": "owner/name"},
        {"loras": [{"path": "owner/name/ink.safetensors"}]},
        {"controlnets": [{"path": "owner/name"}]},
    ]
    address = silent if hub == "is silent" else "http://127.0.0.1:9"
    messages, _ = find_all(jobs if hub == "refuses" else jobs[:1], address, tmp_path)
    for message in messages:
        assert f"not on this machine, and the hub ({address}) cannot be reached: " in message
        assert "; run `sdcorrect prefetch` on a machine that reaches it" in message


@pytest.mark.slow
def test_what_was_downloaded_before_is_used_where_the_hub_is_not_reached(
    checkpoint: Where, fp16: Path, tmp_path: Path
) -> None:
    owner = tmp_path / "hub" / "someone"
    shutil.copytree(checkpoint("sd1", "folder"), owner / "tiny")
    shutil.copytree(fp16, owner / "fp16")
    controlnet("sd1").save_pretrained(owner / "control", variant="fp16")
    vae().save_pretrained(owner / "vae", safe_serialization=False)
    good = {"model": "someone/tiny", "vae": "someone/vae"}
    jobs = [
        good,
        {"model": "someone/fp16"},
        {"model": "someone/fp16", "variant": "fp16"},
        {"model": "someone/fp16", "variant": "ema"},
        {"controlnets": ["someone/control"]},
        {"controlnets": [{"path": "someone/control", "variant": "fp16"}]},
        {"model": "someone/nothing"},
        {"model": "someone/tiny", "loras": ["someone/tiny/ink.safetensors"]},
    ]
    with serving(owner.parent) as address:
        online, _ = find_all(jobs, address, tmp_path)
    assert online[0] == f"found {REVISION}"
    assert online[1].endswith("its unet has only the variant fp16; set variant: fp16")
    assert online[2] == f"found {REVISION} fp16"
    assert "model someone/fp16: has no variant ema" in online[3]
    assert online[4].endswith("has only the variant fp16; set variant: fp16")
    assert online[5].startswith("found ")
    assert "model someone/nothing: no such file or folder, and not on the hub" in online[6]
    assert "lora someone/tiny/ink.safetensors: " in online[7]
    (cut_off,), warnings = find_all([good], "http://127.0.0.1:9", tmp_path)
    assert cut_off == online[0]
    assert (
        "cannot be reached: [Errno 111] Connection refused; using what was downloaded before" in warnings
    )


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (
            "Weights only load failed. Please make sure to open with `weights_only=False`. No magic",
            "Weights only load failed. No magic",
        ),
        ("Can't load it. Pass 'local_files_only=False' as input.", "Can't load it"),
        ("Use `from_pretrained(x)`!", "a library could not read it"),
        ("size mismatch:\n  got 3", "size mismatch: got 3"),
    ],
)
def test_of_a_librarys_words_those_for_programmers_are_left_out(error: str, expected: str) -> None:
    assert reason_of(ValueError(error)) == expected
