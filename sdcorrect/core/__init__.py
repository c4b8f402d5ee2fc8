"""The method on plain tensors: no configuration, no paths, no printing."""
