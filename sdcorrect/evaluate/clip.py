"""CLIP embeds pictures and texts in one space, where the cosine measures their similarity."""

from collections.abc import Sequence
from functools import lru_cache

import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import normalize
from transformers import (
    AutoImageProcessor,
    AutoTokenizer,
    CLIPModel,
    PreTrainedModel,
    VisionTextDualEncoderModel,
)

from sdcorrect.evaluate.backbones import find_weights, load_network, load_reader, read_config
from sdcorrect.models.sources import Finder

#: The CLIP classes of transformers: with two transformers, and with towers of any kind.
CLIPS: dict[str, type[PreTrainedModel]] = {
    "clip": CLIPModel,
    "vision-text-dual-encoder": VisionTextDualEncoderModel,
}
KEPT_TEXTS = 1024  #: cached embeddings of texts, which many pictures may share


class Clip:
    """Any CLIP of transformers: `mini`, a folder or a hub id.

    Raises:
        UsageError: it is missing, or is not a CLIP.
    """

    def __init__(
        self, name: str = "mini", *, device: torch.device | None = None, finder: Finder | None = None
    ) -> None:
        found = find_weights("clip", name, finder or Finder())
        config = read_config("clip", name, found.path, tuple(CLIPS))
        self.name = name
        self.identity = found.identity
        self.device = device or torch.device("cpu")
        self.network = load_network("clip", name, CLIPS[config.model_type], found.path).to(self.device)
        self.tokenizer = load_reader("clip", name, AutoTokenizer, found.path)
        # Pillow's backend, as in the public evaluations; others differ in the last digits
        self.processor = load_reader("clip", name, AutoImageProcessor, found.path, backend="pil")
        self.length = self.network.config.text_config.max_position_embeddings  #: in tokens
        self.cut = 0  #: how many texts were too long
        self._text = lru_cache(KEPT_TEXTS)(self._encode)

    @torch.inference_mode()
    def images(self, pictures: Sequence[Image.Image]) -> Tensor:
        """The embeddings of pictures as unit vectors, (pictures, width)."""
        pixels = self.processor(list(pictures), return_tensors="pt").pixel_values
        features = self.network.get_image_features(pixel_values=pixels.to(self.device))
        return normalize(features.pooler_output, dim=-1)

    def texts(self, texts: Sequence[str]) -> Tensor:
        """The embeddings of texts as unit vectors, (texts, width); texts that are too long are cut."""
        return torch.stack([self._text(text) for text in texts])

    @torch.inference_mode()
    def _encode(self, text: str) -> Tensor:
        tokens = self.tokenizer(text, return_tensors="pt").input_ids
        if tokens.shape[1] > self.length:
            self.cut += 1
            options = {"truncation": True, "max_length": self.length}
            tokens = self.tokenizer(text, return_tensors="pt", **options).input_ids
        features = self.network.get_text_features(input_ids=tokens.to(self.device))
        return normalize(features.pooler_output, dim=-1)[0]
