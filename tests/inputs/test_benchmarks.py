"""The lists of public benchmarks, as untidy as they are published."""

import json
from pathlib import Path

import pytest
from PIL import Image

from sdcorrect.config import load_job
from sdcorrect.errors import UsageError
from sdcorrect.inputs.items import Item, find_items

PIE = {
    "000000000000": {
        "image_path": "0_random_140/000000000000.jpg",
        "original_prompt": "a slanted mountain bicycle on the road in front of a building",
        "editing_prompt": "a slanted [rusty] mountain bicycle on the road  in front of a building",
        "editing_instruction": "Make the frame of the bike rusty",
        "editing_type_id": "0",
        "blended_word": "bicycle bicycle",
        "mask": [0, 512, 262143, 9],
    },
    "111000000000": {
        "image_path": "1_change_object_80/1_artificial/111000000000.jpg",
        "original_prompt": "a {cat}",
        "editing_prompt": "a [dog]",
        "editing_type_id": "1",
        "blended_word": "",
        "mask": [],
    },
}
TI2I = """\
- init_img: /ImageNetR-TI2I/cat/sketch_20.jpg
  target_prompts: [a photo of a cat, a polygonal illustration of a cat]
  source_prompt: a sketch of a cat
- init_img: somewhere/bear.jpeg
  target_prompts:
  - a robot bear
"""


def items_of(file: Path, **settings: str) -> list[Item]:
    given = {"input.path": str(file), "output.path": str(file.parent / "out")}
    return find_items(load_job(None, given | settings))


def test_the_mapping_file_of_pie_bench(tmp_path: Path) -> None:
    for annotation in PIE.values():
        picture = tmp_path / "annotation_images" / str(annotation["image_path"])
        picture.parent.mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(picture)
    file = tmp_path / "mapping_file.json"
    file.write_text(json.dumps(PIE))
    first, second = items_of(file)
    assert first.source.is_file() and first.key == "0_random_140/000000000000.jpg"
    assert first.prompt == "a slanted rusty mountain bicycle on the road in front of a building"
    assert first.source_prompt == PIE["000000000000"]["original_prompt"]
    assert first.output == Path("0_random_140/000000000000.png")
    assert (second.prompt, second.source_prompt) == ("a dog", "a {cat}")
    assert first.mask_words is None
    words = items_of(file, mask="words")
    assert words[0].mask_words == "bicycle"
    assert words[1].problem == "neither the list nor the job gives it mask_words"


def test_the_lists_of_the_ti2i_benchmarks(tmp_path: Path) -> None:
    for name in ("cat/sketch_20.jpg", "data/bear.jpeg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    (tmp_path / "imnetr-ti2i.yaml").write_text(TI2I)
    cat, polygons, bear = items_of(tmp_path / "imnetr-ti2i.yaml")
    assert all(item.source.is_file() for item in (cat, polygons, bear))
    assert (cat.prompt, cat.source_prompt) == ("a photo of a cat", "a sketch of a cat")
    assert polygons.output == Path("cat/sketch_20-2.png")
    assert (bear.key, bear.source_prompt) == ("data/bear.jpeg", None)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.json", "{", "a.json: not PIE-Bench's mapping file: not JSON"),
        ("a.json", "[]", "a.json: not PIE-Bench's mapping file: as a whole: "),
        (
            "a.json",
            '{"7": {"mask": []}}',
            "a.json: not PIE-Bench's mapping file: 7.image_path: Field",
        ),
        (
            "a.json",
            '{"7": {"image_path": "a", "mask": [1]}}',
            "7.mask: a mask must alternate starts and lengths",
        ),
        ("a.json", '{"7": {"image_path": "a/"}}', "a.json: entry 1: path: does not name a file"),
        ("a.json", "{}", "the list is empty"),
        ("a.yaml", "model: mini", "a.yaml: expected a list of"),
        ("a.yaml", "- {target_prompts: [x]}", "a.yaml: entry 1: init_img is missing"),
        ("a.yaml", "- {init_img: a, target_prompts: []}", "a.yaml: entry 1: target_prompts "),
        ("a.yaml", "- [", "a.yaml:1: "),
    ],
)
def test_what_is_no_such_list_is_one_line(tmp_path: Path, name: str, content: str, reason: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(UsageError) as error:
        items_of(tmp_path / name)
    assert reason in str(error.value) and "\n" not in str(error.value)
