from pathlib import Path
from typing import Any

import pytest

from sdcorrect.config import Job, load_job, parse_set
from sdcorrect.errors import UsageError
from sdcorrect.inputs.items import find_items
from sdcorrect.recipes import BUILT_IN

CONFIGS = Path(__file__).parents[1] / "configs"
FLAGS: dict[str, Any] = {"input.path": "in", "output.path": "out", "prompt": "p"}


def load(tmp_path: Path, text: str, **overrides: Any) -> Job:
    file = tmp_path / "job.yaml"
    file.write_text(text)
    return load_job(file, overrides)


def complaint(tmp_path: Path, text: str, **overrides: Any) -> str:
    with pytest.raises(UsageError) as error:
        load(tmp_path, text, **overrides)
    return str(error.value).replace(str(tmp_path), "")


WHOLE = "input: {path: in}\noutput: {path: out}\nprompt: p\n"


def test_flags_alone_are_a_job() -> None:
    job = load_job(None, FLAGS)
    assert (job.model, job.strength, job.steps, job.guidance_scale) == ("mini", 0.8, 20, 7.5)
    assert job.recipes == (BUILT_IN["correct"],)
    assert job.effective_steps == 16


@pytest.mark.parametrize("file", sorted(CONFIGS.glob("*.yaml")), ids=lambda file: file.stem)
def test_the_projects_own_configs_are_valid(file: Path) -> None:
    job = load_job(file, {})
    assert job.prompt
    assert job.output.path.name == file.stem


def test_paths_in_a_file_are_relative_to_it_and_others_to_the_working_directory(tmp_path: Path) -> None:
    (tmp_path / "checkpoint").mkdir()
    job = load(tmp_path, WHOLE + "model: checkpoint\n", **{"output.path": "elsewhere"})
    assert job.input.path == tmp_path / "in"
    assert job.model == str(tmp_path / "checkpoint")
    assert job.output.path == Path("elsewhere")


def test_overrides_go_over_the_file_key_by_key(tmp_path: Path) -> None:
    text = WHOLE.replace("{path: out}", "{path: out, format: webp}") + "steps: 50\n"
    job = load(tmp_path, text, **parse_set(["steps=10", "output.path=x", "variants=[sdedit, all]"]))
    assert (job.steps, job.output.format) == (10, "webp")
    assert [recipe.name for recipe in job.recipes] == ["sdedit", "correct"]


def test_a_recipe_may_be_written_out(tmp_path: Path) -> None:
    text = """
method:
  name: mine
  inversion: one-step
  inject:
    - {tensor: self-attention, blocks: [first-attention], window: [0, 0.5]}
"""
    (recipe,) = load(tmp_path, WHOLE + text).recipes
    assert recipe.inject[0].window == (0, 0.5)


def test_prompts_that_cannot_be_aligned_are_told_before_a_model_is_loaded(tmp_path: Path) -> None:
    text = 'method: p2p\nsource_prompt: "a church in the snow"\n'
    with pytest.raises(UsageError, match=r"job.yaml:1: recipe p2p: .* has 5 words, .* p2p-refine"):
        load(tmp_path, WHOLE + text)
    # of these each picture has its own, and is told by itself
    assert load(tmp_path, WHOLE + text, source_prompt="{caption}, an icon of this")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("strenght: 0.5", "/job.yaml:4: strenght: there is no such setting; did you mean strength?"),
        ("output: {path: o, fromat: png}", "fromat: there is no such setting; did you mean format?"),
        ("zzz: 1", "zzz: there is no such setting; known: model, "),
        ("steps: many", "/job.yaml:4: steps: should be a valid integer"),
        ("steps: many", "found 'many'"),
        ("strength: 0", "strength: should be greater than 0; found 0"),
        ("strength: 1.01", "strength: should be less than or equal to 1; found 1.01"),
        ("strength: 0.04", "strength 0.04 of 20 steps is not one whole step; raise strength to 0.05"),
        ("method: corect", "/job.yaml:4: method: there is no recipe 'corect'; did you mean correct?"),
        ("variants: [sdedit, sdedit]", "variants: 'sdedit' stands there twice"),
        (
            "method:\n  name: m\n  inversion: one-step\n  inject:\n  - tensor: skip\n    blocks: [x]",
            "/job.yaml:9: method.inject.0.blocks.0: blocks are a number",
        ),
        ("method: {name: m, injct: []}", "method.injct: there is no such setting; did you mean inject?"),
        ("resize: stretch", "resize: should be 'fit', 'crop' or 'none'; found 'stretch'"),
        ("dtype: float64", "dtype: should be 'auto', 'float32', 'float16' or 'bfloat16'"),
        ("input: pictures", "input: should be a valid dictionary"),
        ("seed: -1", "seed: should be greater than or equal to 0; found -1"),
        ("prompt: ''", "/job.yaml:4: prompt: is missing; give -p"),
        ("steps: 20\nsteps: 30", "/job.yaml:5: steps: stands here a second time"),
        ("steps: [1", "/job.yaml:4: not YAML"),
    ],
)
def test_what_is_wrong_is_told_with_file_line_key_and_what_was_expected(
    tmp_path: Path, text: str, expected: str
) -> None:
    kept = [line for line in WHOLE.splitlines() if line.split(":")[0] != text.split(":")[0]]
    padding = ["#"] * (3 - len(kept))
    assert expected in complaint(tmp_path, "\n".join([*kept, *padding, text]))


