"""Methods as data: which inversion, where denoising starts, which tensors are put back where and when.

Imports no torch, so that recipes can be checked and listed without loading a model.
"""

from sdcorrect.recipes.built_in import ALIASES, BUILT_IN, built_in
from sdcorrect.recipes.inject import Inject
from sdcorrect.recipes.recipe import Recipe

__all__ = ["ALIASES", "BUILT_IN", "Inject", "Recipe", "built_in"]
