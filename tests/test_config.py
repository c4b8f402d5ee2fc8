import os
from pathlib import Path
from typing import Any

import pytest
import yaml

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
    assert job.prompt or job.input.path.suffix in {".json", ".yaml"}  # which have prompts of their own
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
        ("strength: 0.04", "strength 0.04 of 20 steps is less than one step; raise strength to 0.05"),
        ("method: corect", "/job.yaml:4: method: there is no recipe 'corect'; did you mean correct?"),
        ("variants: [sdedit, sdedit]", "variants: 'sdedit' is listed twice"),
        (
            "method:\n  name: m\n  inversion: one-step\n  inject:\n  - tensor: skip\n    blocks: [x]",
            "/job.yaml:9: method.inject.0.blocks.0: 'x' names no blocks; give a number",
        ),
        ("method: {name: m, injct: []}", "method.injct: there is no such setting; did you mean inject?"),
        ("channels_last: 1", "/job.yaml:4: channels_last: should be 'auto' or a valid boolean; found 1"),
        ("resize: stretch", "resize: should be 'fit', 'crop' or 'none'; found 'stretch'"),
        ("dtype: float64", "dtype: should be 'auto', 'float32', 'float16' or 'bfloat16'"),
        ("input: pictures", "input: should be a mapping (key: value); found 'pictures'"),
        ("batch_size: [1, 2]", "batch_size: should be 'auto' or a valid integer; found [1, 2]"),
        ("seed: -1", "seed: should be greater than or equal to 0; found -1"),
        ("prompt: ''", "/job.yaml:4: prompt: is missing; give -p"),
        ("steps: 20\nsteps: 30", "/job.yaml:5: steps: this key is repeated"),
        ("steps: [1", "/job.yaml:4: not YAML"),
        ("seed: 010", "/job.yaml:4: YAML reads 010 as octal, 8"),
        ("seed: 2001-01-01", "/job.yaml:4: YAML reads 2001-01-01 as a date"),
        ("seed: !!int abc", "/job.yaml:4: abc is not a valid int"),
        ("seed: &a [*a]", "/job.yaml:4: contains itself"),
        ("steps: true", "/job.yaml:4: steps: should be a valid integer; found true"),
        (
            "batch_size: yes",
            "batch_size: should be 'auto' or a valid integer; found yes, which YAML reads as true",
        ),
        ("seed: ~", "seed: should be a valid integer; found ~, which YAML reads as null"),
        ("seed:", "seed: should be a valid integer; found nothing, which YAML reads as null"),
        ("seed: '8'", "seed: should be a valid integer; found '8'"),
        ("seed: 08", "seed: should be a valid integer; found '08'"),
        ("steps: 20.0", "steps: should be a valid integer; found 20.0"),
        ("strength: on", "strength: should be a valid number; found on, which YAML reads as true"),
        ("compile: 1", "compile: should be a valid boolean; found 1"),
        ("compile: 'no'", "compile: should be a valid boolean; found 'no'"),
        ("prompt: yes", "prompt: should be a valid string; found yes, which YAML reads as true"),
        ("loras: [{path: x, weight: true}]", "loras.0.weight: should be a valid number; found true"),
        ("controlnets: [{path: x, thresholds: [1, no]}]", "should be a valid integer; found no, which"),
        ("source_prompt: a\nmethod: p2p-refine\nprompt_syntax: weighted", "; set prompt_syntax: plain"),
        ("mask: words\nmask_words: a\nprompt_syntax: weighted", "mask: words works only with plain"),
        ("equalizer: {on: yes}", "equalizer.on: should be a valid number; found yes, which YAML reads"),
        ("method: {name: m, steps: true}", "method.steps: should be a valid integer; found true"),
        (
            "method: {name: m, inversion: one-step, inject: [{tensor: skip, blocks: [3], weight: yes}]}",
            "method.inject.0.weight: should be a valid number; found yes",
        ),
        ("input: {path: ''}", "/job.yaml:4: input.path: is empty"),
        ("input: {path: a, captions: ' '}", "/job.yaml:4: input.captions: is empty"),
        (
            "output: {path: $UNSET_9/x}",
            "/job.yaml:4: output.path: $UNSET_9/x: the variable $UNSET_9 is not",
        ),
        ("output: {path: '${UNSET_9}'}", "the variable ${UNSET_9} is not set"),
        ("model: ~nobody9/x", "/job.yaml:4: model: ~nobody9/x: there is no user ~nobody9"),
    ],
)
def test_what_is_wrong_is_told_with_file_line_key_and_what_was_expected(
    tmp_path: Path, text: str, expected: str
) -> None:
    kept = [line for line in WHOLE.splitlines() if line.split(":")[0] != text.split(":")[0]]
    padding = ["#"] * (3 - len(kept))
    assert expected in complaint(tmp_path, "\n".join([*kept, *padding, text]))


