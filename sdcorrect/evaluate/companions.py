"""Find what belongs to each picture of a job: the true picture, the edit mask, the caption."""

import os
from collections.abc import Sequence
from pathlib import Path
from posixpath import splitext

from PIL import Image

from sdcorrect.config import Input
from sdcorrect.errors import PictureError, UsageError, listed, printable
from sdcorrect.evaluate.translated import Translated
from sdcorrect.inputs.captions import PromptFiller
from sdcorrect.inputs.companions import companion_path
from sdcorrect.inputs.masks import is_mapping
from sdcorrect.inputs.pie_bench import decode_mask, read_mapping
from sdcorrect.inputs.sniff import is_picture
from sdcorrect.inputs.walk import ANYWHERE, walk


def find_pictures(option: str, folder: Path, translated: Translated) -> dict[str, Path]:
    """For each picture that is done, the file at the same relative path in `folder`, with any suffix.

    Raises:
        UsageError: the folder is missing, has none for some pictures, or several for one.
    """
    if not folder.is_dir():
        problem = (
            "is a file; give the folder of the pictures"
            if folder.exists()
            else "there is no such folder"
        )
        raise UsageError(f"{option} {printable(folder)}: {problem}")
    by_stem: dict[str, list[str]] = {}
    for path in walk(folder, ANYWHERE, translated.job.output.path):
        if is_picture(os.path.join(folder, path)):
            by_stem.setdefault(splitext(path)[0], []).append(path)
    found: dict[str, Path] = {}
    missing = []
    for entry in translated.entries:
        own = companion_path(entry.item)
        there = by_stem.get(splitext(own)[0], [])
        if len(there) > 1 and own not in there:
            raise UsageError(
                f"{option} {printable(folder)}: {', '.join(map(printable, sorted(there)))} all match "
                f"{printable(own)}; keep one"
            )
        if there:
            found[entry.item.key] = folder / (own if own in there else there[0])
        else:
            missing.append(own)
    advice = (
        "add them" if found else "name them as the sources: they are found at the same relative paths"
    )
    _refuse_missing(f"{option} {printable(folder)}", "picture", missing, translated, advice)
    return found


def find_masks(given: Path, translated: Translated) -> dict[str, Image.Image | Path]:
    """The edit masks (white where edited), from a folder of pictures or PIE-Bench's mapping file.

    Raises:
        UsageError: it is neither of these, or lacks masks for some pictures.
    """
    if not is_mapping(str(given)):
        return dict(find_pictures("--masks", given, translated))
    masks = read_mapping(given)
    paths = {entry.item.key: splitext(companion_path(entry.item))[0] for entry in translated.entries}
    missing = [key for key, path in paths.items() if path not in masks]
    _refuse_missing(f"--masks {printable(given)}", "mask", missing, translated, "add them")
    return {key: decode_mask(masks[path].mask) for key, path in paths.items()}


def find_captions(file: Path | None, translated: Translated) -> dict[str, str]:
    """The captions from the COCO file `file`, or else the job's own.

    Raises:
        UsageError: some pictures have no caption, or the file is not a captions file.
    """
    settings: Input = translated.job.input
    if file is not None:
        settings = settings.model_copy(update={"captions": file})
    filler = PromptFiller(settings)
    captions = {}
    reasons = []
    for entry in translated.entries:
        try:
            captions[entry.item.key] = filler.fill("{caption}", entry.item.source, entry.item.key)
        except PictureError:
            reasons.append(entry.item.key)
    place = printable(settings.captions) if settings.captions else "the .txt files beside the pictures"
    advice = "add them, give a COCO file with --captions, or let BLIP write them with --captions blip"
    _refuse_missing(f"captions, {place}", "caption", reasons, translated, advice)
    return captions


def _refuse_missing(
    where: str, what: str, missing: Sequence[str], translated: Translated, advice: str
) -> None:
    if missing:
        raise UsageError(
            f"{where}: no {what} for {len(missing)} of {len(translated.entries)} pictures "
            f"({listed(missing)}); {advice}"
        )
