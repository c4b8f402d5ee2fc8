"""Methods as data: which inversion, where denoising starts, which tensors go back where and when.

Imports no torch, so that a recipe is checked and listed without loading a model.
"""

import re
from difflib import get_close_matches
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from typing_extensions import Self

from sdcorrect.core.layout import DecoderLayout
from sdcorrect.core.plan import ALWAYS, Injection, Plan, TensorName, Window
from sdcorrect.errors import UsageError

LEVEL = "first-attention"
_BLOCKS = re.compile(rf"(?:(?P<level>{LEVEL})(?:\.(?P<index>\d+))?|(?P<number>\d+))(?P<onward>\+)?")


def _check_blocks(spec: str) -> str:
    if not _BLOCKS.fullmatch(spec):
        raise ValueError(
            f"blocks are a number (4), a number and all later ones (4+), the decoder's {LEVEL} level, "
            f"or one block of it ({LEVEL}.0); not {spec!r}"
        )
    return spec


def _check_window(window: Window) -> Window:
    if not 0 <= window[0] < window[1] <= 1:
        raise ValueError("a window is two fractions of the steps, 0 <= first < last <= 1")
    return window


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


#: Decoder blocks by number or by level, so that one recipe serves every family of U-Nets.
BlockSpec = Annotated[
    str,
    BeforeValidator(lambda value: str(value) if isinstance(value, int) else value),
    AfterValidator(_check_blocks),
]


class Inject(_Frozen):
    """One tensor of the source and where it is put back."""

    tensor: TensorName
    blocks: tuple[BlockSpec, ...] = Field(min_length=1)
    window: Annotated[Window, AfterValidator(_check_window)] = ALWAYS

    def resolve(self, layout: DecoderLayout) -> Injection:
        """The same on a U-Net of `layout`.

        Raises:
            UsageError: a block that the U-Net lacks, or that lacks the tensor.
        """
        having = sorted(layout.attention) if self.tensor == "self-attention" else layout.blocks
        blocks = [block for spec in self.blocks for block in _resolve_blocks(spec, layout, having)]
        for block in blocks:
            if block not in having:
                raise UsageError(
                    f"{self.tensor} at decoder block {block}: this U-Net has it "
                    f"at blocks {', '.join(map(str, having))}; choose among those"
                )
        return Injection(self.tensor, tuple(dict.fromkeys(blocks)), self.window)


class Recipe(_Frozen):
    """A translation method.

    With the one-step inversion the tensors are those of a single evaluation on the clean latents
    (the paper's correction). With a full inversion the source's inverted latents run along, and the
    tensors at each step are those of the source at that timestep.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    summary: str = ""
    inversion: Literal["none", "one-step", "full"] = "none"
    inversion_steps: Annotated[int, Field(ge=1, le=999)] | None = None
    start: Literal["noise", "inverted"] = "noise"
    inject: tuple[Inject, ...] = ()

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        if self.inject and self.inversion == "none":
            raise ValueError("what is injected comes from an inversion: set inversion: one-step or full")
        if self.start == "inverted" and self.inversion != "full":
            raise ValueError("start: inverted needs inversion: full")
        if self.inversion_steps and self.inversion != "full":
            raise ValueError("inversion_steps needs inversion: full")
        return self

    def plan(self, layout: DecoderLayout) -> Plan:
        """This recipe on a U-Net of `layout`.

        Raises:
            UsageError: it names a block that the U-Net lacks, or that lacks the tensor.
        """
        try:
            injections = tuple(inject.resolve(layout) for inject in self.inject)
        except UsageError as error:
            raise UsageError(f"recipe {self.name}: {error}") from None
        return Plan(self.inversion, self.inversion_steps, self.start, injections)


def _resolve_blocks(
    spec: str, layout: DecoderLayout, having: list[int] | tuple[int, ...]
) -> tuple[int, ...]:
    match = _BLOCKS.fullmatch(spec)
    assert match, spec
    if match["number"]:
        chosen: tuple[int, ...] = (int(match["number"]),)
    else:
        level = layout.first_attention
        index = int(match["index"] or 0)
        if index >= len(level):
            raise UsageError(f"{spec}: that level has {len(level)} blocks in this U-Net")
        chosen = level[index : index + 1] if match["index"] else level
    if match["onward"]:
        return tuple(block for block in having if block >= chosen[0])
    return chosen


def _attention(*blocks: str) -> Inject:
    return Inject(tensor="self-attention", blocks=blocks)


def _skip(*blocks: str) -> Inject:
    return Inject(tensor="skip", blocks=blocks)


BUILT_IN: dict[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        Recipe(name="sdedit", summary="noise, then denoise under the new prompt (the baseline)"),
        Recipe(
            name="correct",
            summary="the paper's correction of correlations and features (its preset 'all')",
            inversion="one-step",
            inject=(
                _attention(f"{LEVEL}.0", f"{LEVEL}.1"),
                _skip(f"{LEVEL}.1", f"{LEVEL}.2"),
            ),
        ),
        Recipe(
            name="correct-attention",
            summary="correlations alone, over the whole first attention level",
            inversion="one-step",
            inject=(_attention(LEVEL),),
        ),
        Recipe(
            name="correct-features",
            summary="features alone (the paper's preset 'only spatial')",
            inversion="one-step",
            inject=(_skip(f"{LEVEL}.1", f"{LEVEL}.2"),),
        ),
        Recipe(
            name="correct-attention-last-feature",
            summary="correlations of the whole level and the features of its last block",
            inversion="one-step",
            inject=(_attention(LEVEL), _skip(f"{LEVEL}.2")),
        ),
        Recipe(
            name="ddim",
            summary="DDIM inversion over as many steps, then sampling from the inverted latents",
            inversion="full",
            start="inverted",
        ),
    )
}
#: The names that the authors' code gives to its presets.
ALIASES = {"all": "correct", "only-spatial": "correct-features"}


def built_in(name: str) -> Recipe:
    """The built-in recipe of that name.

    Raises:
        ValueError: there is none; the nearest name is told.
    """
    recipe = BUILT_IN.get(ALIASES.get(name, name))
    if recipe is None:
        near = get_close_matches(name, [*BUILT_IN, *ALIASES], n=1)
        hint = f"did you mean {near[0]}?" if near else "see `sdcorrect recipes`"
        raise ValueError(f"there is no recipe {name!r}; {hint}")
    return recipe


def _by_name(value: Any) -> Any:
    return built_in(value) if isinstance(value, str) else value


#: In a job: a recipe's name, or a recipe written out.
RecipeField = Annotated[Recipe, BeforeValidator(_by_name)]
