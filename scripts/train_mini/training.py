"""What the three stages share: a loop that can be killed and goes on from its last checkpoint."""

import argparse
import itertools
import math
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from data import ROOT, say
from diffusers.training_utils import EMAModel
from torch import Tensor, nn

RUNS = ROOT / "build" / "mini"
#: Steps between checkpoints.
EVERY = 250


@dataclass(frozen=True)
class Schedule:
    """How long to train, and at what rate: a short warm-up, then a cosine down to a fiftieth."""

    steps: int
    batch: int
    learning_rate: float
    weight_decay: float = 0.01
    warm_up: int = 200
    ema: float = 0.999

    def rate(self, step: int) -> float:
        progress = min(step / self.steps, 1)
        cosine = 0.51 + 0.49 * math.cos(math.pi * progress)
        return self.learning_rate * min(1, (step + 1) / self.warm_up) * cosine


def schedule_from_flags(default: Schedule) -> Schedule:
    """`default` with --steps of the command line."""
    parser = argparse.ArgumentParser(description=sys.modules["__main__"].__doc__)
    parser.add_argument("--steps", type=int, default=default.steps, help="training steps in all")
    steps: int = parser.parse_args().steps
    return Schedule(**{**vars(default), "steps": steps})


def batches(count: int, batch: int, start: int, seed: int = 0) -> Iterator[Tensor]:
    """Indices of each step from `start` on: every epoch in an order of its own."""
    per_epoch = count // batch
    for step in itertools.count(start):
        epoch, place = divmod(step, per_epoch)
        generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
        order = torch.randperm(count, generator=generator)
        yield order[place * batch : (place + 1) * batch]


def train(
    stage: str,
    model: nn.Module,
    schedule: Schedule,
    count: int,
    loss: Callable[[Tensor, torch.Generator], Tensor],
    figures: Callable[[], dict[str, float]],
) -> None:
    """Minimise `loss(indices, generator)`; at the end `model` has the averaged weights.

    Every `EVERY` steps a checkpoint is written to `build/mini/<stage>.pt`, from which the same command
    goes on with the same random numbers, and the figures of the averaged weights are printed.
    """
    RUNS.mkdir(parents=True, exist_ok=True)
    file = RUNS / f"{stage}.pt"
    parameters = [weights for weights in model.parameters() if weights.requires_grad]
    optimizer = torch.optim.AdamW(
        parameters,
        schedule.learning_rate,
        betas=(0.9, 0.99),
        weight_decay=schedule.weight_decay,
        fused=True,
    )
    average = EMAModel(parameters, decay=schedule.ema, use_ema_warmup=True, foreach=True)
    start = 0
    if file.exists():
        saved = torch.load(file, weights_only=True)
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        average.load_state_dict(saved["average"])
        start = saved["step"]
        say(f"{stage}: goes on from step {start}")

    total, began = torch.zeros(()), time.monotonic()
    for step, indices in zip(
        range(start, schedule.steps), batches(count, schedule.batch, start), strict=False
    ):
        for group in optimizer.param_groups:
            group["lr"] = schedule.rate(step)
        value = loss(indices, torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        torch.autograd.backward(value)
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        average.step(parameters)
        total += value.detach()
        if (step + 1) % EVERY == 0 or step + 1 == schedule.steps:
            milliseconds = (time.monotonic() - began) / ((step % EVERY) + 1) / schedule.batch * 1000
            with averaged(average, parameters):
                told = ", ".join(f"{name} {number:.4g}" for name, number in figures().items())
            mean = total / ((step % EVERY) + 1)
            say(
                f"{stage} {step + 1}/{schedule.steps}: loss {mean:.4f}, {told}, "
                f"{milliseconds:.1f} ms a sample"
            )
            _save(file, step + 1, model, optimizer, average)
            total, began = torch.zeros(()), time.monotonic()
    average.copy_to(parameters)


class averaged:
    """Within this context `parameters` are the averaged ones."""

    def __init__(self, average: EMAModel, parameters: list[nn.Parameter]) -> None:
        self.average, self.parameters = average, parameters

    def __enter__(self) -> None:
        self.average.store(self.parameters)
        self.average.copy_to(self.parameters)

    def __exit__(self, *_: object) -> None:
        self.average.restore(self.parameters)


def _save(file: Path, step: int, model: nn.Module, optimizer: Any, average: EMAModel) -> None:
    state = {
        "step": step,
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "average": average.state_dict(),
    }
    torch.save(state, file.with_suffix(".new"))
    file.with_suffix(".new").replace(file)
