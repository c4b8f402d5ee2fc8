"""What cannot be used is told on the command line, in one line whatever the libraries would say."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoints import Family, controlnet, lora, original_names, save_folder, tiny
from click.testing import Result
from safetensors.torch import save_file

Where = Callable[[Family, str], Path]


def job_with(what: str, checkpoint: Where, folder: Path) -> dict[str, Any]:
    """The settings of a job that names something bad, which is made in `folder`."""
    good = checkpoint("sd1", "folder")
    match what:
        case "code":

            class Payload:
                def __reduce__(self) -> tuple[Any, ...]:
                    return os.mkdir, (str(folder / "executed"),)

            content = {"state_dict": original_names(tiny("sd1")), "callbacks": Payload()}
            torch.save(content, folder / "code.ckpt")
            return {"model": folder / "code.ckpt", "base_config": good}
        case "lora":
            save_file(lora(tiny("sdxl")), folder / "other.safetensors")
            return {"model": good, "loras": f"[{folder / 'other.safetensors'}]"}
        case "controlnet":
            controlnet("sd2").save_pretrained(folder / "control")
            return {"model": good, "controlnets": f"[{folder / 'control'}]"}
        case "inpainting":
            return {"model": save_folder(tiny("sd1", in_channels=9), folder / "inpainting")}
        case "truncated":
            cut = Path(shutil.copy(checkpoint("sd1", "safetensors"), folder))
            os.truncate(cut, cut.stat().st_size // 2)
            return {"model": cut, "base_config": good}
        case _:
            return {"model": "nobody/nothing", "offline": "true"}


@pytest.mark.parametrize(
    ("what", "expected"),
    [
        ("code", "contains code beside its weights (posix.mkdir), which was not run"),
        (
            "lora",
            "made for another family: it reads texts 80 wide, but this model's are 32 wide; use a",
        ),
        ("controlnet", "made for another family: its cross_attention_dim is 48, this model's is 32"),
        ("inpainting", "its U-Net takes 9 channels, so it is an inpainting model"),
        ("truncated", "cannot be read as weights"),
        ("offline", "the hub is not contacted offline; run `sdcorrect prefetch`"),
    ],
)
def test_it_is_one_line(
    checkpoint: Where,
    translate: Callable[..., Result],
    pictures: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    what: str,
    expected: str,
) -> None:
    settings = job_with(what, checkpoint, tmp_path)
    arguments = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
    capfd.readouterr()
    result = translate(pictures, "-o", tmp_path / "out", *arguments)
    assert result.exit_code == 2
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    assert expected in result.stderr
    assert not result.stdout
    assert capfd.readouterr() == ("", "")
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "executed").exists()
