"""Batch image-to-image translation with Stable Diffusion that keeps a picture's structure."""

__version__ = "0.1.0"
