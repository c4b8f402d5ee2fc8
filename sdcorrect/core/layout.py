"""Which decoder blocks a U-Net has, told from its configuration alone (imports no torch)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class DecoderLayout:
    """Decoder blocks, numbered in the order they run, grouped by resolution level.

    A U-Net of L levels has 3L blocks (SD 1.x and 2.x: 12, SDXL: 9); block `k` concatenates the
    output of encoder block `3L - 1 - k`.
    """

    levels: tuple[tuple[int, ...], ...]
    attention: frozenset[int]

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "DecoderLayout":
        """Read the layout from a diffusers `UNet2DConditionModel` configuration."""
        kinds = config["up_block_types"]
        depth = config["layers_per_block"]
        depths = [depth] * len(kinds) if isinstance(depth, int) else list(reversed(depth))
        levels: list[tuple[int, ...]] = []
        first = 0
        for layers in depths:
            # a decoder level has one block more than the encoder level it mirrors
            levels.append(tuple(range(first, first + layers + 1)))
            first += layers + 1
        attention = frozenset(
            block for kind, level in zip(kinds, levels, strict=True) if "Attn" in kind for block in level
        )
        return cls(tuple(levels), attention)

    @property
    def blocks(self) -> tuple[int, ...]:
        return tuple(block for level in self.levels for block in level)

    @property
    def first_attention(self) -> tuple[int, ...]:
        """The blocks of the first decoder level that has attention: 3 to 5 in SD 1.x, 0 to 2 in SDXL."""
        return next((level for level in self.levels if level[0] in self.attention), ())
