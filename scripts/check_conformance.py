"""Check the core against a conformance pack, and print the relative error of each case.

    python scripts/check_conformance.py tests/conformance

Exits with 1 if an error is 1e-4 or more.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file

from sdcorrect.core.plan import Injection, Plan
from sdcorrect.core.sampler import denoise, invert, start
from sdcorrect.core.schedule import ddim_scheduler, timesteps_from
from sdcorrect.core.text import Text

BAR = 1e-4


@torch.inference_mode()
def relative_error(
    unet: UNet2DConditionModel,
    pack: dict[str, torch.Tensor],
    case: dict[str, Any],
    *,
    skips_once: bool = False,
) -> float:
    plan = Plan(
        inversion="one-step",
        injections=(
            Injection("self-attention", tuple(case["attn_blocks"])),
            Injection("skip", tuple(case["skip_blocks"])),
        ),
        skips_once=skips_once,
    )
    scheduler = ddim_scheduler()
    timesteps = timesteps_from(scheduler, case["steps"], case["strength"])
    source = invert(unet, scheduler, pack["x0"], Text(pack["null"]), plan, timesteps)
    ours = denoise(
        unet,
        scheduler,
        start(scheduler, pack["x0"], pack["noise"], source, plan, timesteps),
        timesteps,
        cond=Text(pack["cond"]),
        uncond=Text(pack["uncond"]),
        guidance_scale=case["guidance_scale"],
        source=source,
        plan=plan,
    )
    expected = pack[f"latents.{case['name']}"]
    return float((ours - expected).norm() / expected.norm())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pack", type=Path, help="folder with cases.json, tensors.safetensors and unet/")
    folder = parser.parse_args().pack
    unet = UNet2DConditionModel.from_pretrained(folder / "unet").eval()
    pack = load_file(folder / "tensors.safetensors")
    passed = True
    for case in json.loads((folder / "cases.json").read_text()):
        for once in (False, True) if case["skip_blocks"] else (False,):
            error = relative_error(unet, pack, case, skips_once=once)
            passed &= error < BAR  # false for NaN too
            name = f"{case['name']}{':skips_once' * once}"
            sys.stdout.write(f"{name:<24} {error:.2e} {'ok' if error < BAR else 'TOO LARGE'}\n")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
