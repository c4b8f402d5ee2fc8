"""An inversion's latents on disk, for runs whose memory they would not fit."""

from collections.abc import Iterator, MutableMapping
from pathlib import Path
from tempfile import TemporaryDirectory

from safetensors.torch import load_file, save_file
from torch import Tensor

from sdcorrect.errors import SdcorrectError


class SpilledTrajectory(MutableMapping[int, Tensor]):
    """Timestep -> latents, one file each in a folder of its own below `folder`, removed with this.

    Raises:
        SdcorrectError: the folder cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._own = TemporaryDirectory(prefix="trajectory-", dir=folder)
        except OSError as error:
            raise SdcorrectError(f"spill {folder}: cannot be written: {error.strerror}") from None
        self._devices: dict[int, str] = {}

    def _file(self, t: int) -> Path:
        return Path(self._own.name, f"{t}.safetensors")

    def __setitem__(self, t: int, latents: Tensor) -> None:
        save_file({"latents": latents.contiguous()}, self._file(t))
        self._devices[t] = str(latents.device)

    def __getitem__(self, t: int) -> Tensor:
        latents: Tensor = load_file(self._file(t), device=self._devices[t])["latents"]
        return latents

    def __delitem__(self, t: int) -> None:
        del self._devices[t]
        self._file(t).unlink()

    def __iter__(self) -> Iterator[int]:
        return iter(self._devices)

    def __len__(self) -> int:
        return len(self._devices)
