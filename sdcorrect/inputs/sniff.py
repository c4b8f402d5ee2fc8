"""Recognise pictures by their suffix, or else by their first bytes."""

import os
import stat
from posixpath import splitext

from sdcorrect.inputs.formats import FIRST_BYTES, looks_like_picture
from sdcorrect.inputs.names import SUFFIXES

#: Files that are never opened: they are as many as the pictures, or begin like a picture.
NO_PICTURES = (
    *(".txt", ".caption", ".json", ".jsonl", ".csv", ".tsv", ".xml", ".yaml", ".yml", ".md", ".html"),
    *(".npy", ".npz", ".pt", ".pth", ".ckpt", ".safetensors", ".tar", ".gz", ".zip", ".mp4", ".mov"),
    *(".xmp", ".aae", ".log", ".ini", ".db", ".py", ".sh", ".sbatch", ".pdf", ".svg", ".psd"),
    # camera raw files are TIFFs whose first picture is a thumbnail; THM are thumbnails of videos
    *(".dng", ".cr2", ".cr3", ".nef", ".nrw", ".arw", ".sr2", ".orf", ".rw2", ".raf", ".pef", ".srw"),
    *(".3fr", ".erf", ".kdc", ".dcr", ".iiq", ".mef", ".mos", ".rwl", ".thm"),
    # backups of changed pictures, and incomplete downloads
    *("_original", "~", ".bak", ".orig", ".old", ".tmp", ".temp", ".part", ".partial", ".crdownload"),
)


def is_picture(path: str) -> bool:
    """Whether the file `path` is a picture to translate; opens it only if its suffix is not enough."""
    if splitext(path)[1].lower() in SUFFIXES:
        return True
    return not path.lower().endswith(NO_PICTURES) and looks_like_picture(_first_bytes(path))


def _first_bytes(path: str) -> bytes:
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            return b""
        with open(path, "rb", buffering=0) as stream:
            return stream.read(FIRST_BYTES)
    except OSError:
        return b""
