"""The batch loop: many pictures through one model, with recovery from errors."""
