"""The loop: pictures in batches through one model, whatever happens on the way."""
