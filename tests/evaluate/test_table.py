"""What goes into a paper: tables in Markdown and LaTeX, and no p of few pictures."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result

from sdcorrect.evaluate.results import Evaluation
from sdcorrect.evaluate.statistics import compare
from sdcorrect.evaluate.table import write_table

Evaluate = Callable[..., Result]


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("| \n").split("|")]


def test_a_table_has_means_n_seconds_and_evaluations_of_each_variant(
    evaluate: Evaluate, folders: Any, tmp_path: Path
) -> None:
    file = tmp_path / "table.md"
    result = evaluate("--metrics", "ssim,structure_distance", "--table", file)
    assert result.exit_code == 0, result.stderr
    head, marks, *rows, _, note, _ = file.read_text().split("\n")
    assert cells(marks) == ["---", *["---:"] * 5]
    assert cells(head) == ["recipe", "n", "SSIM ↑", "structure distance ↓", "seconds ↓", "evaluations ↓"]
    found = json.loads((folders.out / "evaluation.json").read_text())["variants"]
    records = [json.loads(line) for line in (folders.out / "records" / "0-of-1.jsonl").open()]
    assert [cells(row)[0] for row in rows] == list(found) == ["sdedit", "correct"]
    for row in rows:
        name, n, ssim, distance, seconds, evaluations = cells(row)
        own = [record for record in records if record["variant"] == name]
        assert int(n) == len(own) == 3
        assert float(ssim) == pytest.approx(found[name]["metrics"]["ssim"]["mean"], abs=1e-3)
        assert float(distance) >= 0
        assert float(seconds) == pytest.approx(np.mean([record["seconds"] for record in own]), rel=0.01)
        assert int(evaluations) == own[0]["unet_evaluations"]
        assert found[name]["seconds"]["n"] == 3
    assert "from n = 6 on" in note and "to sdedit" in note


def test_latex_is_escaped_and_p_is_given_with_enough_pictures(
    evaluate: Evaluate, folders: Any, tmp_path: Path
) -> None:
    assert evaluate("--metrics", "ssim,psnr").exit_code == 0
    content = json.loads((folders.out / "evaluation.json").read_text())
    content["variants"]["a_b"] = variant = content["variants"].pop("correct")
    variant["against_base"]["ssim"] |= {"n": 9, "p": 0.00004}
    variant["metrics"]["psnr"]["n"] = 2
    evaluation = Evaluation.model_validate(content)
    write_table([(0.8, evaluation), (0.5, evaluation)], tmp_path / "table.TEX")
    text = (tmp_path / "table.TEX").read_text()
    assert (
        r"strength & recipe & n & SSIM~$\uparrow$ & PSNR, dB~$\uparrow$ & seconds~$\downarrow$" in text
    )
    assert r"\begin{tabular}{rlrrrrr}" in text
    strengths = [line.split(" & ")[0] for line in text.splitlines() if "sdedit &" in line]
    assert strengths == ["0.5", "0.8"]
    line = next(line for line in text.splitlines() if r"a\_b" in line)
    assert r"\\{\scriptsize (p $<$ 0.0001)}}" in line and "(n = 2)" in line and line.endswith(r"\\")
    assert {line.count(" & ") for line in text.splitlines() if " & " in line} == {6}
    # small print would touch the next row, and needs no space before the end of the table
    *_, small, space, _, last, rule, _, _, _ = text.split("\n")
    assert "scriptsize" in small and space == r"\addlinespace" and "scriptsize" in last
    assert rule == r"\bottomrule"


def test_latex_of_many_columns_fits_a_page(evaluate: Evaluate, folders: Any, tmp_path: Path) -> None:
    assert evaluate("--metrics", "ssim,structure_distance").exit_code == 0
    evaluation = Evaluation.model_validate_json((folders.out / "evaluation.json").read_text())
    write_table([(0.8, evaluation)], tmp_path / "table.tex")
    text = (tmp_path / "table.tex").read_text()
    begin, end = r"\begin{adjustbox}{max width=\linewidth}", r"\end{adjustbox}"
    assert text.count("\n" + begin + "\n\\begin{tabular}") == text.count(end) == 1
    assert r" & \makecell[br]{structure\\distance~$\downarrow$} & seconds~$\downarrow$ & " in text
    assert text.count("{") == text.count("}")


def test_too_few_pictures_have_no_p() -> None:
    base = {str(n): n / 10 for n in range(6)}
    better = {path: value + 0.1 + value / 50 for path, value in base.items()}
    assert compare(better, base, higher_is_better=True).p == pytest.approx(2 / 2**6)
    better.pop("0")
    found = compare(better, base, higher_is_better=True)
    assert (found.n, found.p, found.better) == (5, None, 1.0)


def test_no_line_is_longer_than_80_columns_and_no_number_wraps(evaluate: Evaluate, folders: Any) -> None:
    result = evaluate("--base", "correct")
    table, _, networks = result.stdout.partition("profile default")
    assert re.match(r" \(clip by \S+clip, structure by \S+\)\.", networks)
    table = table.rstrip().splitlines()
    assert max(map(len, table)) <= 80
    rows = [line.split() for line in table if line.split()[:1] in (["sdedit"], ["correct"])]
    assert len(rows) == 2 * (5 + 2)
    assert all(row[1] == "3" for row in rows)
    assert [row[2:] for row in rows if row[0] == "sdedit"][-1] == ["4"]


@pytest.mark.parametrize("name", ["table.txt", "table", ".md"])
def test_a_table_of_another_format_is_one_line(
    evaluate: Evaluate, folders: Any, tmp_path: Path, name: str
) -> None:
    result = evaluate("--table", tmp_path / name)
    assert result.exit_code == 2 and result.stderr.count("\n") == 1
    assert "must end in .md or .tex" in result.stderr
    assert not (folders.out / "evaluation.json").exists()