def test_every_mistake_is_told_at_once(tmp_path: Path) -> None:
    lines = complaint(tmp_path, "steps: x\nstrength: 2\n").splitlines()
    assert len(lines) == 5  # these two, and no input, output and prompt


def test_a_mistake_in_an_override_does_not_blame_the_file(tmp_path: Path) -> None:
    assert complaint(tmp_path, WHOLE, steps="x").startswith("steps: should be")


@pytest.mark.parametrize("text", ["- a\n- b", "just words", "7"])
def test_a_file_that_is_no_mapping(tmp_path: Path, text: str) -> None:
    assert "/job.yaml: expected settings such as `prompt: ...`, found" in complaint(tmp_path, text)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"none\.yaml: cannot read the job: No such file"):
        load_job(tmp_path / "none.yaml", {})
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match="not UTF-8"):
        load_job(tmp_path / "binary.yaml", {})


def test_yaml_runs_no_code(tmp_path: Path) -> None:
    text = WHOLE + f"model: !!python/object/apply:os.mkdir ['{tmp_path / 'made'}']\n"
    assert "not YAML" in complaint(tmp_path, text)
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("assignment", ["steps", "=3", "steps=[1"])
def test_set_takes_key_and_value(assignment: str) -> None:
    with pytest.raises(UsageError, match="--set"):
        parse_set([assignment])


@pytest.mark.parametrize("name", ["coco", "imagenet", "imagenet-r"])
def test_the_papers_datasets_are_filtered_as_its_code_does(name: str) -> None:
    job = load_job(CONFIGS / f"paper-{name}.yaml", {})
    assert (job.input.min_side, job.input.max_side, job.resize) == (300, 550, "none")
    assert (job.strength, job.steps, job.guidance_scale) == (0.95, 20, 7.5)
    variants = [recipe.name for recipe in job.recipes]
    assert variants[:2] == ["sdedit", "correct"] and "pnp" in variants
    text = (CONFIGS / f"paper-{name}.yaml").read_text()
    assert f"sdcorrect translate -c configs/paper-{name}.yaml" in text
    assert f"sdcorrect evaluate out/paper-{name} --profile paper --style" in text


def test_the_papers_imagenet_r_has_no_video_games(tmp_path: Path) -> None:
    job = load_job(CONFIGS / "paper-imagenet-r.yaml", {})
    folder = tmp_path / "imagenet-r" / "n01443537"
    folder.mkdir(parents=True)
    for picture in ("art_0.jpg", "toy_1.jpg", "videogame_2.jpg"):
        (folder / picture).touch()
    pattern = tmp_path / "imagenet-r" / Path(*job.input.path.parts[-2:])
    found = find_items(load_job(None, {**FLAGS, "input.path": str(pattern)}))
    assert sorted(item.source.name for item in found) == ["art_0.jpg", "toy_1.jpg"]
