"""The key `inject` of a recipe: a tensor of the source, where it is put back, and when."""

from typing import Annotated, Literal

from pydantic import Field, StrictFloat, StrictInt, model_validator
from typing_extensions import Self

from sdcorrect.core.layout import UNetLayout
from sdcorrect.core.plan import ALWAYS, FEATURES, Injection, Statistics, TensorName
from sdcorrect.errors import UsageError
from sdcorrect.recipes.blocks import BlockSpec, resolve
from sdcorrect.recipes.fields import Frozen, Timestep, WindowField


class Inject(Frozen):
    """A tensor of the source, where it is put back, and when."""

    tensor: TensorName
    """the tensor to take from the source"""
    blocks: tuple[BlockSpec, ...] = Field(min_length=1)
    """blocks: numbers (4, 4+), levels (first-attention, first-attention.0), encoder or mid"""
    window: WindowField = ALWAYS
    """the part of the steps in which it is put back, as two fractions"""
    timesteps: tuple[Timestep, Timestep] | None = None
    """instead of window: the first and last timestep at which it is put back"""
    weight: Annotated[StrictFloat, Field(gt=0, le=1)] = 1.0
    """1 replaces the U-Net's own tensor, less blends the two"""
    max_tokens: Annotated[StrictInt, Field(ge=1)] | None = None
    """for attention: skip layers with more tokens than this"""
    branches: Literal["both", "cond"] = "both"
    """put it into both branches of guidance, or only into the branch of the prompt"""
    statistics: Statistics = "source"
    """own: rescale each channel to the mean and deviation of the tensor that it replaces (AdaIN)"""

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        if self.timesteps and self.window != ALWAYS:
            raise ValueError("give either window or timesteps, not both")
        if self.max_tokens and self.tensor in FEATURES:
            raise ValueError(f"max_tokens is for attention; {self.tensor} has no tokens")
        if self.statistics == "own" and self.tensor not in FEATURES:
            raise ValueError(
                f"statistics: own is for {' and '.join(FEATURES)}, whose channels have a mean and a "
                f"deviation; remove it from {self.tensor}"
            )
        return self

    def resolve(self, layout: UNetLayout) -> Injection:
        """This injection with the block numbers of a U-Net of `layout`.

        Raises:
            UsageError: the U-Net lacks a block, or the block lacks the tensor.
        """
        having = layout.having(self.tensor)
        blocks = [block for spec in self.blocks for block in resolve(spec, layout, having)]
        for block in blocks:
            if block not in having:
                raise UsageError(
                    f"block {block} of this U-Net has no {self.tensor}; "
                    f"choose from blocks {', '.join(map(str, having))}"
                )
        return Injection(**dict(self) | {"blocks": tuple(dict.fromkeys(blocks))})