@pytest.mark.parametrize(
    ("assignment", "expected"),
    [
        ("seed=010", "--set seed: YAML reads 010 as octal"),
        ("seed=2001-99-99", "--set seed: YAML reads 2001-99-99 as a date"),
        ("steps=true", "steps: should be a valid integer; found true"),
        ("batch_size=yes", "batch_size: should be 'auto' or a valid integer; found true"),
        ("seed=" + "9" * 5000, "--set seed: 999"),
        ("seed=" + "[" * 100_000, "--set seed: lists and mappings are more than 100 levels deep"),
        ("input.path=", "input.path: should be a path; found null"),
        ("input.path=''", "input.path: is empty"),
        ("output.path=$UNSET_9", "output.path: $UNSET_9: the variable $UNSET_9 is not set"),
    ],
)
def test_set_refuses_what_a_file_may_not_say(assignment: str, expected: str) -> None:
    with pytest.raises(UsageError) as error:
        load_job(None, FLAGS | parse_set([assignment]))
    assert expected in str(error.value)
    assert len(str(error.value)) < 250


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home with a model in it, and a working directory elsewhere."""
    home, elsewhere = tmp_path / "home", tmp_path / "elsewhere"
    (home / "model").mkdir(parents=True)
    elsewhere.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("SCRATCH", str(home))
    monkeypatch.chdir(elsewhere)
    return home


@pytest.mark.parametrize("place", ["~", "$SCRATCH", "${SCRATCH}"])
def test_homes_and_variables_are_filled_in_wherever_a_path_stands(
    tmp_path: Path, home: Path, place: str
) -> None:
    settings = {
        "input": {"path": "in", "captions": "c.json", "classes": "s.txt"},
        "output": {"path": "out"},
        "spill": "spill",
        "model": "model",
        "vae": "vae",
        "base_config": "model",
        "loras": ["a.safetensors", {"path": "b.safetensors"}],
        "textual_inversions": ["c.pt"],
        "controlnets": [{"path": "d", "hint": "hints"}],
    }

    def below(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: below(inner) for key, inner in value.items()}
        return [below(inner) for inner in value] if isinstance(value, list) else f"{place}/{value}"

    written = below(settings) | {"prompt": "p"}
    job = load(tmp_path, yaml.safe_dump(written))
    assert job == load_job(None, parse_set([f"{k}={yaml.safe_dump(v)}" for k, v in written.items()]))
    assert job.input.path == home / "in" and job.output.path == home / "out"
    told = yaml.safe_dump(job.model_dump(mode="json"))
    assert told.count(f"{home}/") == 13 and "~/" not in told and "$" not in told


def test_what_has_a_variables_name_is_taken_literally_where_it_exists(
    tmp_path: Path, home: Path
) -> None:
    for folder in (tmp_path, home.parent / "elsewhere"):
        (folder / "$RECYCLE.BIN").mkdir()
    assert load(tmp_path, WHOLE.replace("in}", "$RECYCLE.BIN}")).input.path == tmp_path / "$RECYCLE.BIN"
    assert load_job(None, FLAGS | {"input.path": "$RECYCLE.BIN"}).input.path == Path("$RECYCLE.BIN")


def test_a_resolved_job_is_read_as_it_is(tmp_path: Path, home: Path) -> None:
    (tmp_path / "$SCRATCH").mkdir()
    job = load(tmp_path, WHOLE.replace("in}", "$SCRATCH}"))
    (tmp_path / "$SCRATCH").rmdir()
    assert Job.model_validate_json(job.model_dump_json()).input.path == tmp_path / "$SCRATCH"


@pytest.mark.parametrize("kind", ["fifo", "device", "folder", "huge"])
def test_a_job_that_is_no_file_is_refused_at_once(tmp_path: Path, kind: str) -> None:
    file = tmp_path / "job.yaml"
    match kind:
        case "fifo":
            os.mkfifo(file)
        case "device":
            file.symlink_to("/dev/zero")
        case "folder":
            file.mkdir()
        case "huge":
            with file.open("wb") as stream:
                stream.truncate(1 << 40)
    with pytest.raises(UsageError, match=r"job\.yaml: cannot read the job: "):
        load_job(file, {})


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_a_byte_order_mark_is_heeded(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "job.yaml").write_text(WHOLE.replace("prompt: p", "prompt: größer"), encoding=encoding)
    assert load_job(tmp_path / "job.yaml", {}).prompt == "größer"


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
