"""Keep an inversion's latents on disk, for runs that lack the memory."""

from collections.abc import Iterator, MutableMapping
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from sdcorrect.errors import SdcorrectError


class SpilledTrajectory(MutableMapping[int, Tensor]):
    """Timestep -> latents, one file each, in a temporary folder in `folder` that is removed with this.

    Raises:
        SdcorrectError: the folder cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._own = TemporaryDirectory(prefix="trajectory-", dir=folder)
        except OSError as error:
            raise SdcorrectError(f"spill {folder}: cannot be written: {error.strerror}") from None
        #: by timestep, the device and strides of the latents: rounding depends on the memory layout, and
        #: spilling must not change a picture
        self._places: dict[int, tuple[torch.device, tuple[int, ...]]] = {}

    def _file(self, t: int) -> Path:
        return Path(self._own.name, f"{t}.safetensors")

    def __setitem__(self, t: int, latents: Tensor) -> None:
        save_file({"latents": latents.contiguous()}, self._file(t))
        self._places[t] = latents.device, latents.stride()

    def __getitem__(self, t: int) -> Tensor:
        device, strides = self._places[t]
        latents: Tensor = load_file(self._file(t))["latents"]
        return torch.empty_strided(latents.shape, strides, dtype=latents.dtype, device=device).copy_(
            latents
        )

    def __delitem__(self, t: int) -> None:
        del self._places[t]
        self._file(t).unlink()

    def __iter__(self) -> Iterator[int]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)
