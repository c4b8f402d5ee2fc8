"""The training loop of all stages, which can be killed and resumes from its last checkpoint."""

import argparse
import itertools
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from data import ROOT, say
from diffusers.training_utils import EMAModel
from torch import Tensor, nn

#: Where the stages read each other's weights and save their own.
RUNS = Path(os.environ.get("MINI_RUNS", ROOT / "build" / "mini"))
#: The longest time between checkpoints in seconds.
PAUSE = 300
#: The last part of the training, in which the learning rate falls to a fiftieth.
FALL = 0.2


@dataclass(frozen=True)
class Schedule:
    """Length of training, in steps or minutes, and learning rate: short warm-up, constant, then falling.

    While the rate is constant, the length need not be fixed (Hägele et al., NeurIPS 2024).
    """

    steps: int
    batch: int
    learning_rate: float
    weight_decay: float = 0.01
    warm_up: int = 200
    ema: float = 0.999
    #: Steps between printed metrics.
    every: int = 250
    #: Total minutes of training, instead of steps.
    minutes: float | None = None

    @property
    def end(self) -> str:
        return str(self.steps) if self.minutes is None else f"{self.minutes:g} min"

    def progress(self, step: int, seconds: float) -> float:
        """The part of the training that is done after `step` steps and `seconds`."""
        return step / self.steps if self.minutes is None else seconds / 60 / self.minutes

    def rate(self, step: int, progress: float) -> float:
        falling = min(1, (1 - min(progress, 1)) / FALL)
        return self.learning_rate * min(1, (step + 1) / self.warm_up) * (0.02 + 0.98 * falling)


@dataclass(frozen=True)
class Run:
    """The settings of a stage from the command line."""

    schedule: Schedule
    device: torch.device
    #: A folder of averaged weights to start from, without optimiser state.
    start: Path | None


def schedule_from_flags(default: Schedule) -> Schedule:
    """`default` with --steps from the command line."""
    parser = argparse.ArgumentParser(description=sys.modules["__main__"].__doc__)
    parser.add_argument("--steps", type=int, default=default.steps, help="total training steps")
    steps: int = parser.parse_args().steps
    return replace(default, steps=steps)


def run_from_flags(defaults: dict[str, Schedule]) -> Run:
    """A run with one of `defaults` (by device type) and the flags of the command line."""
    parser = argparse.ArgumentParser(description=sys.modules["__main__"].__doc__)
    parser.add_argument("--steps", type=int, help="total training steps")
    parser.add_argument("--minutes", type=float, help="total minutes of training, instead of steps")
    parser.add_argument(
        "--device", default="cuda" if torch.cuda.is_available() else "cpu", choices=sorted(defaults)
    )
    parser.add_argument("--from", dest="start", type=Path, help="folder of weights to start from")
    flags = parser.parse_args()
    said = {name: value for name in ("steps", "minutes") if (value := getattr(flags, name)) is not None}
    return Run(replace(defaults[flags.device], **said), torch.device(flags.device), flags.start)


def batches(count: int, batch: int, start: int, seed: int = 0) -> Iterator[Tensor]:
    """The indices of each step from `start` on; every epoch has its own order."""
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
    """Minimise `loss(indices, generator)` on the model's device; then `model` has averaged weights.

    Every `schedule.every` steps and at the end, the metrics of the averaged weights are printed. Then,
    and every `PAUSE` seconds, a checkpoint is written to `build/mini/<stage>.pt`, from which the same
    command resumes with the same random numbers.
    """
    state = State(RUNS / f"{stage}.pt", model, schedule)
    if state.step:
        say(f"{stage}: resuming from step {state.step}")
    total, steps, told = torch.zeros((), device=state.device), 0, time.monotonic()

    def tell() -> None:
        nonlocal steps, told
        spent = (time.monotonic() - told) / steps / schedule.batch * 1000
        with averaged(state.average, state.parameters):
            numbers = ", ".join(f"{name} {number:.4g}" for name, number in figures().items())
        done = f"{stage} {state.step}/{schedule.end}"
        say(f"{done}: loss {float(total) / steps:.4f}, {numbers}, {spent:.2f} ms a sample")
        state.save()
        total.zero_()
        steps, told = 0, time.monotonic()

    for indices in batches(count, schedule.batch, state.step):
        if schedule.progress(state.step, state.seconds) >= 1:
            break
        generator = torch.Generator(state.device).manual_seed(state.step)
        total += state.learn(loss(indices.to(state.device), generator))
        steps += 1
        if state.step % schedule.every == 0:
            tell()
        elif time.monotonic() - state.written > PAUSE:
            state.save()
    if steps:
        tell()
    state.average.copy_to(state.parameters)


class State:
    """The content of a checkpoint, read from `file` if it exists."""

    def __init__(self, file: Path, model: nn.Module, schedule: Schedule) -> None:
        self.file, self.model, self.schedule = file, model, schedule
        self.parameters = [weights for weights in model.parameters() if weights.requires_grad]
        self.device = self.parameters[0].device
        self.optimizer = torch.optim.AdamW(
            self.parameters,
            schedule.learning_rate,
            betas=(0.9, 0.99),
            weight_decay=schedule.weight_decay,
            fused=True,
        )
        self.average = EMAModel(self.parameters, decay=schedule.ema, use_ema_warmup=True, foreach=True)
        self.step, self._seconds = 0, 0.0
        if file.exists():
            self._load()
        self._began = self.written = time.monotonic()

    @property
    def seconds(self) -> float:
        """Seconds of training, including those before the checkpoint."""
        return self._seconds + time.monotonic() - self._began

    def learn(self, value: Tensor) -> Tensor:
        """Take an optimiser step on the loss `value`, and return it without its gradient."""
        rate = self.schedule.rate(self.step, self.schedule.progress(self.step, self.seconds))
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad()
        torch.autograd.backward(value)
        nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()
        self.average.step(self.parameters)
        self.step += 1
        return value.detach()

    def save(self) -> None:
        state = {
            "step": self.step,
            "seconds": self.seconds,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "average": self.average.state_dict(),
        }
        self.file.parent.mkdir(parents=True, exist_ok=True)
        torch.save(state, self.file.with_suffix(".new"))
        self.file.with_suffix(".new").replace(self.file)
        self.written = time.monotonic()

    def _load(self) -> None:
        saved = torch.load(self.file, weights_only=True, map_location=self.device)
        self.model.load_state_dict(saved["model"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.average.load_state_dict(saved["average"])
        self.average.to(self.device)
        self.step, self._seconds = saved["step"], saved["seconds"]


class averaged:
    """A context in which `parameters` have their averaged values."""

    def __init__(self, average: EMAModel, parameters: list[nn.Parameter]) -> None:
        self.average, self.parameters = average, parameters

    def __enter__(self) -> None:
        self.average.store(self.parameters)
        self.average.copy_to(self.parameters)

    def __exit__(self, *_: object) -> None:
        self.average.restore(self.parameters)
