"""Write an evaluation as a table for a paper, in Markdown or LaTeX."""

import math
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from textwrap import wrap

from sdcorrect.errors import UsageError, printable
from sdcorrect.evaluate.results import Evaluation, Mean
from sdcorrect.evaluate.statistics import LEAST_PAIRS
from sdcorrect.output.files import write_atomically
from sdcorrect.output.records import OfSweep

SUFFIXES = (".md", ".tex")
#: The names of metrics in print.
NAMES = {
    "ssim": "SSIM",
    "psnr": "PSNR, dB",
    "mse": "MSE",
    "lpips": "LPIPS",
    "structure_distance": "structure distance",
    "clip_image": "CLIP, image",
    "clip_text": "CLIP, text",
    "style_accuracy": "style accuracy",
}
WIDTH = 13  #: letters on a line of a column's name in LaTeX; "evaluations ↓" has as many
SMALL = r"\scriptsize"
TEXTS = ("recipe",)  #: columns of text, which are set flush left; numbers are flush right
_LATEX = {c: f"\\{c}" for c in "&%$#_{}"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "\xa0": "~",
    "^": r"\textasciicircum{}",
    "<": "$<$",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
}

Row = Sequence[str]


def check_table(file: Path) -> None:
    """Raises UsageError if the file's name has no known suffix."""
    if file.suffix.lower() not in SUFFIXES:
        raise UsageError(f"--table {printable(file)}: the name must end in {' or '.join(SUFFIXES)}")


def write_table(evaluations: Sequence[tuple[float | None, Evaluation]], file: Path) -> None:
    """A row for each variant: recipe, and where these differ, strength and seed.

    Args:
        evaluations: strength, if it is one, and evaluation of each folder, all of one job and by the
            same metrics.

    Raises:
        SdcorrectError: the file cannot be written.
    """
    form = _markdown if file.suffix.lower() == ".md" else _latex
    (_, first), *others = evaluations
    head = ["recipe", "n", *(_head(first, name) for name in first.metrics), "seconds ↓", "evaluations ↓"]
    placed = sorted(
        ((*place, row) for one, found in evaluations for place, row in _rows(found, one)),
        key=lambda of: [math.inf if value is None else value for value in of[:2]],
    )
    by_strength = bool(others) or any(strength != placed[0][0] for strength, _, _ in placed)
    by_seed = any(seed is not None for _, seed, _ in placed)
    head = ["strength"] * by_strength + ["seed"] * by_seed + head
    rows = [
        [_told(strength)] * by_strength + [_told(seed)] * by_seed + row for strength, seed, row in placed
    ]
    text = form(head, rows, _note(first))
    write_atomically(file, text.encode(), temporary=file.with_name(f".{file.name}.tmp"))


def number(value: float | None, mean: Mean, sign: str = "") -> str:
    """`value` with as many decimals as give `mean` four significant digits."""
    if value is None:
        return "-"
    magnitude = math.floor(math.log10(abs(mean.mean))) if mean.mean else 0
    return f"{value:{sign}.{min(max(3 - magnitude, 0), 5)}f}"


def plain(mean: Mean) -> str:
    """A mean of whole numbers; `-` if it has no pictures."""
    return "-" if mean.mean is None else f"{mean.mean:g}"


def p_value(p: float | None) -> str:
    """A p-value to four decimals; `-` for none, as with too few pictures."""
    if p is None:
        return "-"
    return "< 0.0001" if p < 1e-4 else f"{p:.4f}"


def in_print(name: str) -> str:
    """What a metric is called in print, such as `SSIM to the truth`."""
    kind = name.removesuffix("_truth")
    return NAMES.get(kind, kind) + (" to the truth" if kind != name else "")


def _head(evaluation: Evaluation, name: str) -> str:
    return f"{in_print(name)} {'↑' if evaluation.metrics[name].better == 'higher' else '↓'}"


def _told(value: float | None) -> str:
    return "-" if value is None else f"{value:.12g}"


