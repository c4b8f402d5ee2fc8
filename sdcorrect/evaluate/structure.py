"""Structure distance: how differently two pictures relate their own parts to each other."""

from collections.abc import Sequence

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import interpolate, mse_loss, normalize
from transformers import CLIPModel, ViTModel
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from sdcorrect.evaluate.backbones import find_weights, load_network, load_reader, read_config
from sdcorrect.evaluate.pixels import to_tensor
from sdcorrect.models.sources import Finder

#: The mean and deviation of RGB in [0, 1] of ImageNet, as PIE-Bench has them for DINO.
IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
#: A longer side may have so much of the network's own side; PIE-Bench: 480 of 224 px.
LONGEST = 480 / 224


class Structure:
    """Self-similarity of the keys in the last layer of a vision transformer (Tumanyan et al. 2022).

    `name` is a ViT or a CLIP, whose image tower is then taken. With `raw`, samples go in from 0 to 255
    and pictures are made smaller without antialiasing, as the code of PIE-Bench does.

    Raises:
        UsageError: it is not there, or is neither.
    """

    def __init__(
        self, name: str, *, device: torch.device, finder: Finder | None = None, raw: bool = False
    ) -> None:
        found = find_weights("structure", name, finder or Finder())
        config = read_config("structure", name, found.path, ("clip", "vit"))
        if config.model_type == "clip":
            network = load_network("structure", name, CLIPModel, found.path).vision_model
            processor = load_reader("structure", name, CLIPImageProcessorPil, found.path)
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
        self._network = network.to(device)
        self._keys: list[Tensor] = []
        _last_keys(network).register_forward_hook(lambda *hooked: self._keys.append(hooked[-1]))

    @torch.inference_mode()
    def similarities(self, pictures: Sequence[Image.Image]) -> list[Tensor]:
        """For each picture the cosines between the keys of its tokens, (tokens, tokens)."""
        pixels = [self._prepared(picture) for picture in pictures]
        one_size = len({tensor.shape for tensor in pixels}) == 1
        for batch in [torch.cat(pixels)] if one_size else pixels:
            self._network(pixel_values=batch, interpolate_pos_encoding=True)
        keys = [normalize(one, dim=-1) for batch in self._keys for one in batch]
        self._keys.clear()
        return [one @ one.T for one in keys]

    def _prepared(self, picture: Image.Image) -> Tensor:
        pixels = to_tensor(picture, self.device)
        height, width = pixels.shape[-2:]
        scale = self.side / min(height, width)
        scale = min(scale, int(self.side * LONGEST) / max(height, width))
        size = int(height * scale + 1e-6), int(width * scale + 1e-6)
        pixels = interpolate(pixels, size, mode="bilinear", antialias=not self.raw)
        return ((255 * pixels if self.raw else pixels) - self._mean) / self._deviation


def structure_distance(one: Tensor, other: Tensor) -> float:
    """Mean squared difference of two self-similarities."""
    return float(mse_loss(one, other))


def _last_keys(network: nn.Module) -> nn.Module:
    return [module for name, module in network.named_modules() if name.endswith((".k_proj", ".key"))][-1]
