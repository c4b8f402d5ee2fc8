"""Which pictures a job has, and what is asked of each: its prompts, its seed and its output's name."""

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Set
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from posixpath import normpath, splitext

from sdcorrect.config import BENCHMARK_SUFFIXES, LIST_SUFFIXES, Job, placeholders
from sdcorrect.errors import PictureError, UsageError, printable
from sdcorrect.inputs.benchmarks import read_benchmark
from sdcorrect.inputs.captions import PromptFiller
from sdcorrect.inputs.left_out import LeftOut
from sdcorrect.inputs.lists import ListRow, read_list
from sdcorrect.inputs.names import SUFFIXES, output_names
from sdcorrect.inputs.sniff import is_picture
from sdcorrect.inputs.walk import ANYWHERE, HERE, is_within, split_pattern, walk
from sdcorrect.settings import ALPHA, CANNY, WORDS

#: The row of a picture that no list names: its key is its path, and all else is the job's.
NOTHING_ASKED = ListRow.model_construct(path="")


@dataclass(frozen=True, slots=True)
class Item:
    """One picture of a job, and what is asked of it."""

    source: Path
    key: str  #: names it in the records and decides its shard: its path relative to the input folder
    output: Path  #: where it goes below a variant's folder
    prompt: str
    negative_prompt: str
    source_prompt: str | None = None  #: what the picture shows before, where the job says
    seed: int | None = None  #: where the job's list gives one
    mask_words: str | None = None  #: where their attention is to make the mask
    problem: str | None = None  #: why it fails whatever its file holds, such as a caption missing


def seed_of(item: Item, sha256: str, job_seed: int) -> int:
    """The picture's own seed, of its content and the job's seed: no two share their noise."""
    if item.seed is not None:
        return item.seed
    digest = hashlib.sha256(f"{job_seed} {sha256}".encode()).digest()
    return int.from_bytes(digest[:4], "big")


class Found:
    """The pictures of a job, and what is to be told of what lies among them.

    What a picture is called depends neither on `limit` nor on the shard, so all have names; what is
    asked of one, its caption read with it, is put together for those that are wanted.
    """

    def __init__(
        self,
        job: Job,
        folder: Path,
        rows: Mapping[str, ListRow],
        outputs: Mapping[str, str],
        notices: tuple[str, ...],
    ) -> None:
        self._job = job
        self._folder = folder
        self._rows = rows
        self._outputs = outputs
        self._filler = PromptFiller(job.input, job.loras)
        self.notices = notices
        self.keys = list(rows)[: job.limit]

    @cached_property
    def items(self) -> list[Item]:
        return self.part(lambda _: True)

    @property
    def outputs(self) -> Set[str]:
        """Where the pictures go below a variant's folder."""
        return {normpath(self._outputs[key]) for key in self.keys}

    def part(self, has: Callable[[str], bool]) -> list[Item]:
        """The items of those keys that `has` holds true of."""
        return [self._item(key, self._rows[key]) for key in self.keys if has(key)]

    def _item(self, key: str, row: ListRow) -> Item:
        job, source = self._job, self._folder / (row.path or key)
        prompt = row.prompt or job.prompt
        negative_prompt = job.negative_prompt if row.negative_prompt is None else row.negative_prompt
        source_prompt = job.source_prompt if row.source_prompt is None else row.source_prompt
        mask_words = (row.mask_words or job.mask_words) if job.mask == WORDS else None
        problem = None if prompt else "the list gives it no prompt, nor does the job"
        if job.mask == WORDS and not mask_words:
            problem = "the list gives it no mask_words, nor does the job"
        try:
            prompt = self._filler.fill(prompt, source, key)
            negative_prompt = self._filler.fill(negative_prompt, source, key, negative=True)
            source_prompt = source_prompt and self._filler.fill(source_prompt, source, key)
            mask_words = mask_words and self._filler.fill(mask_words, source, key)
        except PictureError as error:
            problem = str(error)
        asked = prompt, negative_prompt, source_prompt, row.seed, mask_words
        return Item(source, key, Path(self._outputs[key]), *asked, problem)


def find_items(job: Job) -> list[Item]:
    """The items of `find`, where nobody is to be told of the rest."""
    return find(job).items


def find(job: Job) -> Found:
    """The pictures that `job` covers: those of a list in its order, all others sorted by path.

    Raises:
        UsageError: there is no such input, no picture in it, a list, caption or class file that
            cannot be read, or an output that would leave the output folder or replace an input.
    """
    left_out = LeftOut()
    folder, rows = _rows(job, left_out)
    given = {key: _as_format(row.output, job) for key, row in rows.items() if row.output}
    _check_seeds(job, rows)
    outputs = output_names(rows, job.output.format, given)
    _check_places(
        job, outputs.values(), (os.path.join(folder, row.path or key) for key, row in rows.items())
    )
    return Found(job, folder, rows, outputs, left_out.told())


