"""Where what goes with a picture lies in a folder of such: its hint, its truth, its mask."""

import os
from pathlib import Path

from sdcorrect.inputs.items import Item


def companion_path(item: Item) -> str:
    """Where a picture is below the input folder; of one that is not below it, where its output is.

    The key of a picture that a list names by an absolute path, or by one with `..`, would lead out of
    the folder of companions, and to the picture itself.
    """
    if os.path.isabs(item.key) or ".." in Path(item.key).parts:
        return item.output.as_posix()
    return Path(item.key).with_name(item.source.name).as_posix()  # the key of a second one ends in #2
