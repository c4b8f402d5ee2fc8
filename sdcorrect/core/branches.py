"""The branches of a U-Net call: their latents, their text, and the branch they take tensors from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, unflatten
from typing_extensions import Self

from sdcorrect.core.plan import Beside, Injection, Plan
from sdcorrect.core.text import Text

Whose = Literal["source", "target"]
#: The text of a branch; null is the empty prompt, uncond the negative prompt.
Row = Literal["null", "source", "uncond", "cond"]

#: For each branch, the branch that it takes tensors from: itself, the source's, or CAPTURED.
Donors = tuple[int, ...]
CAPTURED = -1


@dataclass(frozen=True)
class Branch:
    """One branch of a U-Net call: a row for each picture."""

    of: Whose
    told: Row
    donor: int  #: the index of the branch whose tensors it takes, or CAPTURED
    controlled: bool = True  #: whether ControlNets act on it


@dataclass(frozen=True)
class Branches:
    """All rows of a U-Net call: one branch after the other, each with the same pictures."""

    all: tuple[Branch, ...]

    @classmethod
    def of(cls, source: Beside, *, guided: bool, source_guided: bool = False) -> Self:
        """The branches of one step; without guidance, the unconditional ones are left out.

        captured: [uncond, cond]; the source was captured before.
        inverted: [source, uncond, cond].
        sampled: [source uncond, uncond, source cond, cond]; the source is guided like the target.
        noised: [source null, uncond, source cond, cond]; each has a guidance of its own.
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
        """The branches of `plan` at a step with or without guidance of the target."""
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
        """The number of branches, at the start, that no ControlNet acts on."""
        return sum(not branch.controlled for branch in self.all)

    @property
    def unprompted(self) -> int:
        """The number of branches, after the uncontrolled ones, without a prompt of their own."""
        return self.conditional.count(False)

    def donors_of(self, injection: Injection) -> Donors:
        """The donor of each branch for `injection`; a branch that stays unchanged is its own donor."""
        return tuple(
            donor if conditional or injection.branches == "both" else branch
            for branch, (donor, conditional) in enumerate(
                zip(self.donors, self.conditional, strict=True)
            )
        )

    def latents(self, latents: Mapping[Whose, Tensor]) -> list[Tensor]:
        """The latents of each branch, from those of source and target."""
        return [latents[branch.of] for branch in self.all]

    def texts(self, null: Text | None, source: Text, uncond: Text, cond: Text) -> list[Text]:
        """The text of each branch; `null`, the empty prompt, is for a source with its own guidance."""
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
        """The guided predictions of source and target, from the predictions of all branches.

        `source_scale` is `scale` by default; `threshold` applies only to the target.
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


#: (whose, source) of the branch that no ControlNet acts on, because the inversion ran without any.
_UNCONTROLLED = ("source", "inverted")


def _is_prompted(branch: Branch) -> bool:
    return branch.told in ("source", "cond")


def _donor_of(told: Row, rows: Sequence[tuple[Whose, Row]]) -> int:
    """The index of the source's branch that a branch with the text `told` takes from.

    Branches with a prompt take from the source's with a prompt, others from its unconditional branch.
    """
    sources = [number for number, (whose, _) in enumerate(rows) if whose == "source"]
    if not sources:
        return CAPTURED
    return sources[-1] if told in ("source", "cond") else sources[0]


def guide(without: Tensor, towards: Tensor, scale: float, threshold: float | None = None) -> Tensor:
    """Classifier-free guidance (Ho and Salimans, 2022).

    `threshold` keeps guidance only where its magnitude, summed over channels, is above that quantile of
    the picture (LEDITS++, Brack et al., CVPR 2024).
    """
    if threshold is None:
        return without + scale * (towards - without)
    change = scale * (towards - without)
    strength = change.abs().sum(dim=1).flatten(1)
    weakest = strength.quantile(threshold, dim=1, keepdim=True)
    strong = unflatten(strength >= weakest, 1, change.shape[2:])[:, None]
    return without + change * strong
