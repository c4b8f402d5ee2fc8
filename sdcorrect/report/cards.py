"""What a page shows for each picture: addresses of its copies, and facts from its records."""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from sdcorrect.errors import PictureError, UsageError, listed, printable
from sdcorrect.output.folder import State
from sdcorrect.output.records import Done
from sdcorrect.report.copies import Copies, Copy
from sdcorrect.report.gallery import Gallery, GalleryPicture, VariantOutput

#: The largest page that Chromium opens, bytes.
MAX_EMBEDDED = 500_000_000


@dataclass(frozen=True)
class Shown:
    """The addresses of a picture, or the reason why it is not shown."""

    full: str | None = None
    thumbnail: str | None = None
    problem: str | None = None


@dataclass(frozen=True)
class Side:
    """One variant of a picture."""

    state: State
    picture: Shown
    seconds: float | None
    scores: tuple[float | None, ...]


@dataclass(frozen=True)
class Card:
    """One picture of the job, in the form that the page's script reads."""

    name: str
    prompt: str
    seeds: tuple[int, ...]
    size: tuple[int, int] | None
    source: Shown
    sides: tuple[Side, ...]  #: in the order of the gallery's variants


class Cards:
    """Makes the cards of a gallery for a page in the folder `beside`; with `embed`, in any folder."""

    def __init__(self, gallery: Gallery, beside: Path, *, embed: bool) -> None:
        self.gallery = gallery
        self.beside = beside
        self.embed = embed
        self.copies = Copies(gallery.out, gallery.job_file.job)

    def __iter__(self) -> Iterator[Card]:
        """Yield the cards in order, and make copies on the way.

        Raises:
            SdcorrectError: the output folder cannot be written.
            UsageError: the embedded pictures are too large for a browser.
        """
        embedded = 0
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            try:
                for card in pool.map(self._card, self.gallery.entries):
                    if self.embed:
                        shown = [card.source, *(side.picture for side in card.sides)]
                        embedded += sum(len(picture.full or "") for picture in shown)
                        if embedded > MAX_EMBEDDED:
                            raise UsageError(
                                f"--embed: the pictures exceed {MAX_EMBEDDED / 1e6:.0f} MB, more than "
                                "browsers open as one page; give --limit, or remove --embed"
                            )
                    yield card
            finally:
                pool.shutdown(cancel_futures=True)

    def _card(self, entry: GalleryPicture) -> Card:
        record = entry.record
        return Card(
            name=printable(entry.key),
            prompt=record.prompt if record else "",
            seeds=entry.seeds,
            size=record.size if record else None,
            source=self._source(entry),
            sides=tuple(map(self._side, entry.outputs.values())),
        )

    def _source(self, entry: GalleryPicture) -> Shown:
        if entry.sized is None:
            return Shown()
        try:
            return self._shown(self.copies.of_source(entry.source, entry.sized))
        except PictureError as error:
            return Shown(problem=str(error))

    def _side(self, output: VariantOutput) -> Side:
        record, state = output.record, output.state
        picture = Shown()
        if isinstance(record, Done) and state == "done":
            try:
                picture = self._shown(self.copies.of_output(record))
            except PictureError as error:
                state, picture = "missing", Shown(problem=f"its file {error}")
        elif state == "missing":
            picture = Shown(problem="its file is gone")
        elif record:
            picture = Shown(problem=record.error)
        return Side(state, picture, record.seconds if record else None, output.scores)

    def _shown(self, copy: Copy | None) -> Shown:
        if copy is None:
            return Shown(problem="is gone")
        if self.embed:
            return Shown(copy.embedded())
        return Shown(self._address(copy.full), self._address(copy.thumbnail))

    def _address(self, file: Path) -> str:
        return quote(os.fsencode(os.path.relpath(file, self.beside)))


def problems(cards: Sequence[Card], variants: Sequence[str]) -> Iterator[tuple[str, str, str]]:
    """For each picture that is not shown: its name, the variants and the reason."""
    for card in cards:
        reasons: dict[str, list[str]] = {}
        for variant, side in zip(variants, card.sides, strict=True):
            if side.picture.problem:
                reasons.setdefault(side.picture.problem, []).append(variant)
        for reason, among in reasons.items():
            yield card.name, ", ".join(among), reason


def lost_sources(cards: Sequence[Card]) -> list[str]:
    """One line per reason why sources are not shown."""
    reasons: dict[str, list[str]] = {}
    for card in cards:
        if card.source.problem:
            reasons.setdefault(card.source.problem, []).append(card.name)
    return [f"source {reason}: {listed(names)}" for reason, names in reasons.items()]


def counts(cards: Sequence[Card], variant: int) -> Counter[State]:
    return Counter(card.sides[variant].state for card in cards)
