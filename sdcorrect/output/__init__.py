"""Outputs: an output folder, its records, and what is done."""
