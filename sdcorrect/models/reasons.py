"""Why a library could not load something, in words for those who wrote the job."""

import re
from pathlib import Path

from sdcorrect.models.hashes import files_below
from sdcorrect.models.tensors import SUFFIXES, read_shapes
from sdcorrect.models.variants import variant_of

#: Sentences of the libraries that advise programmers.
_ADVICE = re.compile(
    r"\w+ ?= ?(True|False|None)\b|stack ?trace|traceback|from_pretrained|from_single_file|`\w+\("
    r"|Please (load|make sure|check|open|pass|use)|pip install|torch\.load|weights_only"
    r"|local_files_only|huggingface",
    re.I,
)
_LONGEST = 200


def reason_of(error: BaseException) -> str:
    """What `error` says, on one line and without its advice for programmers."""
    text = " ".join(str(error).split())
    sentences = re.split(r"(?<=[.!?:]) (?=[A-Z])", text)
    kept = " ".join(sentence for sentence in sentences if not _ADVICE.search(sentence))
    return (kept or "a library could not read it")[:_LONGEST].rstrip(" .:")


def refuse_unreadable(what: str, path: Path, variant: str | None) -> None:
    """Of weights that could not be loaded, name the file that is cut short or holds code, if one is.

    The libraries say only that they failed, and how to load unsafely.

    Args:
        what: the weights are to the job; begins the message.
        path: a file, or a folder of diffusers' format.
        variant: of the folder's files, which was loaded.

    Raises:
        UsageError: there is such a file.
    """
    files = [path] if path.is_file() else sorted(files_below(path))
    for file in files:
        if file.suffix in SUFFIXES and (path.is_file() or variant_of(file.name) in ("", variant)):
            read_shapes(what, file)
