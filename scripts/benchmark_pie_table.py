"""PIE-Bench's table by editing type, with the published figures: benchmark_pie_table.py OUT MAPPING

Reads OUT/evaluation.csv, prints the table and writes it to OUT/table.md. The published figures cover all
700 pictures and use Stable Diffusion 1.4 (Plug-and-Play: 1.5); docs/pie-bench.md gives their source.
"""

import csv
import math
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from posixpath import splitext

from sdcorrect.errors import SdcorrectError
from sdcorrect.inputs.pie_bench import read_mapping

PUBLISHED = Path(__file__).with_name("pie_published.csv")
#: Metric -> its table heading, the factor it is multiplied by, and its decimals, as in the paper.
METRICS = {
    "structure_distance": ("structure x10^3", 1e3, 2),
    "psnr_unedited": ("PSNR, dB", 1, 2),
    "lpips_unedited": ("LPIPS x10^3", 1e3, 2),
    "mse_unedited": ("MSE x10^4", 1e4, 2),
    "ssim_unedited": ("SSIM x10^2", 1e2, 2),
    "clip_text": ("CLIP whole", 1, 2),
    "clip_text_edited": ("CLIP edited", 1, 2),
}
TYPES = {
    "0": "0 random",
    "1": "1 change object",
    "2": "2 add object",
    "3": "3 delete object",
    "4": "4 change content",
    "5": "5 change pose",
    "6": "6 change colour",
    "7": "7 change material",
    "8": "8 change background",
    "9": "9 change style",
}
ALL = "all"

Row = Mapping[str, str]


def by_type(rows: Sequence[Row], types: Mapping[str, str]) -> dict[tuple[str, str], list[Row]]:
    """The rows of evaluation.csv by editing type and recipe, with all types together last."""
    found: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in rows:
        kind = types[splitext(row["path"])[0]]
        for key in (TYPES.get(kind, kind), ALL):
            found[key, row["variant"]].append(row)
    return found


def mean(rows: Sequence[Row], metric: str) -> float | None:
    """The mean of the finite values; a picture with an empty region has none."""
    values = [float(row[metric]) for row in rows if row.get(metric)]
    finite = [value for value in values if math.isfinite(value)]
    if finite:
        return sum(finite) / len(finite)
    return values[0] if values else None


def cells(values: Mapping[str, float | None]) -> Iterator[str]:
    for metric, (_, factor, decimals) in METRICS.items():
        value = values.get(metric)
        yield "" if value is None else f"{value * factor:.{decimals}f}"


def table(rows: Sequence[Row], types: Mapping[str, str], published: Mapping[str, Row]) -> str:
    """A row for each editing type and recipe, with the published figures below those of all types."""
    found = by_type(rows, types)
    recipes = list(dict.fromkeys(row["variant"] for row in rows))
    heads = ["editing type", "recipe", "pictures", *(head for head, _, _ in METRICS.values())]
    lines = [heads, ["---"] * len(heads)]
    for kind in [*sorted({kind for kind, _ in found} - {ALL}), ALL]:
        for recipe in recipes:
            own = found.get((kind, recipe), [])
            values = {metric: mean(own, metric) for metric in METRICS}
            lines.append([kind, f"`{recipe}`", str(len(own)), *cells(values)])
            if kind == ALL and recipe in published:
                known = {metric: float(published[recipe][metric]) for metric in METRICS}
                lines.append([kind, f"published: {published[recipe]['name']}", "700", *cells(known)])
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def main() -> None:
    if len(sys.argv) != 3:
        sys.exit("usage: benchmark_pie_table.py OUT MAPPING")
    out, mapping = map(Path, sys.argv[1:])
    try:
        types = {path: entry.editing_type_id for path, entry in read_mapping(mapping).items()}
        with (out / "evaluation.csv").open(newline="") as stream:
            rows = list(csv.DictReader(stream))
    except (OSError, SdcorrectError) as error:
        sys.exit(f"{error}; run scripts/benchmark_pie.sh first")
    with PUBLISHED.open(newline="") as stream:
        published = {row["recipe"]: row for row in csv.DictReader(stream)}
    text = table(rows, types, published)
    (out / "table.md").write_text(text)
    sys.stdout.write(text)


if __name__ == "__main__":
    main()
