"""Write a pipeline's held-out loss by noise level: loss.py PIPELINE loss.json

The loss is the unweighted mean squared error of the predicted noise at each timestep, over all held-out
concepts in the five styles, each with its style as caption. The noise is the same for every pipeline.
"""

import argparse
import json
from pathlib import Path

import torch
from data import Icons, say
from diffusers import StableDiffusionPipeline
from unet import HeldOut

TIMESTEPS = range(50, 1000, 100)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pipeline", type=Path)
    parser.add_argument("json", type=Path)
    flags = parser.parse_args()
    parts = StableDiffusionPipeline.from_pretrained(flags.pipeline, torch_dtype=torch.float32)
    with torch.inference_mode():
        held_out = HeldOut(Icons(), parts.vae, parts.text_encoder, parts.tokenizer)
        found = {t: float(held_out.errors(parts.unet.eval(), t).mean()) for t in TIMESTEPS}
    flags.json.write_text(json.dumps(found))
    say(", ".join(f"at {t}: {error:.4f}" for t, error in found.items()))


if __name__ == "__main__":
    main()
