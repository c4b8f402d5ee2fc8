"""Read the lists of pictures and prompts of public image-editing benchmarks."""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from posixpath import splitext
from typing import Annotated

from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from sdcorrect.config.load import read_yaml_file
from sdcorrect.errors import UsageError, of_pydantic, printable
from sdcorrect.inputs.lists import ListRow, row_of
from sdcorrect.inputs.pie_bench import PICTURES, read_annotations


def read_benchmark(file: Path) -> tuple[Path, list[ListRow]]:
    """The pictures of PIE-Bench's mapping file (.json) or of a TI2I benchmark (.yaml), and their folder.

    Raises:
        UsageError: it cannot be read, or is neither of these.
    """
    if file.suffix.lower() == ".json":
        pictures = file.parent / PICTURES
        return (pictures if pictures.is_dir() else file.parent), list(_of_pie_bench(file))
    return file.parent, list(_of_ti2i(file))


def _of_pie_bench(file: Path) -> Iterator[ListRow]:
    for number, annotation in enumerate(read_annotations(file), 1):
        words = annotation.blended_word.split()
        yield row_of(
            f"{printable(file)}: entry {number}",
            {
                "path": annotation.image_path,
                "prompt": _literal(annotation.editing_prompt),
                "source_prompt": _literal(annotation.original_prompt),
                "mask_words": _literal(words[0]) if words else None,
            },
        )


def _literal(prompt: str) -> str | None:
    """A prompt as a template: without the brackets that mark the edit, and with braces escaped."""
    plain = prompt.replace("[", "").replace("]", "").replace("{", "{{").replace("}", "}}")
    return " ".join(plain.split()) or None


class _Entry(BaseModel):
    """One picture of Wild-TI2I or ImageNet-R-TI2I (Tumanyan et al., CVPR 2023)."""

    init_img: str
    target_prompts: Annotated[list[str], Field(min_length=1)]
    source_prompt: str | None = None


def _of_ti2i(file: Path) -> Iterator[ListRow]:
    content, _ = read_yaml_file(file)
    try:
        entries = TypeAdapter(list[_Entry]).validate_python(content)
    except ValidationError as errors:
        raise UsageError(f"{printable(file)}: {_reason(errors)}") from None
    for number, entry in enumerate(entries, 1):
        path = _below(file.parent, entry.init_img)
        for nth, prompt in enumerate(entry.target_prompts, 1):
            asked = {
                "path": path,
                "prompt": _literal(prompt),
                "source_prompt": _literal(entry.source_prompt or ""),
                "output": f"{splitext(path)[0]}-{nth}",
            }
            yield row_of(f"{printable(file)}: entry {number}", asked)


def _reason(errors: ValidationError) -> str:
    error = errors.errors()[0]
    number, *key = (*error["loc"], "")[:2]
    if not isinstance(number, int):
        return (
            "expected a list of `- {init_img: data/bear.jpg, target_prompts: [a robot bear]}`; "
            "to run a job, give it with -c"
        )
    what = "is missing" if error["type"] == "missing" else of_pydantic(error["msg"])
    return f"entry {number + 1}: {''.join(map(str, key))} {what}"


def _below(folder: Path, init_img: str) -> str:
    """The path of a picture in `folder`: the benchmarks give paths on their authors' machines.

    Takes the longest tail of the path that exists, unchanged or in lower case; else the whole path.
    """
    parts = [part for part in PurePosixPath(init_img).parts if part not in {"/", ".", ".."}]
    tails = ["/".join(parts[n:]) for n in range(len(parts))]
    tries = [path for tail in tails for path in (tail, tail.lower(), f"data/{tail}")]
    return next((path for path in tries if (folder / path).is_file()), "/".join(parts))
