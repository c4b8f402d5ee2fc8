"""Put the trained parts together as a Stable Diffusion pipeline in float16, with the CLIP beside it."""

import shutil

import torch
from data import ROOT, say
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
from towers import COLOURED, text_tower
from training import RUNS
from transformers import CLIPTokenizer, VisionTextDualEncoderModel
from unet import noise_schedule

ASSETS = ROOT / "sdcorrect" / "assets" / "mini"
#: What the whole may weigh, so that it can come with the package.
LIMIT_MB = 40


def main() -> None:
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
        # else it is the folder of the machine that trained it
        part.register_to_config(_name_or_path="mini")
    card = (ASSETS / "README.md").read_text()
    shutil.rmtree(ASSETS)
    pipeline.to(torch.float16).save_pretrained(ASSETS)
    shutil.copytree(COLOURED, ASSETS / "clip", ignore=shutil.ignore_patterns("*.safetensors"))
    clip.save_pretrained(ASSETS / "clip")
    # without the blanks it is half as large
    tokenizer.backend_tokenizer.save(str(ASSETS / "clip" / "tokenizer.json"), pretty=False)
    (ASSETS / "README.md").write_text(card)
    weight = sum(file.stat().st_size for file in ASSETS.rglob("*") if file.is_file()) / 1e6
    say(f"{ASSETS.relative_to(ROOT)}: {weight:.1f} MB")
    if weight > LIMIT_MB:
        raise SystemExit(f"more than {LIMIT_MB} MB")


if __name__ == "__main__":
    main()
