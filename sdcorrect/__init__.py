"""Image-to-image translation with Stable Diffusion that keeps a picture's structure."""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from sdcorrect.api import StableDiffusion, Translated, from_pipe, load

__all__ = ["StableDiffusion", "Translated", "from_pipe", "load"]


def __getattr__(name: str) -> Any:
    """Import the API on first use: it needs torch, which the command line loads late."""
    if name in __all__:
        from sdcorrect.libraries import quiet_imports

        with quiet_imports():
            from sdcorrect import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
