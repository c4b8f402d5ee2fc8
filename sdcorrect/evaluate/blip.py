"""Write captions with BLIP."""

from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image
from transformers import AutoTokenizer, BlipForConditionalGeneration
from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil

from sdcorrect.evaluate.backbones import find_weights, load_network, load_reader, read_config
from sdcorrect.models.sources import Finder

BLIP = "Salesforce/blip-image-captioning-large"
TOKENS = 20  #: at most in a caption: transformers' default when the paper was written


class Blip:
    """Captions pictures as the code of Yuan et al. 2025 does.

    Raises:
        UsageError: the weights are missing, or are not BLIP's.
    """

    def __init__(self, name: str, *, device: torch.device, finder: Finder) -> None:
        found = find_weights("blip", name, finder)
        read_config("blip", name, found.path, ("blip",))
        self.name = name
        self.identity = found.identity
        network = load_network("blip", name, BlipForConditionalGeneration, found.path)
        self._network = network.to(device)
        self._tokenizer: Any = load_reader("blip", name, AutoTokenizer, found.path)
        self._processor = load_reader("blip", name, BlipImageProcessorPil, found.path)

    @torch.inference_mode()
    def __call__(self, pictures: Sequence[Image.Image]) -> list[str]:
        pixels = self._processor(list(pictures), return_tensors="pt").pixel_values
        tokens = self._network.generate(pixels.to(self._network.device), max_length=TOKENS)
        return self._tokenizer.batch_decode(tokens, skip_special_tokens=True)
