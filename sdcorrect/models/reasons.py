"""Turn a library's loading error into a reason that the author of a job can use."""

import re
from pickle import UnpicklingError

from diffusers.loaders.single_file_utils import SingleFileComponentError
from safetensors import SafetensorError

from sdcorrect.errors import one_line

#: What libraries raise for files that are broken, or that do not fit a model.
MISFITS = (
    *(AttributeError, EOFError, LookupError, OSError, RuntimeError, TypeError, ValueError),
    *(SafetensorError, SingleFileComponentError, UnpicklingError),
)

#: Sentences of libraries that advise programmers.
_ADVICE = re.compile(
    r"\w+ ?= ?(True|False|None)\b|stack ?trace|traceback|from_pretrained|from_single_file|`\w+\("
    r"|Please (load|make sure|check|open|pass|use)|pip install|torch\.load|weights_only"
    r"|local_files_only|huggingface",
    re.I,
)


def reason_of(error: BaseException) -> str:
    """The message of `error`, on one line and without advice for programmers."""
    text = one_line(error, None)
    sentences = re.split(r"(?<=[.!?:]) (?=[A-Z])", text)
    kept = " ".join(sentence for sentence in sentences if not _ADVICE.search(sentence))
    return one_line(kept.rstrip(" .:") or "a library could not read it")
