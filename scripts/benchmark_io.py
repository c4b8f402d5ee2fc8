"""Measure how fast photographs of 12 megapixels are read and written, by one thread and by several.

    python scripts/benchmark_io.py [--pictures N] [--rounds N] [--threads N]

JPEGs are read for a model of 512 px, decoded whole and no larger than that asks for; PNGs are written of
the same pixels at zlib's level 6 and `fast`. Each way in turn, in rounds; what is told are medians of
the ratios to the first way within a round: of wall time, and of CPU time, which other programs that run
beside leave alone.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from statistics import median
from typing import Literal

import numpy as np
from PIL import Image

from sdcorrect.batch.metadata import encode
from sdcorrect.batch.pipeline import Behind, ahead, count_threads
from sdcorrect.config import Input
from sdcorrect.inputs.decode import decode
from sdcorrect.inputs.items import Item
from sdcorrect.inputs.pictures import Sizing, read_picture
from sdcorrect.output.files import replace

SIDES = (4000, 3000)
SIZING = Sizing("fit", 512, 64)
SEED = 0


def photograph(random: np.random.Generator) -> Image.Image:
    """Shapes of all sizes, as photographs have them, and a sensor's noise."""
    levels = np.full((*SIDES[::-1], 3), 128.0, np.float32)
    for octave in range(2, 9):
        grid = random.normal(0, 25, (3 << octave, 4 << octave, 3))
        coarse = Image.fromarray((grid + 128).clip(0, 255).astype(np.uint8))
        levels += np.asarray(coarse.resize(SIDES, Image.Resampling.BICUBIC), np.float32) - 128
    levels += random.normal(0, 2, levels.shape).astype(np.float32)
    return Image.fromarray(levels.clip(0, 255).astype(np.uint8))


def reads(folder: Path, threads: int) -> dict[str, Callable[[], None]]:
    """The ways to read the JPEGs of `folder`."""
    limits = Input(path=folder)
    items = [Item(file, file.name, Path(file.name), "", "") for file in sorted(folder.glob("*.jpg"))]

    def whole(item: Item) -> None:
        SIZING.apply(decode(item.source.read_bytes(), limits).image)

    def small(item: Item) -> None:
        read_picture(item, SIZING, limits)

    def run(read: Callable[[Item], None], by: int) -> None:
        for _ in ahead(read, items, lambda: 2 * by, threads=by):
            pass

    return {
        "read whole, 1 thread": partial(run, whole, 1),
        "read, 1 thread": partial(run, small, 1),
        f"read, {threads} threads": partial(run, small, threads),
    }


def writes(folder: Path, images: list[Image.Image], threads: int) -> dict[str, Callable[[], None]]:
    """The ways to write `images` as PNGs into `folder`."""

    def save(file: Path, encoded: Callable[[], bytes]) -> None:
        replace(file, encoded(), temporary=file.with_suffix(".tmp"))

    def run(level: int | Literal["fast"], by: int) -> None:
        with Behind[None](by) as behind:
            for place, image in enumerate(images):
                behind.submit_in_parts(
                    partial(encode, image, "png", "a prompt", level),
                    partial(save, folder / f"{place}.png"),
                )
            for _ in behind.results():
                pass

    return {
        "written at level 6, 1 thread": partial(run, 6, 1),
        "written, 1 thread": partial(run, "fast", 1),
        f"written, {threads} threads": partial(run, "fast", threads),
    }


def tell(ways: Mapping[str, Callable[[], None]], pictures: int, rounds: int) -> None:
    wall: dict[str, list[float]] = {way: [] for way in ways}
    cpu: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(rounds):
        for way, run in ways.items():
            began, computed = time.perf_counter(), time.process_time()
            run()
            wall[way].append(time.perf_counter() - began)
            cpu[way].append(time.process_time() - computed)
    first = next(iter(ways))
    for way in ways:
        ratios = [median(a / b for a, b in zip(of[first], of[way], strict=True)) for of in (wall, cpu)]
        sys.stdout.write(
            f"{way:<30} {median(wall[way]) / pictures:7.3f} s a picture, "
            f"{median(cpu[way]) / pictures:7.3f} s of CPU; {ratios[0]:5.2f} times as fast, "
            f"by CPU time {ratios[1]:5.2f}\n"
        )
        sys.stdout.flush()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pictures", type=int, default=4, help="how many (default 4)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of each way (default 3)")
    parser.add_argument("--threads", type=int, default=count_threads(), help="as many as processors")
    arguments = parser.parse_args()
    random = np.random.default_rng(SEED)
    images = [photograph(random) for _ in range(arguments.pictures)]
    with tempfile.TemporaryDirectory() as folder:
        for place, image in enumerate(images):
            image.save(Path(folder, f"{place}.jpg"), quality=92)
        ways = reads(Path(folder), arguments.threads)
        tell(ways, len(images), arguments.rounds)
        tell(writes(Path(folder), images, arguments.threads), len(images), arguments.rounds)
    return 0


if __name__ == "__main__":
    sys.exit(main())
