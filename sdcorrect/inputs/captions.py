"""Fill in {caption}, {class}, {stem} and {parameters} in prompts."""

import csv
import os
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

from pydantic import BaseModel, ValidationError

from sdcorrect.config import Input, placeholders
from sdcorrect.core.syntax import check_networks, without_networks
from sdcorrect.errors import PictureError, UsageError, listed, of_pydantic, one_line, printable
from sdcorrect.inputs.parameters import prompts_in
from sdcorrect.inputs.tables import csv_rows, read_json, read_text
from sdcorrect.plainyaml import MOST_BYTES, NotPlain, read_yaml
from sdcorrect.reading import decode, read_bytes
from sdcorrect.settings import Lora

MOST_CAPTION_BYTES = 1 << 16


class PromptFiller:
    """Fills prompt templates, picture by picture.

    Args:
        loras: those of the job, which the web UIs' text of a picture may name.

    Raises:
        UsageError: the job's captions or class names cannot be read.
    """

    def __init__(self, settings: Input, loras: Sequence[Lora] = ()) -> None:
        self._captions_file = settings.captions
        self._classes_file = settings.classes
        self._captions = read_coco(settings.captions) if settings.captions else Captions({})
        self._classes = read_classes(settings.classes) if settings.classes else {}
        self._finders: dict[str, Callable[[Path, str], str]] = {
            "caption": self._caption,
            "class": self._class,
            "stem": lambda source, _: source.stem,
            "parameters": lambda source, _: self._prompt_within(source),
        }
        self._loras = {Path(lora.path).stem for lora in loras}
        self._prompts_in = lru_cache(1)(prompts_in)  # asked for each of a picture's prompts

    def fill(self, template: str, source: Path, key: str, *, negative: bool = False) -> str:
        """Fill in `template` for the picture `source`, whose key in the job is `key`.

        Args:
            negative: whether it is a negative prompt; {parameters} is then the picture's own.

        Raises:
            PictureError: a caption or class name is missing, is not text, or names a LoRA that the job
                does not load.
        """
        finders = dict(self._finders)
        if negative:
            finders["parameters"] = lambda source, _: self._negative_prompt_within(source)
        words = {name: finders[name](source, key) for name in placeholders(template)}
        prompt = self._without_loras(template.format(**words))
        if any("\ud800" <= character <= "\udfff" for character in prompt):
            raise PictureError(f"its prompt {printable(prompt)} contains bytes that are not UTF-8 text")
        return prompt

    def _caption(self, source: Path, key: str) -> str:
        if self._captions_file:
            caption = self._captions.of(source, key)
            place = f"in {printable(self._captions_file)}"
        else:
            caption = _caption_beside(source)
            place = f"beside it, in {printable(source.with_suffix('.txt').name)}"
        caption = caption and self._without_loras(caption)
        if not caption:
            raise PictureError(f"the prompt needs a {{caption}}, but there is none {place}")
        return caption

    def _class(self, source: Path, key: str) -> str:
        folder = source.absolute().parent.name
        if not self._classes_file:
            return folder
        name = self._classes.get(composed(folder))
        if name is None:
            file = printable(self._classes_file)
            raise PictureError(f"its folder {printable(folder)} has no name for {{class}} in {file}")
        return name

    def _prompt_within(self, source: Path) -> str:
        prompt = self._without_loras(self._prompts_in(source).prompt)
        if not prompt:
            raise PictureError("the prompt needs {parameters}, and those within it have no prompt")
        return prompt

    def _negative_prompt_within(self, source: Path) -> str:
        return self._prompts_in(source).negative_prompt

    def _without_loras(self, prompt: str) -> str:
        """`prompt` without the names of LoRAs that the job loads; it may name no others."""
        words = without_networks(prompt, self._loras)
        try:
            check_networks(words)
        except ValueError as error:
            raise PictureError(str(error)) from None
        return prompt if words == prompt else words.strip()


def _caption_beside(source: Path) -> str | None:
    file = source.with_suffix(".txt")
    try:
        return " ".join(decode(read_bytes(file, MOST_CAPTION_BYTES)).split())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise PictureError(
            f"its caption {printable(file.name)} cannot be read: {error.strerror}"
        ) from None
    except ValueError:
        raise PictureError(f"its caption {printable(file.name)} is not UTF-8 text") from None


def composed(name: str) -> str:
    """`name` in Unicode form NFC, because file systems and tables differ in the form they use."""
    return unicodedata.normalize("NFC", name)


