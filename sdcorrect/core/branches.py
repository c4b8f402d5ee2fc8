"""The rows of a U-Net call: whose latents they are, what they are told, whom they take tensors from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor
from typing_extensions import Self

from sdcorrect.core.plan import Beside, Injection
from sdcorrect.core.text import Text

Whose = Literal["source", "target"]
Told = Literal["source", "uncond", "cond"]

#: For each branch the branch it takes from: itself, a source beside it, or what was captured before.
Donors = tuple[int, ...]
CAPTURED = -1


@dataclass(frozen=True)
class Branch:
    """Rows of a U-Net call, one for each picture."""

    of: Whose
    told: Told
    donor: int  #: the number of the branch whose tensors it takes, or CAPTURED
    controlled: bool = True  #: by ControlNets


@dataclass(frozen=True)
class Branches:
    """All rows of a U-Net call: branches, each of as many pictures, one after the other."""

    all: tuple[Branch, ...]

    @classmethod
    def of(cls, source: Beside, *, guided: bool) -> Self:
        """The branches of one step; without guidance the unconditional ones are left out.

        captured: [uncond, cond], the source known from before.
        inverted: [source, uncond, cond].
        sampled: [source uncond, uncond, source cond, cond].
        """
        match source, guided:
            case "captured", True:
                rows = [Branch("target", "uncond", CAPTURED), Branch("target", "cond", CAPTURED)]
            case "captured", False:
                rows = [Branch("target", "cond", CAPTURED)]
            case "inverted", True:
                rows = [
                    Branch("source", "source", 0, controlled=False),
                    Branch("target", "uncond", 0),
                    Branch("target", "cond", 0),
                ]
            case "inverted", False:
                rows = [Branch("source", "source", 0, controlled=False), Branch("target", "cond", 0)]
            case _, True:
                rows = [
                    Branch("source", "uncond", 0),
                    Branch("target", "uncond", 0),
                    Branch("source", "source", 2),
                    Branch("target", "cond", 2),
                ]
            case _:
                rows = [Branch("source", "source", 0), Branch("target", "cond", 0)]
        return cls(tuple(rows))

    @property
    def donors(self) -> Donors:
        return tuple(branch.donor for branch in self.all)

    @property
    def conditional(self) -> tuple[bool, ...]:
        return tuple(branch.told != "uncond" for branch in self.all)

    @property
    def uncontrolled(self) -> int:
        """How many of the branches, the first ones, no ControlNet acts on."""
        return sum(not branch.controlled for branch in self.all)

    @property
    def unprompted(self) -> int:
        """How many of the branches, those behind the uncontrolled, are of the negative prompt."""
        return self.conditional.count(False)

    def donors_of(self, injection: Injection) -> Donors:
        """Where each branch takes `injection` from; those that it leaves alone take from themselves."""
        return tuple(
            donor if conditional or injection.branches == "both" else branch
            for branch, (donor, conditional) in enumerate(
                zip(self.donors, self.conditional, strict=True)
            )
        )

    def latents(self, latents: Mapping[Whose, Tensor]) -> list[Tensor]:
        """The rows of each branch, out of the latents of source and target."""
        return [latents[branch.of] for branch in self.all]

    def texts(self, source: Text, uncond: Text, cond: Text) -> list[Text]:
        """What each branch is told."""
        texts = {"source": source, "uncond": uncond, "cond": cond}
        return [texts[branch.told] for branch in self.all]

    def guide(self, predictions: Sequence[Tensor], scale: float) -> dict[Whose, Tensor]:
        """What the predictions of all branches come to for source and target, the latter guided."""
        towards = {b.of: p for b, p in zip(self.all, predictions, strict=True) if b.told != "uncond"}
        for branch, without in zip(self.all, predictions, strict=True):
            if branch.told == "uncond":
                towards[branch.of] = guide(without, towards[branch.of], scale)
        return towards


def guide(without: Tensor, towards: Tensor, scale: float) -> Tensor:
    """Classifier-free guidance (Ho and Salimans, 2022)."""
    return without + scale * (towards - without)
