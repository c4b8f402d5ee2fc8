"""Structure distance: how much the self-similarities of two pictures differ."""

from collections.abc import Callable, Sequence

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import interpolate, mse_loss, normalize
from transformers import AutoImageProcessor, ViTModel

from sdcorrect.evaluate.backbones import find_weights, load_network, load_reader, read_config
from sdcorrect.evaluate.clip import CLIPS
from sdcorrect.evaluate.pixels import to_tensor
from sdcorrect.models.sources import Finder

#: ImageNet's mean and deviation of RGB in [0, 1], as in PIE-Bench for DINO.
IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
#: The limit of the longer side, relative to the network's side; in PIE-Bench, 480 of 224 px.
LONGEST = 480 / 224
#: A feature map with fewer places per side is too coarse to show structure.
PLACES = 8


class Structure:
    """Self-similarity of the keys in the last layer of a vision transformer (Tumanyan et al. 2022).

    `name` is a ViT, or a CLIP for its image tower. A convolutional tower has no keys; the features are
    then its last feature map of at least 8x8 places. With `raw`, samples range from 0 to 255 and
    pictures are reduced without antialiasing, as in PIE-Bench's code.

    Raises:
        UsageError: it is missing, or is neither.
    """

    def __init__(
        self, name: str, *, device: torch.device, finder: Finder | None = None, raw: bool = False
    ) -> None:
        found = find_weights("structure", name, finder or Finder())
        config = read_config("structure", name, found.path, (*CLIPS, "vit"))
        if kind := CLIPS.get(config.model_type):
            network = load_network("structure", name, kind, found.path).vision_model
            processor = load_reader("structure", name, AutoImageProcessor, found.path, backend="pil")
            norm = processor.image_mean, processor.image_std
        else:
            norm = IMAGENET
            network = load_network("structure", name, ViTModel, found.path, add_pooling_layer=False)
        self.name = name
        self.identity = found.identity
        self.device = device
        self.raw = raw
        self.side: int = network.config.image_size
        self._mean, self._deviation = (torch.tensor(n, device=device)[:, None, None] for n in norm)
        self._parts = _parts_of(network.to(device))

    @torch.inference_mode()
    def similarities(self, pictures: Sequence[Image.Image]) -> list[Tensor]:
        """For each picture, the cosines between its parts, tokens or places of a map: (parts, parts)."""
        pixels = [self._prepared(picture) for picture in pictures]
        one_size = len({tensor.shape for tensor in pixels}) == 1
        batches = [torch.cat(pixels)] if one_size else pixels
        parts = [normalize(one, dim=-1) for batch in batches for one in self._parts(batch)]
        return [one @ one.T for one in parts]

    def _prepared(self, picture: Image.Image) -> Tensor:
        pixels = to_tensor(picture, self.device)
        height, width = pixels.shape[-2:]
        scale = self.side / min(height, width)
        scale = min(scale, int(self.side * LONGEST) / max(height, width))
        size = int(height * scale + 1e-6), int(width * scale + 1e-6)
        pixels = interpolate(pixels, size, mode="bilinear", antialias=not self.raw)
        return ((255 * pixels if self.raw else pixels) - self._mean) / self._deviation


def structure_distance(one: Tensor, other: Tensor) -> float:
    """The mean squared difference of two self-similarities, (parts, parts) each."""
    return float(mse_loss(one, other))


def _parts_of(network: nn.Module) -> Callable[[Tensor], Tensor]:
    """A function from pixels (pictures, 3, height, width) to features (pictures, parts, width)."""
    keys = [module for name, module in network.named_modules() if name.endswith((".k_proj", ".key"))]
    if not keys:
        return lambda pixels: _last_fine_map(network, pixels).flatten(2).mT
    seen: list[Tensor] = []
    keys[-1].register_forward_hook(lambda *hooked: seen.append(hooked[-1]))

    def last_keys(pixels: Tensor) -> Tensor:
        network(pixel_values=pixels, interpolate_pos_encoding=True)
        return seen.pop()

    return last_keys


def _last_fine_map(network: nn.Module, pixels: Tensor) -> Tensor:
    """The last feature map that is fine enough, (pictures, channels, rows, columns)."""
    maps = network(pixel_values=pixels, output_hidden_states=True).hidden_states
    return [one for one in maps if min(one.shape[-2:]) >= PLACES][-1]
