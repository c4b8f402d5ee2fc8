"""The made set is PIE-Bench's layout, and the table is of its editing types."""

import csv
import json
from collections.abc import Callable
from pathlib import Path

import benchmark_pie_table
import make_pie_set
import numpy as np
import pytest
from click.testing import Result
from PIL import Image

from sdcorrect.config import load_job
from sdcorrect.inputs.items import find_items
from sdcorrect.inputs.pie_bench import SIDE, decode_mask, read_mapping
from sdcorrect.recipes import BUILT_IN

Run = Callable[..., Result]
SET = Path(__file__).parents[2] / "configs" / "pie-bench.yaml"
#: What the edit's own place is left out of.
OUTSIDE = "psnr_unedited"


@pytest.fixture
def made(tmp_path: Path) -> Path:
    make_pie_set.write(tmp_path / "pie", 1)
    return tmp_path / "pie"


def test_the_made_set_is_read_as_pie_bench_is(made: Path) -> None:
    given = {"input.path": str(made / "mapping_file.json"), "output.path": str(made / "out")}
    items = find_items(load_job(SET, given))
    assert len(items) == 4 and all(item.source.is_file() for item in items)
    change = items[0]
    assert change.source_prompt == "a church and a ghost in flat design style"
    assert change.prompt == "a church and a bicycle in flat design style"
    mapping = read_mapping(made / "mapping_file.json")
    mask = np.asarray(decode_mask(mapping[change.key.removesuffix(".jpg")].mask)) > 0
    assert mask[136:376, 256:496].all() and mask[1:-1, 1:-1].sum() == 240 * 240
    # the icon that is edited is within the mask, the other outside
    dark = np.asarray(Image.open(change.source).convert("L")) < 200
    assert dark[mask].any() and dark[:, : SIDE // 2].any() and not mask[1:-1, 1 : SIDE // 2].any()


def test_masks_are_encoded_as_they_are_decoded() -> None:
    mask = np.random.default_rng(0).random((SIDE, SIDE)) > 0.5
    mask[[0, -1]] = mask[:, [0, -1]] = True
    decoded = np.asarray(decode_mask(make_pie_set.encode_mask(mask))) > 0
    np.testing.assert_array_equal(decoded, mask)


def test_the_table_is_by_editing_type_with_the_published_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    mapping = {
        str(n): {"image_path": f"{n}.jpg", "editing_type_id": kind, "mask": []}
        for n, kind in enumerate("119")
    }
    (tmp_path / "mapping_file.json").write_text(json.dumps(mapping))
    with (tmp_path / "evaluation.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(("variant", "path", "structure_distance", OUTSIDE))
        for recipe, offset in (("p2p-refine", 0), ("sdedit", 10)):
            writer.writerow((recipe, "0.jpg", 0.02, 20 + offset))
            writer.writerow((recipe, "1.jpg", 0.04, 22 + offset))
            writer.writerow((recipe, "2.jpg", 0.06, ""))
    monkeypatch.setattr("sys.argv", ["", str(tmp_path), str(tmp_path / "mapping_file.json")])
    benchmark_pie_table.main()
    printed = capsys.readouterr().out
    assert printed == (tmp_path / "table.md").read_text()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in printed.splitlines()[2:]]
    assert rows[0][:5] == ["1 change object", "`p2p-refine`", "2", "30.00", "21.00"]
    assert rows[2][:5] == ["9 change style", "`p2p-refine`", "1", "60.00", ""]
    assert rows[4][:5] == ["all", "`p2p-refine`", "3", "40.00", "21.00"]
    assert rows[5][:5] == ["all", "published: DDIM + Prompt-to-Prompt", "700", "69.43", "17.87"]
    assert len(rows) == 7


def test_what_was_published_is_of_recipes_that_there_are() -> None:
    with benchmark_pie_table.PUBLISHED.open(newline="") as stream:
        assert {row["recipe"] for row in csv.DictReader(stream)} <= set(BUILT_IN)


def outside(sdcorrect: Run, made: Path, out: Path, *words: str) -> dict[str, float]:
    """What each variant keeps outside of the masks, dB, the mean over pictures."""
    mapping = str(made / "mapping_file.json")
    arguments = ("-c", str(SET), "--model", "mini", "-o", str(out), "--batch-size", "4", *words)
    result = sdcorrect("translate", mapping, *arguments)
    assert result.exit_code == 0, result.stderr
    options = ("--metrics", "mse_unedited", "--masks", mapping)
    assert sdcorrect("evaluate", str(out), "--profile", "pie-bench", *options).exit_code == 0
    errors: dict[str, list[float]] = {}
    with (out / "evaluation.csv").open(newline="") as stream:
        for row in csv.DictReader(stream):
            if row["mse_unedited"]:
                errors.setdefault(row["variant"], []).append(float(row["mse_unedited"]))
    with np.errstate(divide="ignore"):
        return {name: float(-10 * np.log10(np.mean(values))) for name, values in errors.items()}


@pytest.mark.slow
def test_with_a_mask_every_recipe_keeps_what_is_outside(
    sdcorrect: Run, made: Path, tmp_path: Path
) -> None:
    quick = ("--set", "variants=[sdedit, correct, ddim, p2p-refine, masactrl, pnp-50]", "--steps", "10")
    free = outside(sdcorrect, made, tmp_path / "free", *quick)
    mask = ("--set", f"mask={made / 'mapping_file.json'}")
    masked = outside(sdcorrect, made, tmp_path / "masked", *quick, *mask)
    assert set(masked) == set(free) and len(free) == 6
    assert all(masked[name] >= free[name] + 10 for name in free)


@pytest.mark.slow
def test_direct_inversion_keeps_more_of_what_is_outside(
    sdcorrect: Run, made: Path, tmp_path: Path
) -> None:
    """Where the source's branch is guided, and strays; the others' finds its way back by itself."""
    variants = "p2p-refine, p2p-direct-refine"
    found = outside(sdcorrect, made, tmp_path / "out", "--set", f"variants=[{variants}]")
    assert found["p2p-direct-refine"] >= found["p2p-refine"] + 0.5
