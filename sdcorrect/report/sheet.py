"""A contact sheet: all sources and their variants in one picture."""

import io
import math
from pathlib import Path

import matplotlib
from PIL import Image, ImageDraw, ImageFont, ImageOps

from sdcorrect.errors import PictureError, UsageError, printable
from sdcorrect.inputs.pictures import read_image
from sdcorrect.output.files import write_atomically
from sdcorrect.output.records import Done
from sdcorrect.report.copies import Copies, Copy
from sdcorrect.report.gallery import STATES, Gallery, GalleryPicture

TILE, GAP, MARGIN, LINE = 160, 6, 20, 24  #: px; LINE is the height of a line of text
MAX_PIXELS = 80_000_000  #: of a sheet; Pillow warns of larger pictures
INK, MUTED, PAPER, EMPTY = "#1c1f24", "#626871", "#ffffff", "#eceef1"


def write_sheet(gallery: Gallery, file: Path, columns: int | None = None) -> None:
    """Write a PNG of all pictures, each beside its variants, with `columns` pictures per row.

    Raises:
        UsageError: it would be too large.
        SdcorrectError: it cannot be written.
    """
    sheet = draw_sheet(gallery, columns)
    temporary = file.with_suffix(".tmp")
    content = io.BytesIO()
    sheet.save(content, "PNG")
    write_atomically(file, content.getvalue(), temporary=temporary)


def draw_sheet(gallery: Gallery, columns: int | None = None) -> Image.Image:
    """Draw the sheet, RGB; by default about as wide as it is high.

    Raises:
        UsageError: it would be too large.
    """
    tiles = 1 + len(gallery.variants)
    width, height = tiles * (TILE + GAP) - GAP + MARGIN, TILE + LINE + GAP
    count = len(gallery.entries)
    columns = min(columns or max(1, round(math.sqrt(count * height / width))), count)
    rows = math.ceil(count / columns)
    size = columns * width + MARGIN, rows * height + LINE + 2 * MARGIN
    if size[0] * size[1] > MAX_PIXELS:
        raise UsageError(
            f"--grid: a sheet of {count} pictures would be {size[0]}x{size[1]} px; give --limit"
        )
    sheet = Image.new("RGB", size, PAPER)
    pen = _Pen(sheet)
    copies = Copies(gallery.out, gallery.job_file.job)
    for column in range(columns):
        for tile, label in enumerate(("source", *gallery.labels)):
            left = MARGIN + column * width + tile * (TILE + GAP)
            pen.write((left, MARGIN), label, MUTED)
    for index, entry in enumerate(gallery.entries):
        row, column = divmod(index, columns)
        left, top = MARGIN + column * width, MARGIN + LINE + row * height
        for tile, picture in enumerate(_pictures(entry, copies)):
            place = left + tile * (TILE + GAP), top
            if isinstance(picture, str):
                pen.note(place, picture)
            else:
                sheet.paste(picture, place)
        pen.write((left, top + TILE + 2), printable(entry.key), INK, width - MARGIN)
    return sheet


def _pictures(entry: GalleryPicture, copies: Copies) -> list[Image.Image | str]:
    """The tiles of the source and of each variant, or a word that says why there is none."""
    found: list[Image.Image | str] = []
    try:
        known = copies.of_source(entry.source, entry.sized) if entry.sized else None
        found.append(_tile(known) if known else "no source")
    except PictureError:
        found.append("no source")
    for output in entry.outputs.values():
        try:
            if isinstance(output.record, Done) and output.state == "done":
                found.append(_tile(copies.of_output(output.record)))
            else:
                found.append(STATES[output.state])
        except PictureError:
            found.append(STATES["missing"])
    return found


def _tile(copy: Copy) -> Image.Image:
    image, _ = read_image(copy.thumbnail, copy.limits)
    return ImageOps.pad(image, (TILE, TILE), Image.Resampling.LANCZOS, color=PAPER)


class _Pen:
    def __init__(self, sheet: Image.Image) -> None:
        self.draw = ImageDraw.Draw(sheet)
        # it covers more scripts than Pillow's own font
        file = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
        self.font = ImageFont.truetype(file, 13)

    def write(self, place: tuple[int, int], text: str, fill: str, width: int = TILE) -> None:
        """Write one line, with an ellipsis if it is longer than `width` px."""
        text = shown = text[:width]  # every letter is at least a pixel wide
        while self.font.getlength(shown) > width:
            text = text[:-1]
            shown = f"{text}…"
        self.draw.text(place, shown, fill, self.font)

    def note(self, place: tuple[int, int], text: str) -> None:
        left, top = place
        self.draw.rectangle((left, top, left + TILE - 1, top + TILE - 1), EMPTY)
        middle = left + TILE // 2, top + TILE // 2
        self.draw.text(middle, text, MUTED, self.font, anchor="mm")