class Captions:
    """Captions by the paths of pictures in a captions file."""

    def __init__(self, captions: dict[str, str]) -> None:
        self._by_name: dict[str, list[tuple[tuple[str, ...], str]]] = {}
        for path, caption in captions.items():
            if parts := _parts(path):
                self._by_name.setdefault(parts[-1], []).append((parts, caption))

    def of(self, source: Path, key: str) -> str | None:
        """The caption whose path shares the most folders with the picture's, or None.

        Either path may begin with more folders than the other (below the input folder), but no folder
        may differ.

        Raises:
            PictureError: two paths match equally well, and their captions differ.
        """
        own, below = _parts(os.path.abspath(source)), len(_parts(key))
        found: dict[int, dict[str, str]] = {}
        for parts, caption in self._by_name.get(own[-1], ()):
            common = _common_end(parts, own)
            if common == len(parts) or common >= below:
                found.setdefault(common, {})[caption] = "/".join(parts)
        if not found:
            return None
        best = found[max(found)]
        if len(best) > 1:
            raise PictureError(f"several captions match its name: {listed([*best.values()])}")
        return next(iter(best))


def _parts(path: str) -> tuple[str, ...]:
    return PurePosixPath(composed(os.path.normpath(path))).parts


def _common_end(first: tuple[str, ...], second: tuple[str, ...]) -> int:
    """How many parts two paths share at their ends."""
    pairs = zip(reversed(first), reversed(second), strict=False)
    return next(
        (n for n, (one, other) in enumerate(pairs) if one != other), min(len(first), len(second))
    )


class _CocoImage(BaseModel):
    id: int | str
    file_name: str


class _CocoAnnotation(BaseModel):
    image_id: int | str
    caption: str


class _Coco(BaseModel):
    images: list[_CocoImage]
    annotations: list[_CocoAnnotation]


def read_coco(file: Path) -> Captions:
    """The first caption of each picture from a COCO captions file.

    Raises:
        UsageError: it cannot be read, is not such a file, or has two captions for one `file_name`.
    """
    try:
        coco = _Coco.model_validate(read_json(read_text(file)))
    except ValidationError as errors:
        error = errors.errors()[0]
        where = ".".join(map(str, error["loc"])) or "as a whole"
        raise UsageError(
            f"{printable(file)}: not COCO captions: {where}: {of_pydantic(error['msg'])}"
        ) from None
    except ValueError as error:
        raise UsageError(f"{printable(file)}: not COCO captions: {error}") from None
    # some programs write ids as numbers, others as text
    first: dict[str, str] = {}
    for annotation in coco.annotations:
        first.setdefault(str(annotation.image_id), " ".join(annotation.caption.split()))
    captions: dict[str, str] = {}
    for image in coco.images:
        caption = first.get(str(image.id))
        if caption is not None and captions.setdefault(image.file_name, caption) != caption:
            name = printable(image.file_name)
            raise UsageError(f"{printable(file)}: {name} is listed twice, with different captions")
    return Captions(captions)


def read_classes(file: Path) -> dict[str, str]:
    """The first name of each class, by its folder (`n01440764` -> `tench`).

    Reads a .json or .yaml mapping, a .csv with two columns, or lines such as
    `n01440764 tench, Tinca tinca`.

    Raises:
        UsageError: it cannot be read or is not such a table; the message names the line.
    """
    suffix = file.suffix.lower()
    text = read_text(file, MOST_BYTES if suffix in {".yaml", ".yml"} else None)
    try:
        if suffix == ".json":
            names = read_json(text)
        elif suffix in {".yaml", ".yml"}:
            # untyped, because folders may be called 001 or no
            names, _ = read_yaml(text, typed=False)
        else:
            names = _table(file, csv_rows(text) if suffix == ".csv" else _words(text))
    except NotPlain as error:
        raise UsageError(f"{printable(file)}:{error.line}: {error}") from None
    except (ValueError, csv.Error) as error:
        raise UsageError(f"{printable(file)}: cannot read the class names: {one_line(error)}") from None
    if not isinstance(names, dict) or not names:
        raise UsageError(f"{printable(file)}: no class names; expected lines such as `n01440764 tench`")
    return {composed(folder): _first_name(file, folder, name) for folder, name in names.items()}


def _words(text: str) -> Iterator[tuple[int, list[str]]]:
    for number, line in enumerate(text.split("\n"), 1):
        if words := line.split(maxsplit=1):
            yield number, words


def _table(file: Path, rows: Iterable[tuple[int, list[str]]]) -> dict[str, str]:
    names: dict[str, str] = {}
    for number, row in rows:
        if len(row) == 1:
            raise UsageError(f"{printable(file)}:{number}: expected folder and name, found {row[0]!r}")
        if names.setdefault(row[0], row[1]) != row[1]:
            raise UsageError(
                f"{printable(file)}:{number}: {printable(row[0])} is listed twice, with different names"
            )
    return names


def _first_name(file: Path, folder: str, names: Any) -> str:
    first = names[0] if isinstance(names, list) and names else names
    if not isinstance(first, str) or not first.strip():
        raise UsageError(f"{printable(file)}: the name of {folder} should be text; found {names!r}")
    return first.split(",")[0].strip()
