"""Inputs: find a job's pictures and their prompts, and read them."""
