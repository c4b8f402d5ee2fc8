"""Translate a batch of pictures by one or more recipes: encode and invert once, denoise for each."""

from sdcorrect.translate.request import Request, Translation
from sdcorrect.translate.translator import Translator

__all__ = ["Request", "Translation", "Translator"]
