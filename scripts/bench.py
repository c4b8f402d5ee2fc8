"""Measure the cost of the correction: on the embedded model, and at the size of Stable Diffusion 1.5.

    python scripts/bench.py [--json FILE] [--rounds N] [--skip-sd15]

Reports the wall time `correct : sdedit` at 20 steps and strength 0.95, the share of wall time inside the
networks for a folder of 64 pictures through the real runner, and, on a randomly initialised U-Net of
SD 1.5's size at 256 px, what the recipes' U-Net calls cost, with the ratios that follow from them, and
one whole run of either.
"""

import argparse
import json
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
from PIL import Image
from transformers import CLIPTextConfig, CLIPTextModel

from sdcorrect.batch.runner import Run
from sdcorrect.batch.shards import Shard
from sdcorrect.bench import Stopwatch, compare, now
from sdcorrect.config import Job, load_job
from sdcorrect.core.inject import Branches, inject
from sdcorrect.core.plan import Injection, effective_steps
from sdcorrect.core.sampler import invert_one_step
from sdcorrect.core.text import Text
from sdcorrect.models import Model, load, quiet_libraries
from sdcorrect.recipes import BUILT_IN
from sdcorrect.settings import ModelSettings

EXAMPLES = Path(__file__).parents[1] / "sdcorrect" / "assets" / "pictures"
STEPS, STRENGTH = 20, 0.95


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def job_of(**settings: Any) -> Job:
    fixed = {
        "input.path": str(EXAMPLES),
        "output.path": ".",
        "prompt": "in 3d render style",
        "steps": STEPS,
        "strength": STRENGTH,
    }
    return load_job(None, {**fixed, **settings})


def on_mini(rounds: int) -> dict[str, float]:
    """The seconds a picture of each recipe on the embedded model."""
    model = load(ModelSettings(device="cpu"))
    job = job_of(variants=["sdedit", "correct", "correct-fast"])
    picture = Image.open(EXAMPLES / "bicycle.png").convert("RGB").resize((64, 64))
    costs = compare(model, job, [picture], repeats=rounds, base="sdedit")
    for cost in costs:
        say(
            f"mini    {cost.recipe:<14} {cost.seconds:7.3f} s  {cost.evaluations:4d} evaluations  "
            f"{cost.ratio:.3f} of sdedit"
        )
    return {cost.recipe: cost.seconds for cost in costs}


def through_the_runner(pictures: int = 64) -> float:
    """The share of wall time inside the networks, from the folder to the records."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "in")
        source.mkdir()
        examples = sorted(EXAMPLES.glob("*.png"))
        for i in range(pictures):
            shutil.copy(examples[i % len(examples)], source / f"{i:02}.png")
        model = load(ModelSettings(device="cpu"))
        job = job_of(**{"input.path": str(source), "output.path": f"{folder}/out", "batch_size": 8})
        watch = Stopwatch(model)
        began = now(model)
        with watch.watching():
            for _ in Run(job, model, Shard(0, 1)).records():
                pass
        seconds = now(model) - began
    share = watch.seconds / seconds
    say(f"runner  {pictures} pictures in {seconds:.1f} s, {share:.1%} of it inside the networks")
    return share


def sd15_sized() -> Model:
    """Networks of SD 1.5's size with random weights, behind the embedded model's tokenizer."""
    mini = load(ModelSettings(device="cpu"))
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=64, cross_attention_dim=768, attention_head_dim=8, layers_per_block=2
    )
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(128, 256, 512, 512),
        layers_per_block=2,
    )
    text_encoder = CLIPTextModel(
        CLIPTextConfig(
            hidden_size=768,
            intermediate_size=3072,
            num_hidden_layers=12,
            num_attention_heads=12,
            max_position_embeddings=77,
        )
    )
    tokenizer = mini.pipe.tokenizer
    tokenizer.model_max_length = 77
    pipe = StableDiffusionPipeline(
        vae=vae.eval(),
        text_encoder=text_encoder.eval(),
        tokenizer=tokenizer,
        unet=unet.eval(),
        scheduler=mini.scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    return Model("sd15-sized", "random", {}, pipe, mini.scheduler, mini.device)


@torch.inference_mode()
def at_sd15_size(rounds: int, size: int = 256) -> dict[str, float]:
    """What a U-Net call costs by its rows, what follows for the recipes, and a whole run of two."""
    model = sd15_sized()
    unet, text = model.pipe.unet, model.text([""], (size, size))
    injections = BUILT_IN["correct"].plan(model.layout).injections
    x0 = torch.randn(1, 4, size // 8, size // 8)
    captured = invert_one_step(unet, x0, text, injections)
    branches = Branches.of("captured", guided=True)

    def call(rows: int, injections: tuple[Injection, ...] = ()) -> float:
        latents = torch.randn(rows, 4, size // 8, size // 8)
        with inject(unet, injections, captured=captured, branches=branches):
            began = time.perf_counter()
            unet(latents, 500, **Text.cat([text] * rows).arguments)
            return time.perf_counter() - began

    calls = {"1 row": (1, ()), "2 rows": (2, ()), "2 corrected": (2, injections), "3 rows": (3, ())}
    taken: dict[str, list[float]] = {name: [] for name in ("inversion", *calls)}
    for _ in range(rounds):
        began = time.perf_counter()
        invert_one_step(unet, x0, text, injections)
        taken["inversion"].append(time.perf_counter() - began)
        for name, arguments in calls.items():
            taken[name].append(call(*arguments))
    # the least: whatever else the machine does can only add
    seconds = {name: min(times) for name, times in taken.items()}
    steps = effective_steps(STEPS, STRENGTH)
    costs = {
        "sdedit": steps * seconds["2 rows"],
        "correct": seconds["inversion"] + steps * seconds["2 corrected"],
        "pnp-50": 50 * seconds["1 row"] + 50 * seconds["3 rows"],
        "pnp": 999 * seconds["1 row"] + 50 * seconds["3 rows"],
    }
    for name, cost in seconds.items():
        say(f"sd15    a call of {name:<14} {cost:8.2f} s")
    for name, cost in costs.items():
        say(f"sd15    {name:<10} from its calls {cost:8.1f} s  {cost / costs['sdedit']:7.3f} of sdedit")
    picture = Image.open(EXAMPLES / "bicycle.png").convert("RGB").resize((size, size))
    job = job_of(variants=["sdedit", "correct"])
    for run in compare(model, job, [picture], repeats=1, base="sdedit", warm_up=False):
        costs[f"{run.recipe}, whole"] = run.seconds
        say(f"sd15    {run.recipe:<10} whole run      {run.seconds:8.1f} s  {run.ratio:6.3f} of sdedit")
    return seconds | costs


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--rounds", type=int, default=15, help="repetitions on mini (default 15)")
    parser.add_argument(
        "--skip-sd15", action="store_true", help="leave out the minutes at SD 1.5's size"
    )
    arguments = parser.parse_args()
    quiet_libraries()
    figures: dict[str, Any] = {"mini": on_mini(arguments.rounds), "inside": through_the_runner()}
    if not arguments.skip_sd15:
        figures["sd15"] = at_sd15_size(rounds=5)
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
