"""Measure how close translated pictures are to their sources, true pictures and prompts."""
