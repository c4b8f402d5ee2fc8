"""The text conditioning of the U-Net."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from typing_extensions import Self


@dataclass(frozen=True)
class Text:
    """The encoded texts of a batch of pictures, and other conditioning of the model's family."""

    embeddings: Tensor  #: (batch, tokens, channels)
    #: for SDXL: the pooled texts (batch, channels) and the sizes (batch, 6)
    added: Mapping[str, Tensor] = field(default_factory=dict)
    #: for models with distilled guidance: the embedded guidance scale, (batch, channels)
    guidance: Tensor | None = None

    def __len__(self) -> int:
        return len(self.embeddings)

    def __getitem__(self, rows: slice) -> Self:
        """The texts of some of the pictures."""
        return type(self)(
            self.embeddings[rows],
            {name: value[rows] for name, value in self.added.items()},
            None if self.guidance is None else self.guidance[rows],
        )

    @classmethod
    def cat(cls, texts: Sequence[Self]) -> Self:
        """Concatenate the rows of `texts`."""
        first = texts[0]
        return cls(
            torch.cat([text.embeddings for text in texts]),
            {name: torch.cat([text.added[name] for text in texts]) for name in first.added},
            None
            if first.guidance is None
            else torch.cat([text.guidance for text in texts if text.guidance is not None]),
        )

    @property
    def arguments(self) -> dict[str, Any]:
        """The arguments of diffusers' U-Nets and ControlNets."""
        return {
            "encoder_hidden_states": self.embeddings,
            "added_cond_kwargs": dict(self.added),
            "timestep_cond": self.guidance,
        }
