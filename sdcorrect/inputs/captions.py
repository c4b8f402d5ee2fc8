"""What stands in a prompt for {caption}, {class} and {stem}."""

import csv
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from posixpath import basename
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from sdcorrect.config import Input, placeholders
from sdcorrect.errors import PictureError, UsageError, printable
from sdcorrect.inputs.files import read_regular

MOST_BYTES = 1 << 20  #: of a picture's own caption


class PromptFiller:
    """Fills prompt templates for one picture after the other.

    Raises:
        UsageError: the captions or class names that the job points to cannot be read.
    """

    def __init__(self, settings: Input) -> None:
        self._captions_file = settings.captions
        self._classes_file = settings.classes
        self._captions = read_coco(settings.captions) if settings.captions else {}
        self._classes = read_classes(settings.classes) if settings.classes else {}
        self._finders: dict[str, Callable[[Path, str], str]] = {
            "caption": self._caption,
            "class": self._class,
            "stem": lambda source, _: source.stem,
        }

    def fill(self, template: str, source: Path, key: str) -> str:
        """`template` for the picture `source`, which the job knows as `key`.

        Raises:
            PictureError: what the template asks for is not there, or is no text.
        """
        words = {name: self._finders[name](source, key) for name in placeholders(template)}
        prompt = template.format(**words)
        if any("\ud800" <= character <= "\udfff" for character in prompt):
            raise PictureError(f"its prompt {printable(prompt)} holds bytes that are not UTF-8 text")
        return prompt

    def _caption(self, source: Path, key: str) -> str:
        if self._captions_file:
            caption = self._captions.get(key) or self._captions.get(basename(key))
            place = f"in {printable(self._captions_file)}"
        else:
            caption = _caption_beside(source)
            place = f"beside it, in {printable(source.with_suffix('.txt').name)}"
        if not caption:
            raise PictureError(f"the prompt needs a {{caption}}, and there is none {place}")
        return caption

    def _class(self, source: Path, key: str) -> str:
        folder = source.absolute().parent.name
        if not self._classes_file:
            return folder
        if folder not in self._classes:
            file = printable(self._classes_file)
            raise PictureError(f"its folder {printable(folder)} has no name for {{class}} in {file}")
        return self._classes[folder]


def _caption_beside(source: Path) -> str | None:
    file = source.with_suffix(".txt")
    try:
        return " ".join(read_regular(file, MOST_BYTES).decode("utf-8-sig").split())
    except FileNotFoundError:
        return None
    except UnicodeDecodeError:
        raise PictureError(f"its caption {printable(file.name)} is not UTF-8 text") from None
    except OSError as error:
        raise PictureError(
            f"its caption {printable(file.name)} cannot be read: {error.strerror}"
        ) from None


class _CocoImage(BaseModel):
    id: int | str
    file_name: str


class _CocoAnnotation(BaseModel):
    image_id: int | str
    caption: str


class _Coco(BaseModel):
    images: list[_CocoImage]
    annotations: list[_CocoAnnotation]


def read_coco(file: Path) -> dict[str, str]:
    """The first caption of each picture, by its `file_name`, from a COCO captions file.

    Raises:
        UsageError: it cannot be read or is no such file.
    """
    try:
        coco = _Coco.model_validate_json(_read(file))
    except ValidationError as errors:
        error = errors.errors()[0]
        where = ".".join(map(str, error["loc"])) or "as a whole"
        raise UsageError(f"{printable(file)}: not COCO captions: {where}: {error['msg']}") from None
    first: dict[int | str, str] = {}
    for annotation in coco.annotations:
        first.setdefault(annotation.image_id, " ".join(annotation.caption.split()))
    return {image.file_name: first[image.id] for image in coco.images if image.id in first}


def read_classes(file: Path) -> dict[str, str]:
    """The first name of each class, by its folder (`n01440764` -> `tench`).

    A .json or .yaml mapping, a .csv of two columns, or lines such as `n01440764 tench, Tinca tinca`.

    Raises:
        UsageError: it cannot be read or is no such table; the message names the line.
    """
    text = _read(file)
    suffix = file.suffix.lower()
    try:
        if suffix == ".json":
            names = json.loads(text)
        elif suffix in {".yaml", ".yml"}:
            # all of it text: folders are called 001 or no
            names = yaml.load(text, Loader=yaml.BaseLoader)
        else:
            rows = csv.reader(text.splitlines()) if suffix == ".csv" else _words(text)
            names = dict(_pairs(file, rows))
    except (ValueError, yaml.YAMLError, csv.Error) as error:
        reason = " ".join(str(error).split())
        raise UsageError(f"{printable(file)}: cannot read the class names: {reason}") from None
    if not isinstance(names, dict) or not names:
        raise UsageError(f"{printable(file)}: no class names; expected lines such as `n01440764 tench`")
    return {folder: _first_name(file, folder, name) for folder, name in names.items()}


def _words(text: str) -> Iterable[list[str]]:
    return (line.split(maxsplit=1) for line in text.splitlines())


def _pairs(file: Path, rows: Iterable[list[str]]) -> Iterable[tuple[str, str]]:
    for number, row in enumerate(rows, 1):
        if len(row) == 1:
            raise UsageError(f"{printable(file)}:{number}: expected folder and name, found {row[0]!r}")
        if row:
            yield row[0], row[1]


def _first_name(file: Path, folder: str, names: Any) -> str:
    first = names[0] if isinstance(names, list) and names else names
    if not isinstance(first, str) or not first.strip():
        raise UsageError(f"{printable(file)}: the name of {folder} should be text, found {names!r}")
    return first.split(",")[0].strip()


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UsageError(f"{printable(file)}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UsageError(f"{printable(file)}: cannot be read: it is not UTF-8 text") from None
