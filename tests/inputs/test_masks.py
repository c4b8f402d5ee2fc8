"""Where a picture is edited: masks are read as pictures are, and lie where its companions do."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sdcorrect.config import Job, load_job
from sdcorrect.errors import PictureError, UsageError
from sdcorrect.inputs.beside import Beside
from sdcorrect.inputs.items import find_items
from sdcorrect.inputs.masks import Masks
from sdcorrect.inputs.pictures import Picture, Sizing, read_picture

LEFT = np.repeat([[255] * 24 + [0] * 24], 32, axis=0).astype(np.uint8)  #: of a picture of 48x32 px
HALF = Sizing("fit", 48, 8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where masks lie; `pictures/a.png` is the picture, of 96x64 px."""
    for name in ("pictures", "masks"):
        (tmp_path / name).mkdir()
    colours = np.random.default_rng(0).integers(0, 256, (64, 96, 4), dtype=np.uint8)
    Image.fromarray(colours[..., :3]).save(tmp_path / "pictures" / "a.png")
    return tmp_path / "masks"


def job_of(folder: Path, mask: str | None = None, **settings: object) -> Job:
    root = folder.parent
    given = {"input.path": str(root / "pictures"), "output.path": str(root / "out"), "prompt": "x"}
    return load_job(None, given | {"mask": str(folder) if mask is None else mask} | settings)


def picture_of(job: Job, sizing: Sizing) -> Picture:
    (item,) = find_items(job)
    return read_picture(item, sizing, job.input)


def mask_of(job: Job, sizing: Sizing = HALF) -> np.ndarray:
    mask = Masks(job).of(picture_of(job, sizing))
    assert mask is not None and mask.mode == "L"
    return np.asarray(mask)


def saved(mask: np.ndarray, mode: str, file: Path, **options: object) -> None:
    Image.fromarray(mask).convert(mode).save(file, **options)


@pytest.mark.parametrize(
    ("mode", "name"),
    [("L", "a.png"), ("1", "a.tif"), ("RGB", "a.jpg"), ("LA", "a.webp"), ("P", "a.PNG")],
)
def test_a_mask_is_black_and_white_in_any_mode(folder: Path, mode: str, name: str) -> None:
    large = Image.fromarray(LEFT).resize((96, 64), Image.Resampling.NEAREST)
    saved(np.asarray(large), mode, folder / name)
    np.testing.assert_array_equal(mask_of(job_of(folder)), LEFT)


def test_a_mask_of_the_outputs_size_and_one_of_the_pictures_shape(folder: Path) -> None:
    for size in ((48, 32), (96, 64), (192, 128), (480, 320)):
        saved(np.asarray(Image.fromarray(LEFT).resize(size, 0)), "L", folder / "a.png")
        np.testing.assert_array_equal(mask_of(job_of(folder)), LEFT)


@pytest.mark.parametrize(("resize", "left"), [("crop", 16), ("none", 48)])
def test_a_mask_goes_the_way_of_its_picture(folder: Path, resize: str, left: int) -> None:
    saved(np.asarray(Image.fromarray(LEFT).resize((96, 64), 0)), "L", folder / "a.png")
    job = job_of(folder, resize=resize)
    mask = mask_of(job, Sizing(job.resize, 32, 32))
    assert mask.shape == {"crop": (32, 32), "none": (64, 96)}[resize]
    assert mask[:, :left].all() and not mask[:, left:].any()


def test_the_alpha_of_the_picture_itself(folder: Path) -> None:
    file = folder.parent / "pictures" / "a.png"
    image = Image.open(file)
    image.putalpha(Image.fromarray(LEFT).resize((96, 64), 0))
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    image.save(file, exif=exif)
    np.testing.assert_array_equal(mask_of(job_of(folder, "alpha")), LEFT[::-1, ::-1])


def test_a_mask_that_cannot_be_used_fails_its_picture(folder: Path) -> None:
    job = job_of(folder)
    (folder / "b.png").touch()
    picture = picture_of(job, Sizing("fit", 48, 8))

    def refused(reason: str, job: Job = job) -> None:
        with pytest.raises(PictureError, match=reason) as error:
            Masks(job).of(picture)
        assert error.value.sha256 == picture.sha256
        assert "\n" not in str(error.value)

    refused("has no mask: there is no .*masks/a.png")
    (folder / "a.png").touch()
    refused("mask .*a.png: cannot be used: the file is empty")
    saved(np.zeros((32, 32), np.uint8), "L", folder / "a.png")
    refused("mask .*a.png: is 32x32 px, but the picture is 96x64 px and its output 48x32 px; give")
    coloured = np.zeros((64, 96, 3), np.uint8)
    coloured[..., 0] = 255
    saved(coloured, "RGB", folder / "a.png")
    refused("mask .*a.png: has colours; a mask must be white where")
    image = Image.fromarray(LEFT)
    image.putalpha(Image.fromarray(LEFT))
    image.save(folder / "a.png")
    refused("mask .*a.png: is partly transparent")
    saved(LEFT, "L", folder / "a.png")
    saved(LEFT, "L", folder / "a.jpg")
    assert Masks(job).of(picture)  # its own suffix decides
    (folder / "a.png").rename(folder / "a.webp")
    refused("has several masks, ")
    refused("has no alpha channel", job_of(folder, "alpha"))


def test_masks_that_can_be_had_from_nowhere(folder: Path) -> None:
    for mask, reason in {
        str(folder / "none"): "there is no such folder",
        str(folder): "the folder is empty; give a folder",
        "alphas": "there is no such folder",
        str(folder / "mapping_file.json"): "cannot be read: No such file",
    }.items():
        with pytest.raises(UsageError, match=reason):
            Masks(job_of(folder, mask))


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"mask": None, "mask_feather": 2}, "mask_feather needs mask$"),
        ({"mask": None, "invert_mask": True}, "invert_mask needs mask$"),
        ({"mask": "alpha", "mask_words": "cat"}, "mask_words needs mask: words"),
        ({"mask": "words"}, "mask: words needs mask_words, such as"),
        ({"mask": "alpha", "mask_feather": -1}, "mask_feather: should be greater than or equal to 0"),
        ({"mask": "words", "mask_words": [1]}, "mask_words: should be a valid string"),
    ],
)
def test_settings_that_do_not_go_together(
    folder: Path, settings: dict[str, object], reason: str
) -> None:
    with pytest.raises(UsageError, match=reason):
        load_job(None, {"input.path": "in", "output.path": "out", "prompt": "x"} | settings)


def test_a_folder_called_alpha(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "alpha").mkdir()
    (tmp_path / "job.yaml").write_text("mask: ./alpha")
    monkeypatch.chdir(tmp_path)
    job = load_job(Path("job.yaml"), {"input.path": "in", "output.path": "out", "prompt": "x"})
    with pytest.raises(UsageError, match="the folder is empty"):
        Masks(job)


def test_what_goes_with_a_picture_is_known_by_content(folder: Path) -> None:
    saved(LEFT, "L", folder / "a.png")
    job = job_of(folder)
    (item,) = find_items(job)
    beside = Beside(job, Sizing("fit", 48, 8))
    before = beside.sha256s(item)
    assert len(before) == 1 and beside.add_to(picture_of(job, beside.sizing)).companions == before
    saved(255 - LEFT, "L", folder / "a.png")
    assert beside.sha256s(item) != before
    (folder / "a.png").unlink()
    assert beside.sha256s(item) == ()
