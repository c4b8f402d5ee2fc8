"""How a recipe names blocks: by number, or by level, which fits every family of U-Nets."""

import re
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator

from sdcorrect.core.layout import UNetLayout
from sdcorrect.core.plan import MID, Block
from sdcorrect.errors import UsageError

LEVELS = ("first-attention", "second-attention", "third-attention")
FIRST = LEVELS[0]
_BLOCKS = re.compile(
    rf"(?:(?P<level>{'|'.join(LEVELS)})(?:\.(?P<index>\d+))?|(?P<number>\d+))(?P<onward>\+)?"
    rf"|(?P<elsewhere>encoder(?:\.\d+)?|{MID})"
)


def _check_blocks(spec: str) -> str:
    if not _BLOCKS.fullmatch(spec):
        raise ValueError(
            f"{spec!r} names no blocks; give a number (4), a number and all later ones (4+), a decoder "
            f"level ({FIRST}), one block of a level ({FIRST}.0), encoder, encoder.4 or mid"
        )
    return spec


#: 4, 4+, first-attention, first-attention.0, first-attention.0+, encoder, encoder.4 or mid.
BlockSpec = Annotated[
    str,
    BeforeValidator(lambda value: str(value) if type(value) is int else value),
    AfterValidator(_check_blocks),
]


def resolve(spec: str, layout: UNetLayout, having: tuple[Block, ...]) -> tuple[Block, ...]:
    """The blocks that the BlockSpec `spec` names in a U-Net of `layout`.

    Args:
        having: the blocks to choose from where `spec` names many (4+, encoder).

    Raises:
        UsageError: the U-Net has no such level, or the level no such block.
    """
    match = _BLOCKS.fullmatch(spec)
    assert match, spec
    if spec == "encoder":
        return tuple(block for block in layout.encoder_attention if block in having) or (spec,)
    if match["elsewhere"]:
        return (spec,)
    if match["number"]:
        chosen: tuple[int, ...] = (int(match["number"]),)
    else:
        chosen = _in_level(spec, layout, match["level"], match["index"])
    if match["onward"]:
        later = tuple(b for b in having if isinstance(b, int) and b >= chosen[0])
        return later or chosen[:1]
    return chosen


def _in_level(spec: str, layout: UNetLayout, name: str, index: str | None) -> tuple[int, ...]:
    levels, number = layout.attention_levels, LEVELS.index(name)
    if number >= len(levels):
        raise UsageError(f"{spec}: this U-Net's decoder has only {len(levels)} attention levels")
    level = levels[number]
    if index is None:
        return level
    if int(index) >= len(level):
        raise UsageError(f"{spec}: this level has only {len(level)} blocks in this U-Net")
    return (level[int(index)],)
