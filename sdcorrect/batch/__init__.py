"""Folders of pictures: which, where to, what is done, and the loop."""
