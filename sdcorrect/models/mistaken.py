"""Recognise files that were saved in place of weights, by their first bytes."""

from pathlib import Path
from zipfile import ZipFile, is_zipfile

#: How archives begin; torch's own files are zips too, but hold a data.pkl.
ARCHIVES = {
    b"PK\x03\x04": "zip",
    b"\x1f\x8b": "gzip",
    b"7z\xbc\xaf\x27\x1c": "7z",
    b"Rar!": "rar",
    b"BZh": "bzip2",
    b"\xfd7zXZ": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
}
#: How pages and pointers begin.
PAGES = (b"<!doctype", b"<html", b"<head", b"<!--", b"<?xml")
POINTER = b"version https://git-lfs"
FIRST_BYTES = 512


def mistaken_for_weights(file: Path) -> str | None:
    """What `file` is instead of weights, and what to do; None if that is unknown."""
    try:
        with file.open("rb") as stream:
            first = stream.read(FIRST_BYTES)
    except OSError:
        return None
    text = first.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if not first:
        return "cannot be read as weights: it is empty; download it again"
    if text.startswith(POINTER):
        return "is only git-lfs's pointer to the weights; run `git lfs pull`"
    if text.startswith(PAGES):
        return (
            "is a web page, not weights: the site may have asked to log in; "
            "download it again in a browser, or with an access token"
        )
    if text[:1] in (b"{", b"[") and text.isascii() and b"\0" not in text:
        return "is JSON text, not weights: perhaps a site's error; download it again"
    kind = next((name for begin, name in ARCHIVES.items() if first.startswith(begin)), None)
    if kind is None and first[257:262] == b"ustar":
        kind = "tar"
    if kind is None or (kind == "zip" and not is_zipfile(file)):
        return None
    if kind == "zip" and _is_torch(file):
        if file.suffix == ".safetensors":
            return "is torch's own format under the name of another; rename it to .ckpt"
        return None
    return f"is a {kind} archive, not weights; unpack it, and give the file inside"


def _is_torch(file: Path) -> bool:
    with ZipFile(file) as content:
        return any(name.endswith("/data.pkl") for name in content.namelist())