def _check_seeds(job: Job, rows: Mapping[str, ListRow]) -> None:
    """Refuse a picture that has a seed of its own in a sweep over seeds, which it would not follow."""
    own = next((key for key, row in rows.items() if row.seed is not None), None)
    if own is not None and isinstance(job.seed, tuple):
        raise UsageError(
            f"input {printable(job.input.path)}: gives {printable(own)} the seed {rows[own].seed}, and "
            "the job sweeps over seeds; take the seeds out of the list, or give the job one seed"
        )


def _as_format(output: str, job: Job) -> str:
    """An output that a list gives, with the suffix of the job's format."""
    suffix = splitext(output)[1].lower()
    if suffix == f".{job.output.format}":
        return output
    if suffix in SUFFIXES:
        raise UsageError(
            f"output {printable(output)}: the job writes {job.output.format}; give that suffix or none"
        )
    return f"{output}.{job.output.format}"


def _rows(job: Job, left_out: LeftOut) -> tuple[Path, dict[str, ListRow]]:
    """The folder that paths are relative to, and by key what is asked of each picture."""
    path = job.input.path
    if os.path.isdir(path):
        return path, _walked(job, path, ANYWHERE if job.input.recursive else HERE, left_out)
    if os.path.lexists(path):
        if path.suffix.lower() in LIST_SUFFIXES:
            is_benchmark = path.suffix.lower() in BENCHMARK_SUFFIXES
            folder, rows = read_benchmark(path) if is_benchmark else (path.parent, read_list(path))
            return folder, _by_key(path, folder, rows)
        return path.parent, {path.name: NOTHING_ASKED}
    if found := split_pattern(path):
        folder, pattern = found
        return folder, _walked(job, folder, pattern, left_out)
    raise UsageError(
        f"input {printable(path)}: there is no such folder or file; give a folder of pictures, a "
        "picture, a pattern such as 'pictures/**/*.jpg', a list (.txt, .csv, .jsonl), or that of a "
        "benchmark (.json, .yaml)"
    )


def _walked(job: Job, folder: Path, pattern: tuple[str, ...], left_out: LeftOut) -> dict[str, ListRow]:
    companions = [Path(network.hint) for network in job.controlnets if network.hint != CANNY]
    companions += [Path(job.mask)] if job.mask and job.mask not in (ALPHA, WORDS) else []
    files = sorted(walk(folder, pattern, job.output.path, companions, left_out))
    rows = dict.fromkeys((f for f in files if is_picture(os.path.join(folder, f))), NOTHING_ASKED)
    left_out.files = _unread(job, folder, (file for file in files if file not in rows), rows)
    if not rows:
        why = f"none of its {len(files)} files is a picture" if files else "there is no file"
        told = "".join(f"; {line}" for line in left_out.told())
        raise UsageError(f"input {printable(job.input.path)}: {why}; give a folder of pictures{told}")
    return rows


def _unread(job: Job, folder: Path, files: Iterable[str], rows: Collection[str]) -> list[str]:
    """Those of `files`, no pictures, that the job does not read as captions or names of classes."""
    given = {os.path.abspath(path) for path in (job.input.captions, job.input.classes) if path}
    templates = (job.prompt, job.negative_prompt, job.source_prompt or "")
    beside = not job.input.captions and any("caption" in placeholders(text) for text in templates)
    captions = {f"{splitext(key)[0]}.txt" for key in rows} if beside else set()
    return [f for f in files if f not in captions and os.path.abspath(folder / f) not in given]


def _by_key(file: Path, parent: Path, rows: list[ListRow]) -> dict[str, ListRow]:
    """The rows by their path relative to `parent`; the n-th of one path has `#n` after it."""
    if not rows:
        raise UsageError(f"input {printable(file)}: the list is empty")
    folder = f"{os.path.abspath(parent)}/"
    times: Counter[str] = Counter()
    keyed: dict[str, ListRow] = {}
    for row in rows:
        path = os.path.normpath(row.path).removeprefix(folder)
        times[path] += 1
        key = path if times[path] == 1 else f"{path}#{times[path]}"
        if key in keyed:
            raise UsageError(
                f"input {printable(file)}: {printable(path)} stands there {times[path]} times, and "
                f"{printable(key)}, its name in the records, is another picture's; rename one"
            )
        keyed[key] = row
    return keyed


def _check_places(job: Job, outputs: Iterable[str], sources: Iterable[str]) -> None:
    """Refuse outputs that a link would take out of the output folder, and inputs among them."""
    out = os.path.realpath(job.output.path)
    variants = [os.path.join(out, variant.name) for variant in job.expanded]
    subfolders = {os.path.dirname(output) for output in outputs}
    for folder in (os.path.join(variant, sub) for variant in variants for sub in subfolders):
        if not is_within(os.path.realpath(folder), out):
            raise UsageError(
                f"output {printable(folder)}: a link leads out of the output folder; remove it"
            )
    for folder in {os.path.dirname(source) for source in sources}:
        if any(is_within(os.path.realpath(folder), variant) for variant in variants):
            raise UsageError(
                f"input {printable(folder)} holds outputs of this job; choose another output folder"
            )
