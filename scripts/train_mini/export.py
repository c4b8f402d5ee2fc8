"""Combine the trained parts into a Stable Diffusion pipeline in float16, with the CLIP beside it."""

import argparse
import shutil
from pathlib import Path

import torch
from data import ROOT, say
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
from towers import COLOURED, text_tower
from training import RUNS
from transformers import CLIPTokenizer, VisionTextDualEncoderModel
from unet import noise_schedule

ASSETS = ROOT / "sdcorrect" / "assets" / "mini"
#: The largest size at which the pipeline can be part of the package.
LIMIT_MB = 80


def write(folder: Path) -> None:
    """Write everything except the model card."""
    clip = VisionTextDualEncoderModel.from_pretrained(COLOURED).half()
    tokenizer = CLIPTokenizer.from_pretrained(RUNS / "clip")
    pipeline = StableDiffusionPipeline(
        vae=AutoencoderKL.from_pretrained(RUNS / "vae"),
        text_encoder=text_tower(),
        tokenizer=tokenizer,
        unet=UNet2DConditionModel.from_pretrained(RUNS / "unet"),
        scheduler=noise_schedule(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    for part in (pipeline.vae, pipeline.unet):
        # otherwise this would be a folder of the training machine
        part.register_to_config(_name_or_path="mini")
    pipeline.to(torch.float16).save_pretrained(folder)
    shutil.copytree(COLOURED, folder / "clip", ignore=shutil.ignore_patterns("*.safetensors"))
    clip.save_pretrained(folder / "clip")
    # without whitespace the file is half as large
    tokenizer.backend_tokenizer.save(str(folder / "clip" / "tokenizer.json"), pretty=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--to", type=Path, default=ASSETS, help="a folder; what it holds goes")
    folder: Path = parser.parse_args().to
    card = (ASSETS / "README.md").read_text()
    shutil.rmtree(folder, ignore_errors=True)
    write(folder)
    (folder / "README.md").write_text(card)
    weight = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 1e6
    say(f"{folder}: {weight:.1f} MB")
    if weight > LIMIT_MB:
        raise SystemExit(f"more than {LIMIT_MB} MB")


if __name__ == "__main__":
    main()
