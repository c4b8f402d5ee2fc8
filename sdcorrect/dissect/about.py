"""The settings of a dissection, and its discrepancies as JSON."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any

from sdcorrect.core.plan import Block, Injection, TensorName
from sdcorrect.dissect.dissection import CONDITIONS, Condition, Dissection
from sdcorrect.dissect.measure import COMPARED

#: for one block: tensor -> condition -> mean over steps
Means = dict[TensorName, dict[Condition, float]]
UNITS = {
    "self-attention": "Jensen-Shannon divergence in bits, 0 to 1, mean over queries, heads and layers",
    "skip": "cosine distance, 0 to 2, mean over positions",
    "resnet": "cosine distance, 0 to 2, mean over positions",
}


@dataclass(frozen=True)
class Setup:
    """The settings that the pictures were run with."""

    model: str
    method: str  #: the recipe used as correction
    strength: float
    steps: int
    guidance_scale: float
    scheduler: str
    timestep: int  #: of the inversion
    put_back: Mapping[Block, Sequence[TensorName]]  #: the tensors that the correction puts back
    #: those of them that get the statistics of the tensor they replace
    own_statistics: Mapping[Block, Sequence[TensorName]]

    @property
    def names(self) -> dict[Condition, str]:
        return {"sdedit": "SDEdit", "correction": self.method}

    def told(self, block: Block) -> str:
        """What is put back at `block`, in words; empty if nothing is."""
        own = self.own_statistics.get(block, ())
        tensors = [
            f"{tensor} with own statistics" if tensor in own else tensor
            for tensor in self.put_back.get(block, ())
        ]
        return f"{' and '.join(tensors)} put back by {self.method}" if tensors else ""

    def told_of(self, block: Block, tensor: TensorName) -> str:
        """Whether the correction puts `tensor` back at `block`, in words; empty if it does not."""
        if tensor in self.own_statistics.get(block, ()):
            return "put back with own statistics"
        return "put back" if tensor in self.put_back.get(block, ()) else ""

    def as_json(self) -> dict[str, Any]:
        by_block = ("put_back", "own_statistics")
        return {key: value for key, value in asdict(self).items() if key not in by_block}


@dataclass(frozen=True)
class Subject:
    """A picture that was dissected, with its prompts and seed."""

    path: str
    sha256: str
    seed: int
    prompt: str
    negative_prompt: str


def put_back_by(injections: Iterable[Injection]) -> dict[Block, list[TensorName]]:
    """By block, the tensors that `injections` put back there."""
    found: dict[Block, dict[TensorName, None]] = {}
    for injection in injections:
        for block in injection.blocks:
            found.setdefault(block, {})[injection.tensor] = None
    return {block: [*tensors] for block, tensors in found.items()}


def means_of(dissection: Dissection) -> dict[Block, Means]:
    """The discrepancies of each block, averaged over steps."""
    return {
        block: {
            tensor: {c: fmean(dissection.scores[c][tensor][block]) for c in CONDITIONS}
            for tensor in COMPARED
        }
        for block in dissection.grids
    }


def over_pictures(means: Sequence[Mapping[Block, Means]]) -> dict[Block, Means]:
    """The mean over pictures of the results of `means_of`."""
    return {
        block: {
            tensor: {c: fmean(of_picture[block][tensor][c] for of_picture in means) for c in CONDITIONS}
            for tensor in COMPARED
        }
        for block in means[0]
    }


def picture_json(settings: Setup, subject: Subject, dissection: Dissection) -> dict[str, Any]:
    """All scores of one picture, for JSON."""
    return {
        "settings": settings.as_json(),
        "picture": asdict(subject),
        "point": dissection.drawn and dissection.drawn.point,
        "units": UNITS,
        "timesteps": dissection.timesteps,
        "blocks": [
            {
                "block": block,
                "tokens": grid,
                **_put_back_at(settings, block),
                "discrepancy": {
                    tensor: {c: dissection.scores[c][tensor][block] for c in CONDITIONS}
                    for tensor in COMPARED
                },
            }
            for block, grid in dissection.grids.items()
        ],
    }


def _put_back_at(settings: Setup, block: Block) -> dict[str, Sequence[TensorName]]:
    return {
        "put_back": settings.put_back.get(block, ()),
        "own_statistics": settings.own_statistics.get(block, ()),
    }


def folder_json(
    settings: Setup,
    timesteps: Sequence[int],
    pictures: Mapping[Subject, Mapping[Block, Means]],
    failures: Mapping[str, str],
) -> dict[str, Any]:
    """The mean scores of several pictures and of each, for JSON. `failures` are reasons by path."""
    return {
        "settings": settings.as_json(),
        "units": UNITS,
        "timesteps": timesteps,
        "blocks": [
            {"block": block, **_put_back_at(settings, block), "discrepancy": means}
            for block, means in over_pictures([*pictures.values()]).items()
        ],
        "pictures": [{**asdict(subject), "discrepancy": means} for subject, means in pictures.items()],
        "failed": [{"path": path, "error": error} for path, error in failures.items()],
    }
