"""The blocks of a U-Net, read from its configuration (imports no torch)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sdcorrect.core.plan import FEATURES, MID, Block, TensorName


@dataclass(frozen=True)
class UNetLayout:
    """Decoder blocks by resolution level, numbered in the order they run, and blocks with attention.

    A U-Net with L levels has 3L decoder blocks (SD 1.x and 2.x: 12, SDXL: 9); block `k` concatenates
    the output of encoder block `3L - 1 - k`. Encoder block 0 is the first convolution.
    """

    levels: tuple[tuple[int, ...], ...]
    attention: frozenset[int]
    encoder_attention: tuple[Block, ...] = ()
    mid_attention: tuple[Block, ...] = ()

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "UNetLayout":
        """Read the layout from a diffusers `UNet2DConditionModel` configuration."""
        down, up = config["down_block_types"], config["up_block_types"]
        depth = config["layers_per_block"]
        depths = [depth] * len(up) if isinstance(depth, int) else list(depth)
        encoder: list[Block] = []
        first = 1
        for kind, layers in zip(down, depths, strict=True):
            if "Attn" in kind:
                encoder += [f"encoder.{block}" for block in range(first, first + layers)]
            first += layers + 1  # the downsampler, which the last level lacks
        levels: list[tuple[int, ...]] = []
        first = 0
        for layers in reversed(depths):
            # a decoder level has one block more than its encoder level
            levels.append(tuple(range(first, first + layers + 1)))
            first += layers + 1
        attention = frozenset(
            block for kind, level in zip(up, levels, strict=True) if "Attn" in kind for block in level
        )
        mid = (MID,) if "CrossAttn" in (config.get("mid_block_type") or "") else ()
        return cls(tuple(levels), attention, tuple(encoder), mid)

    @property
    def decoder(self) -> tuple[int, ...]:
        return tuple(block for level in self.levels for block in level)

    @property
    def attention_levels(self) -> tuple[tuple[int, ...], ...]:
        """The decoder levels with attention, coarsest first; in SD 1.x the first is blocks 3 to 5."""
        return tuple(level for level in self.levels if level[0] in self.attention)

    def having(self, tensor: TensorName) -> tuple[Block, ...]:
        """The blocks that have `tensor`, in the order they run."""
        if tensor in FEATURES:
            return self.decoder
        return (*self.encoder_attention, *self.mid_attention, *sorted(self.attention))