def _rows(
    evaluation: Evaluation, strength: float | None
) -> Iterator[tuple[tuple[float | None, int | None], list[str]]]:
    """For each variant its strength and seed, and its cells.

    Args:
        strength: of those that are at none of a sweep.
    """
    top = next(iter(evaluation.variants.values()))  # a column has the decimals of its first number
    for variant, result in evaluation.variants.items():
        of = result.sweep or OfSweep(recipe=variant)
        cells = [of.recipe, str(result.pictures)]
        for name, mean in result.metrics.items():
            against, notes = result.against_base.get(name), []
            if mean.n != result.pictures:
                notes.append(f"n = {mean.n}")
            if against is not None and against.p is not None:
                told = p_value(against.p)
                notes.append(f"p {told}" if told.startswith("<") else f"p = {told}")
            in_brackets = f" ({', '.join(notes)})" if notes else ""
            cells.append(number(mean.mean, top.metrics[name]) + in_brackets)
        cells += [number(result.seconds.mean, top.seconds), plain(result.unet_evaluations)]
        yield (strength if of.strength is None else of.strength, of.seed), cells


def told_base(evaluation: Evaluation) -> str:
    """What variants are compared with, in words."""
    of_sweep = evaluation.base not in evaluation.variants
    return f"{evaluation.base}{' at the same strength and seed' if of_sweep else ''}"


def told_profile(evaluation: Evaluation) -> str:
    """The profile of the metrics, and the networks that measured."""
    networks = ", ".join(f"{what} by {network.name}" for what, network in evaluation.networks.items())
    return f"profile {evaluation.profile}{f' ({networks})' if networks else ''}"


def _note(evaluation: Evaluation) -> str:
    return (
        f"Means over n pictures, {told_profile(evaluation)}. p: Wilcoxon's signed-rank test, "
        f"two-sided, to {told_base(evaluation)} on the pictures of both, given from n = "
        f"{LEAST_PAIRS} on. Seconds and U-Net evaluations are those of one picture."
    )


def _markdown(head: Row, rows: Sequence[Row], note: str) -> str:
    lines = [head, ["---" if name in TEXTS else "---:" for name in head], *rows]
    escaped = [[cell.replace("|", "\\|") for cell in line] for line in lines]
    return "\n".join([*(f"| {' | '.join(line)} |" for line in escaped), "", note, ""])


def _latex(head: Row, rows: Sequence[Row], note: str) -> str:
    """A table of narrow columns, which shrinks where it is still wider than the page."""

    def line(cells: Row, form: Callable[[str], str]) -> str:
        return f"{' & '.join(map(form, cells))} \\\\"

    return "\n".join(
        [
            f"% {note}",
            r"% \usepackage{adjustbox,booktabs,makecell}; on pages of two columns, put it in table*.",
            "% It shrinks to the width of the text; if it is too small to read, give fewer --metrics.",
            r"\begin{adjustbox}{max width=\linewidth}",
            rf"\begin{{tabular}}{{{''.join('l' if name in TEXTS else 'r' for name in head)}}}",
            r"\toprule",
            line(head, _wrapped),
            r"\midrule",
            *_spaced([line(row, _stacked) for row in rows]),
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{adjustbox}",
            "",
        ]
    )


def _spaced(lines: Sequence[str]) -> Iterator[str]:
    """Lines with space after small print, which would touch the next."""
    for before, line in zip(["", *lines], lines, strict=False):
        yield from [r"\addlinespace"] * (SMALL in before)
        yield line


def _wrapped(name: str) -> str:
    """The name of a column, a long one on several lines; its arrow stays at its last word."""
    lines = wrap(re.sub(" (?=[↑↓])", "\xa0", name), WIDTH)
    told = r"\\".join(map(_escaped, lines))
    return told if len(lines) == 1 else rf"\makecell[br]{{{told}}}"


def _stacked(cell: str) -> str:
    """A number, with what is in brackets after it in small print below."""
    value, bracket, rest = cell.partition(" (")
    small = rf"\\{{{SMALL} ({_escaped(rest)}}}"
    return rf"\makecell[tr]{{{_escaped(value)}{small}}}" if bracket else _escaped(cell)


def _escaped(text: str) -> str:
    return "".join(_LATEX.get(c, c) for c in text)
