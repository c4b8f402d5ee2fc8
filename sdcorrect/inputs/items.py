"""Find the pictures of a job, with the prompts, seed and output path of each."""

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Set
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from posixpath import normpath, splitext

from sdcorrect.config import Job, placeholders
from sdcorrect.config.job import BENCHMARK_SUFFIXES
from sdcorrect.errors import PictureError, UsageError, near_path, printable
from sdcorrect.inputs.benchmarks import read_benchmark
from sdcorrect.inputs.captions import PromptFiller
from sdcorrect.inputs.left_out import LeftOut
from sdcorrect.inputs.lists import ListRow, read_list
from sdcorrect.inputs.names import SUFFIXES, output_names
from sdcorrect.inputs.sniff import is_picture
from sdcorrect.inputs.walk import ANYWHERE, HERE, is_within, split_pattern, walk
from sdcorrect.settings import ALPHA, CANNY, WORDS

#: The row of a picture that is not from a list: its key is its path, and the rest is the job's.
NOTHING_ASKED = ListRow.model_construct(path="")


@dataclass(frozen=True, slots=True)
class Item:
    """One picture of a job, and how to translate it."""

    source: Path
    key: str  #: its path relative to the input folder; names it in records and decides its shard
    output: Path  #: relative to a variant's folder
    prompt: str
    negative_prompt: str
    source_prompt: str | None = None  #: what the picture shows, if the job says so
    seed: int | None = None  #: if the job's list gives one
    mask_words: str | None = None  #: with mask: words
    problem: str | None = None  #: why it must fail, whatever its file contains: a missing caption, ...


def seed_of(item: Item, sha256: str, job_seed: int) -> int:
    """The picture's own seed, from its content and the job's seed, so that no two share their noise."""
    if item.seed is not None:
        return item.seed
    digest = hashlib.sha256(f"{job_seed} {sha256}".encode()).digest()
    return int.from_bytes(digest[:4], "big")


class Found:
    """The pictures of a job, and notices of what was left out among them.

    The names of outputs depend neither on `limit` nor on the shard, so all pictures are named; prompts
    and captions are read only for the items that are requested.
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
        """The paths of the outputs, relative to a variant's folder."""
        return {normpath(self._outputs[key]) for key in self.keys}

    def part(self, has: Callable[[str], bool]) -> list[Item]:
        """The items whose keys satisfy `has`."""
        return [self._item(key, self._rows[key]) for key in self.keys if has(key)]

    def _item(self, key: str, row: ListRow) -> Item:
        job, source = self._job, self._folder / (row.path or key)
        prompt = row.prompt or job.prompt
        negative_prompt = job.negative_prompt if row.negative_prompt is None else row.negative_prompt
        source_prompt = job.source_prompt if row.source_prompt is None else row.source_prompt
        mask_words = (row.mask_words or job.mask_words) if job.mask == WORDS else None
        problem = None if prompt else "neither the list nor the job gives it a prompt"
        if job.mask == WORDS and not mask_words:
            problem = "neither the list nor the job gives it mask_words"
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
    """The items of `find`, without its notices."""
    return find(job).items


def find(job: Job) -> Found:
    """The pictures that `job` covers: those of a list in its order, others sorted by path.

    Raises:
        UsageError: the input does not exist or has no pictures, a list, caption or class file cannot
            be read, or an output would leave the output folder or replace an input.
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
    """Refuse pictures with seeds of their own in a sweep over seeds, which they would not follow."""
    own = next((key for key, row in rows.items() if row.seed is not None), None)
    if own is not None and isinstance(job.seed, tuple):
        raise UsageError(
            f"input {printable(job.input.path)}: gives {printable(own)} the seed {rows[own].seed}, and "
            "the job sweeps over seeds; take the seeds out of the list, or give the job one seed"
        )


def _as_format(output: str, job: Job) -> str:
    """An output path from a list, with the suffix of the job's format."""
    suffix = splitext(output)[1].lower()
    if suffix == f".{job.output.format}":
        return output
    if suffix in SUFFIXES:
        raise UsageError(
            f"output {printable(output)}: the job writes {job.output.format}; use that suffix or none"
        )
    return f"{output}.{job.output.format}"


def _rows(job: Job, left_out: LeftOut) -> tuple[Path, dict[str, ListRow]]:
    """The folder that paths are relative to, and the row of each picture by key."""
    path = job.input.path
    if os.path.isdir(path):
        return path, _walked(job, path, ANYWHERE if job.input.recursive else HERE, left_out)
    if os.path.lexists(path):
        if job.input.is_list:
            is_benchmark = path.suffix.lower() in BENCHMARK_SUFFIXES
            folder, rows = read_benchmark(path) if is_benchmark else (path.parent, read_list(path))
            return folder, _by_key(path, folder, rows)
        return path.parent, {path.name: NOTHING_ASKED}
    if found := split_pattern(path):
        folder, pattern = found
        return folder, _walked(job, folder, pattern, left_out)
    hint = near_path(
        path,
        "give a folder of pictures, a picture, a pattern such as 'pictures/**/*.jpg', a list (.txt, "
        ".csv, .jsonl), or a benchmark's list (.json, .yaml)",
    )
    raise UsageError(f"input {printable(path)}: there is no such folder or file; {hint}")


def _walked(job: Job, folder: Path, pattern: tuple[str, ...], left_out: LeftOut) -> dict[str, ListRow]:
    companions = [Path(network.hint) for network in job.controlnets if network.hint != CANNY]
    companions += [Path(job.mask)] if job.mask and job.mask not in (ALPHA, WORDS) else []
    files = sorted(walk(folder, pattern, job.output.path, companions, left_out))
    rows = dict.fromkeys((f for f in files if is_picture(os.path.join(folder, f))), NOTHING_ASKED)
    left_out.files = _unread(job, folder, (file for file in files if file not in rows), rows)
    if not rows:
        why = f"none of its {len(files)} files is a picture" if files else "it has no files"
        told = "".join(f"; {line}" for line in left_out.told())
        raise UsageError(f"input {printable(job.input.path)}: {why}; give a folder of pictures{told}")
    return rows


def _unread(job: Job, folder: Path, files: Iterable[str], rows: Collection[str]) -> list[str]:
    """Those of `files` (not pictures) that the job does not read as captions or class names."""
    given = {os.path.abspath(path) for path in (job.input.captions, job.input.classes) if path}
    templates = (job.prompt, job.negative_prompt, job.source_prompt or "")
    beside = not job.input.captions and any("caption" in placeholders(text) for text in templates)
    captions = {f"{splitext(key)[0]}.txt" for key in rows} if beside else set()
    return [f for f in files if f not in captions and os.path.abspath(folder / f) not in given]


def _by_key(file: Path, parent: Path, rows: list[ListRow]) -> dict[str, ListRow]:
    """The rows by their path relative to `parent`; `#n` is appended for the n-th row with a path."""
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
                f"input {printable(file)}: {printable(path)} is listed {times[path]} times, but "
                f"{printable(key)}, its name in the records, is another picture's; rename one"
            )
        keyed[key] = row
    return keyed


def _check_places(job: Job, outputs: Iterable[str], sources: Iterable[str]) -> None:
    """Refuse outputs that links lead out of the output folder, and inputs among the outputs."""
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
                f"input {printable(folder)} contains outputs of this job; choose another output folder"
            )
