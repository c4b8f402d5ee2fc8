"""What the stages share: a loop that can be killed and goes on from its last checkpoint."""

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

#: Where the stages find each other's weights and leave their own.
RUNS = Path(os.environ.get("MINI_RUNS", ROOT / "build" / "mini"))
#: Steps between figures, and seconds after which a checkpoint is due in any case.
EVERY, PAUSE = 250, 300
#: The rate falls in this last part of the training, down to a fiftieth.
FALL = 0.2


@dataclass(frozen=True)
class Schedule:
    """How long to train, by steps or by minutes, and at what rate: a short warm-up, level, then down.

    While the rate is level it is open how long the training is to be (Hägele et al., NeurIPS 2024).
    """

    steps: int
    batch: int
    learning_rate: float
    weight_decay: float = 0.01
    warm_up: int = 200
    ema: float = 0.999
    #: Minutes of training in all, instead of steps.
    minutes: float | None = None

    @property
    def end(self) -> str:
        return str(self.steps) if self.minutes is None else f"{self.minutes:g} min"

    def progress(self, step: int, seconds: float) -> float:
        """The part of the training that is done, after `step` steps and so many seconds of it."""
        return step / self.steps if self.minutes is None else seconds / 60 / self.minutes

    def rate(self, step: int, progress: float) -> float:
        falling = min(1, (1 - min(progress, 1)) / FALL)
        return self.learning_rate * min(1, (step + 1) / self.warm_up) * (0.02 + 0.98 * falling)


@dataclass(frozen=True)
class Run:
    """What the command line says of a stage."""

    schedule: Schedule
    device: torch.device
    #: A folder of weights to begin with: averaged ones, without an optimiser.
    start: Path | None


def schedule_from_flags(default: Schedule) -> Schedule:
    """`default` with --steps of the command line."""
    parser = argparse.ArgumentParser(description=sys.modules["__main__"].__doc__)
    parser.add_argument("--steps", type=int, default=default.steps, help="training steps in all")
    steps: int = parser.parse_args().steps
    return replace(default, steps=steps)


def run_from_flags(defaults: dict[str, Schedule]) -> Run:
    """Device type -> schedule, with what the command line says."""
    parser = argparse.ArgumentParser(description=sys.modules["__main__"].__doc__)
    parser.add_argument("--steps", type=int, help="training steps in all")
    parser.add_argument("--minutes", type=float, help="minutes of training in all, instead of steps")
    parser.add_argument(
        "--device", default="cuda" if torch.cuda.is_available() else "cpu", choices=sorted(defaults)
    )
    parser.add_argument("--from", dest="start", type=Path, help="folder of weights to begin with")
    flags = parser.parse_args()
    said = {name: value for name in ("steps", "minutes") if (value := getattr(flags, name)) is not None}
    return Run(replace(defaults[flags.device], **said), torch.device(flags.device), flags.start)


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
    """Minimise `loss(indices, generator)` on the model's device; at last `model` has averaged weights.

    Every `EVERY` steps and at the end the figures of the averaged weights are printed. Then, and every
    `PAUSE` seconds, a checkpoint is written to `build/mini/<stage>.pt`, from which the same command goes
    on with the same random numbers.
    """
    state = State(RUNS / f"{stage}.pt", model, schedule)
    if state.step:
        say(f"{stage}: goes on from step {state.step}")
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
        if state.step % EVERY == 0:
            tell()
        elif time.monotonic() - state.written > PAUSE:
            state.save()
    if steps:
        tell()
    state.average.copy_to(state.parameters)


class State:
    """What a checkpoint holds, read from `file` if there is one."""

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
        """Of training, those before the checkpoint with them."""
        return self._seconds + time.monotonic() - self._began

    def learn(self, value: Tensor) -> Tensor:
        """One step down from the loss `value`, which is returned without its gradient."""
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
    """Within this context `parameters` are the averaged ones."""

    def __init__(self, average: EMAModel, parameters: list[nn.Parameter]) -> None:
        self.average, self.parameters = average, parameters

    def __enter__(self) -> None:
        self.average.store(self.parameters)
        self.average.copy_to(self.parameters)

    def __exit__(self, *_: object) -> None:
        self.average.restore(self.parameters)
