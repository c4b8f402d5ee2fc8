"""The rows of a U-Net call: whose latents they are, what they are told, whom they take tensors from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, unflatten
from typing_extensions import Self

from sdcorrect.core.plan import Beside, Injection, Plan
from sdcorrect.core.text import Text

Whose = Literal["source", "target"]
#: Which text rows are under; null is the empty prompt, and uncond the negative one.
Row = Literal["null", "source", "uncond", "cond"]

#: For each branch the branch it takes from: itself, a source beside it, or what was captured before.
Donors = tuple[int, ...]
CAPTURED = -1


@dataclass(frozen=True)
class Branch:
    """Rows of a U-Net call, one for each picture."""

    of: Whose
    told: Row
    donor: int  #: the number of the branch whose tensors it takes, or CAPTURED
    controlled: bool = True  #: by ControlNets


@dataclass(frozen=True)
class Branches:
    """All rows of a U-Net call: branches, each of as many pictures, one after the other."""

    all: tuple[Branch, ...]

    @classmethod
    def of(cls, source: Beside, *, guided: bool, source_guided: bool = False) -> Self:
        """The branches of one step; without guidance the unconditional ones are left out.

        captured: [uncond, cond], the source known from before.
        inverted: [source, uncond, cond].
        sampled: [source uncond, uncond, source cond, cond], the source guided as the target.
        noised: [source null, uncond, source cond, cond], each guided by itself.
        """
        sampled, noised = source == "sampled", source == "noised"
        rows: list[tuple[Whose, Row]] = []
        if (sampled and guided) or (noised and source_guided):
            rows.append(("source", "uncond" if sampled else "null"))
        if source == "inverted":
            rows.append(("source", "source"))
        if guided:
            rows.append(("target", "uncond"))
        if sampled or noised:
            rows.append(("source", "source"))
        rows.append(("target", "cond"))
        return cls(
            tuple(
                Branch(whose, told, _donor_of(told, rows), controlled=(whose, source) != _UNCONTROLLED)
                for whose, told in rows
            )
        )

    @classmethod
    def of_plan(cls, plan: Plan, *, guided: bool) -> Self:
        """Those of `plan` at a step at which the target is guided, or not."""
        return cls.of(
            plan.beside, guided=guided, source_guided=bool(plan.noised and plan.noised.guidance != 1)
        )

    @property
    def donors(self) -> Donors:
        return tuple(branch.donor for branch in self.all)

    @property
    def conditional(self) -> tuple[bool, ...]:
        return tuple(_is_prompted(branch) for branch in self.all)

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

    def texts(self, null: Text | None, source: Text, uncond: Text, cond: Text) -> list[Text]:
        """What each branch is told; `null`, the empty prompt, where the source is guided by itself."""
        texts = {"source": source, "uncond": uncond, "cond": cond}
        if null is not None:
            texts["null"] = null
        return [texts[branch.told] for branch in self.all]

    def guide(
        self,
        predictions: Sequence[Tensor],
        scale: float,
        *,
        source_scale: float | None = None,
        threshold: float | None = None,
    ) -> dict[Whose, Tensor]:
        """What the predictions of all branches come to for source and target, each guided.

        The source's scale is the target's, where it has none of its own; `threshold` is the target's.
        """
        guided = {b.of: p for b, p in zip(self.all, predictions, strict=True) if _is_prompted(b)}
        for branch, without in zip(self.all, predictions, strict=True):
            if _is_prompted(branch):
                continue
            towards = guided[branch.of]
            if branch.of == "target":
                guided["target"] = guide(without, towards, scale, threshold)
            else:
                own = scale if source_scale is None else source_scale
                guided["source"] = guide(without, towards, own)
        return guided


#: Whose latents, beside which source, no ControlNet acts on: the inversion ran without.
_UNCONTROLLED = ("source", "inverted")


def _is_prompted(branch: Branch) -> bool:
    return branch.told in ("source", "cond")


def _donor_of(told: Row, rows: Sequence[tuple[Whose, Row]]) -> int:
    """The number of the source's branch that a branch of `told` takes from.

    A prompt's takes from a prompt's; the others from the source's unconditional one, where there is one.
    """
    sources = [number for number, (whose, _) in enumerate(rows) if whose == "source"]
    if not sources:
        return CAPTURED
    return sources[-1] if told in ("source", "cond") else sources[0]


def guide(without: Tensor, towards: Tensor, scale: float, threshold: float | None = None) -> Tensor:
    """Classifier-free guidance (Ho and Salimans, 2022).

    With `threshold` only where it is strongest: in a picture's channels summed, above that quantile
    (LEDITS++, Brack et al., CVPR 2024).
    """
    if threshold is None:
        return without + scale * (towards - without)
    change = scale * (towards - without)
    strength = change.abs().sum(dim=1).flatten(1)
    weakest = strength.quantile(threshold, dim=1, keepdim=True)
    strong = unflatten(strength >= weakest, 1, change.shape[2:])[:, None]
    return without + change * strong
