"""What of a source goes with its picture: EXIF, colour profile, transparency, colours."""

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import piexif
import pytest
from click.testing import Result
from encoders import lut_profile, png
from imagecodecs import cms_profile
from numpy.typing import NDArray
from piexif.helper import UserComment
from PIL import Image, ImageDraw

from sdcorrect.batch.metadata import as_file
from sdcorrect.config import Input, load_job
from sdcorrect.errors import PictureError
from sdcorrect.inputs.exif import with_comment
from sdcorrect.inputs.items import find_items
from sdcorrect.inputs.pictures import Sizing, read_image, read_picture
from sdcorrect.matching import matched

Translate = Callable[..., Result]
MAKE, TAKEN = b"a camera", b"2024:01:02 03:04:05"
TEXT = "in oil\nSteps: 2, Sampler: DDIM"
ADOBE, GREY = cms_profile("adobergb"), cms_profile("gray", gamma=1.8)


def of_a_camera(thumbnail: bytes) -> bytes:
    """EXIF of a phone held upright: its sensor lies on the side."""
    exif = {
        "0th": {
            **{piexif.ImageIFD.Make: MAKE, piexif.ImageIFD.Orientation: 6},
            **{piexif.ImageIFD.ImageWidth: 96, piexif.ImageIFD.XResolution: (72, 1)},
        },
        "Exif": {
            **{piexif.ExifIFD.DateTimeOriginal: TAKEN, piexif.ExifIFD.ExifVersion: b"0232"},
            **{piexif.ExifIFD.PixelXDimension: 96, piexif.ExifIFD.PixelYDimension: 64},
            **{piexif.ExifIFD.ExposureBiasValue: (-1, 3), piexif.ExifIFD.ColorSpace: 65535},
            **{piexif.ExifIFD.MakerNote: b"vendor\0" * 9, piexif.ExifIFD.SceneType: b"\1"},
            **{piexif.ExifIFD.UserComment: b"ASCII\0\0\0our cat", piexif.ExifIFD.SubjectArea: (9, 9)},
        },
        "GPS": {piexif.GPSIFD.GPSLatitudeRef: b"N", piexif.GPSIFD.GPSVersionID: (2, 3, 0, 0)},
        "Interop": {piexif.InteropIFD.InteroperabilityIndex: b"R03"},
        "1st": {piexif.ImageIFD.ImageWidth: 24},
        "thumbnail": thumbnail,
    }
    return piexif.dump(exif)


@pytest.fixture
def church(icon: Image.Image) -> Image.Image:
    return icon.resize((96, 64))


@pytest.fixture
def made(tmp_path: Path) -> Callable[..., Image.Image]:
    """The file of a picture that is made of another without any change, as a job reads and writes it."""

    def made(content: bytes, text: str | None = TEXT, **settings: Any) -> Image.Image:
        (tmp_path / "a.png").write_bytes(content)  # the suffix tells nothing
        given = {key.replace("__", "."): value for key, value in settings.items()}
        paths = {"input.path": str(tmp_path / "a.png"), "output.path": str(tmp_path / "out")}
        job = load_job(None, paths | {"prompt": "a", "resize": "none", "size": 64} | given)
        (item,), sizing = find_items(job), Sizing(job.resize, job.size or 64, 32)
        picture = read_picture(item, sizing, job.input, job.output.keep)
        return Image.open(io.BytesIO(as_file(picture.image, picture, job, text)))

    return made


Made = Callable[..., Image.Image]


def saved(image: Image.Image, format: str, **more: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format, **more)
    return stream.getvalue()


def pixels(image: Image.Image) -> NDArray[np.int64]:
    return np.asarray(image).astype(np.int64)


@pytest.mark.parametrize("format", ["png", "jpg", "webp"])
def test_exif_is_kept_but_for_what_holds_no_more(made: Made, church: Image.Image, format: str) -> None:
    thumbnail = saved(church.resize((24, 16)), "JPEG")
    source = saved(church, "JPEG", exif=of_a_camera(thumbnail), quality=95)
    written = made(source, output__keep=["exif"], output__format=format)
    assert written.size == (64, 96)
    told = piexif.load(written.info["exif"])
    assert told["0th"][piexif.ImageIFD.Make] == MAKE and told["0th"][piexif.ImageIFD.Orientation] == 1
    assert told["Exif"][piexif.ExifIFD.DateTimeOriginal] == TAKEN
    assert told["Exif"][piexif.ExifIFD.ExposureBiasValue] == (-1, 3)
    assert told["Exif"][piexif.ExifIFD.ExifVersion] == b"0232"
    assert told["Exif"][piexif.ExifIFD.SceneType] == b"\1"
    assert told["GPS"] == {piexif.GPSIFD.GPSLatitudeRef: b"N", piexif.GPSIFD.GPSVersionID: (2, 3, 0, 0)}
    gone = ("PixelXDimension", "PixelYDimension", "MakerNote", "ColorSpace", "SubjectArea")
    assert not {getattr(piexif.ExifIFD, name) for name in gone} & told["Exif"].keys()
    assert piexif.ImageIFD.ImageWidth not in told["0th"]
    assert not told["thumbnail"] and not told["1st"] and not told["Interop"]
    assert thumbnail[-100:-50] not in written.info["exif"]
    # what made it stands where web UIs look first
    comment = told["Exif"].get(piexif.ExifIFD.UserComment)
    assert (comment is None) == (format == "png")
    assert (written.info["parameters"] if format == "png" else UserComment.load(comment)) == TEXT


@pytest.mark.parametrize("how", ["webp", "png", "raw profile", "tiff", "tiff of 16 bits"])
def test_exif_is_kept_of_every_kind_of_file(made: Made, church: Image.Image, how: str) -> None:
    exif = of_a_camera(saved(church.resize((24, 16)), "JPEG"))
    raw = b"Raw profile type exif\0\nexif\n 9\n" + exif.hex().encode()
    deep = Image.fromarray(np.asarray(church)[..., 0].astype(np.uint16) * 257)
    content = {
        "webp": lambda: saved(church, "WEBP", exif=exif),
        "png": lambda: saved(church, "PNG", exif=exif),
        "raw profile": lambda: png(np.asarray(church), 8, 2, (b"tEXt", raw)),
        "tiff": lambda: saved(church, "TIFF", tiffinfo={271: "a camera"}, compression="tiff_lzw"),
        "tiff of 16 bits": lambda: saved(deep, "TIFF", tiffinfo={271: "a camera"}),
    }[how]()
    told = piexif.load(made(content, None, output__keep=["exif"]).info["exif"])
    assert told["0th"][piexif.ImageIFD.Make] == MAKE
    if "tiff" in how:
        assert not {256, 257, 258, 259, 273, 279} & told["0th"].keys()
    else:
        # where nothing tells what made it, the source's own words stay
        assert UserComment.load(told["Exif"][piexif.ExifIFD.UserComment]) == "our cat"


def test_what_has_no_exif_or_a_damaged_one_has_none(
    made: Made, church: Image.Image, caplog: pytest.LogCaptureFixture
) -> None:
    assert "exif" not in made(saved(church, "JPEG"), None, output__keep=["exif"]).info
    assert not caplog.messages
    damaged = b"Exif\0\0" + b"no TIFF" * 9
    for format in ("JPEG", "PNG", "WEBP"):
        caplog.clear()
        file = made(saved(church, format, exif=damaged), output__keep=["exif"])
        assert file.info["parameters"] == TEXT and "exif" not in file.info
        assert any("its EXIF is damaged: not kept" in line for line in caplog.messages)


def test_exif_that_a_format_cannot_hold_fails_its_picture(made: Made, church: Image.Image) -> None:
    content = saved(church, "PNG", exif=piexif.dump({"0th": {piexif.ImageIFD.Artist: b"a" * 70_000}}))
    for text in (None, TEXT):
        with pytest.raises(PictureError, match=r"leave exif out of output\.keep"):
            made(content, text, output__keep=["exif"], output__format="jpg")


def test_a_comment_is_laid_into_exif_of_either_order() -> None:
    little = b"Exif\0\0II*\0\x08\0\0\0\1\0\x0f\1\2\0\4\0\0\0abc\0\0\0\0\0"
    told = piexif.load(with_comment(little, b"ASCII\0\0\0x"))
    assert told["0th"][271] == b"abc" and told["Exif"][37510] == b"ASCII\0\0\0x"


@pytest.mark.parametrize("format", ["png", "jpg", "webp"])
@pytest.mark.parametrize("told", ["a profile", "gAMA"])
def test_in_its_source_s_profile_a_picture_looks_the_same(
    made: Made, icon: Image.Image, tmp_path: Path, format: str, told: str
) -> None:
    linear = (b"gAMA", (100_000).to_bytes(4, "big"))
    content = {
        "a profile": lambda: saved(icon, "PNG", icc_profile=ADOBE),
        "gAMA": lambda: png(np.asarray(icon), 8, 2, linear),
    }[told]()
    plain = made(content, output__format=format)
    kept = made(content, output__format=format, output__keep=["profile"])
    assert "icc_profile" not in plain.info
    assert told == "gAMA" or kept.info["icc_profile"] == ADOBE
    seen = []
    for file in (plain, kept):
        (tmp_path / "seen").write_bytes(file.fp.getvalue())  # type: ignore[union-attr]
        seen.append(pixels(read_image(tmp_path / "seen", Input(path=tmp_path))[0]))
    assert np.abs(pixels(plain.convert("RGB")) - pixels(kept.convert("RGB"))).mean() > 2
    assert np.abs(seen[0] - seen[1]).mean() < (1 if format == "png" else 3)


@pytest.mark.parametrize(
    ("mode", "profile", "reason"),
    [
        ("CMYK", lut_profile(), "is for CMYK pictures, and what is made of it is RGB"),
        ("L", GREY, "its colour profile is for GRAY pictures"),
        ("RGB", lut_profile("RGB"), "leads to other colours, and from none back"),
    ],
)
def test_a_profile_that_no_result_can_have_is_told_and_left(
    made: Made,
    icon: Image.Image,
    caplog: pytest.LogCaptureFixture,
    mode: str,
    profile: bytes,
    reason: str,
) -> None:
    content = saved(icon.convert(mode), "TIFF", icc_profile=profile)
    file = made(content, output__keep=["profile", "exif"])
    (line,) = caplog.messages
    assert reason in line and line.endswith(": written in sRGB")
    # nor is it a tag of the EXIF
    assert "icc_profile" not in file.info and 34675 not in file.getexif()


def cut_out(size: tuple[int, int]) -> Image.Image:
    """A red disc on nothing, with a soft edge, off the middle."""
    picture = Image.new("RGBA", size, (200, 30, 30, 0))
    disc = Image.new("L", size)
    ImageDraw.Draw(disc).ellipse((5, 5, size[0] // 2, size[1] - 5), fill=255)
    picture.putalpha(disc.resize((size[0] // 2, size[1] // 2)).resize(size))
    return picture


@pytest.mark.parametrize("resize", ["fit", "crop", "none"])
@pytest.mark.parametrize("format", ["png", "webp"])
def test_what_was_transparent_is_so_again(made: Made, resize: str, format: str) -> None:
    source = cut_out((100, 70))
    asked = {"resize": resize, "output__format": format}
    white = made(saved(source, "PNG"), **asked)
    clear = made(saved(source, "PNG"), **asked, background="transparent")
    assert white.mode == "RGB" and clear.mode == "RGBA" and clear.size == white.size
    assert white.size == {"fit": (64, 32), "crop": (64, 64), "none": (96, 64)}[resize]
    alpha, lanczos = source.getchannel("A"), Image.Resampling.LANCZOS
    expected = {
        "fit": lambda: alpha.resize((64, 32), lanczos),
        "crop": lambda: alpha.resize((64, 64), lanczos, box=(15, 0, 85, 70)),
        "none": lambda: alpha.crop((2, 3, 98, 67)),
    }[resize]()
    np.testing.assert_array_equal(pixels(clear.getchannel("A")), pixels(expected))
    if format == "png":
        np.testing.assert_array_equal(pixels(clear.convert("RGB")), pixels(white))


def test_of_palettes_and_deep_samples_too_and_nothing_of_the_opaque(
    made: Made, icon: Image.Image
) -> None:
    palette = icon.quantize(8)
    where = pixels(palette) == 3
    deep = np.dstack([np.asarray(icon).astype(np.uint16) * 257, np.where(where, 0, 65535)])
    for content in (saved(palette, "PNG", transparency=3), png(deep, 16, 6)):
        alpha = made(content, background="transparent").getchannel("A")
        np.testing.assert_array_equal(pixels(alpha), np.where(where, 0, 255))
    assert made(saved(icon, "PNG"), background="transparent").mode == "RGB"


def test_transparency_turns_with_its_picture_and_takes_a_profile(made: Made) -> None:
    source = cut_out((96, 64))
    exif = piexif.dump({"0th": {piexif.ImageIFD.Orientation: 6}})
    content = saved(source, "PNG", exif=exif, icc_profile=ADOBE)
    found = made(content, background="transparent", output__keep=["exif", "profile"])
    upright = source.getchannel("A").transpose(Image.Transpose.ROTATE_270)
    np.testing.assert_array_equal(pixels(found.getchannel("A")), pixels(upright))
    assert found.getexif()[274] == 1 and found.info["icc_profile"] == ADOBE


def test_a_job_keeps_and_matches_and_leaves_what_is_outside_of_masks(
    translate: Translate, icon: Image.Image, tmp_path: Path
) -> None:
    bands = [
        band.point(lambda v, n=n: v * n // 9) for n, band in zip((2, 4, 9), icon.split(), strict=True)
    ]
    source = Image.merge("RGB", bands)
    alpha = Image.new("L", icon.size)
    alpha.paste(255, (0, 0, 32, 64))
    source.putalpha(alpha)
    exif = piexif.dump({"0th": {piexif.ImageIFD.Make: MAKE}})
    source.save(tmp_path / "a.webp", exif=exif, lossless=True)
    (tmp_path / "job.yaml").write_text(
        "method: sdedit\nmask: alpha\nmatch_colors: source\nbackground: transparent\n"
        "output: {path: out, keep: [exif, profile]}\n"
    )
    result = translate(tmp_path / "a.webp", "-c", tmp_path / "job.yaml", "--set", "size=64")
    assert result.exit_code == 0, result.stderr
    found = Image.open(tmp_path / "out" / "sdedit" / "a.png")
    assert found.mode == "RGBA" and found.getexif()[271] == "a camera"
    np.testing.assert_array_equal(pixels(found.getchannel("A")), pixels(alpha))
    shown, before = pixels(found.convert("RGB")), pixels(source.convert("RGB"))
    assert (shown[:, 32:] == 255).all()
    assert not (shown[:, :32] == before[:, :32]).all()
    assert shown[:, :32, 2].mean() > 2.4 * shown[:, :32, 0].mean()
    (record,) = (tmp_path / "out" / "records" / "0-of-1.jsonl").read_text().splitlines()
    assert json.loads(record)["matched_colors"] == "source"
    settings = json.loads((tmp_path / "out" / "job.json").read_text())["fingerprint"]["settings"]
    asked = {"keep": ["exif", "profile"], "background": "transparent", "match_colors": "source"}
    assert settings == settings | asked


def test_colours_are_matched_channel_by_channel(icon: Image.Image) -> None:
    np.testing.assert_array_equal(pixels(matched(icon, icon)), pixels(icon))
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    found = pixels(matched(Image.fromarray(noise), icon))
    apart = np.sort(found.reshape(-1, 3), axis=0) - np.sort(pixels(icon).reshape(-1, 3), axis=0)
    assert np.abs(apart).mean() < 3 and abs(apart.mean()) < 1
    black = Image.new("RGB", icon.size)
    assert matched(black, icon).getbbox() is None, "what is black has failed, and is to show it"


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("output.keep=[exif, xmp]", "output.keep.1: should be 'exif' or 'profile'; found 'xmp'"),
        ("output.keep=exif", "output.keep: should be a list; found 'exif'"),
        ("background=black", "background: should be 'white' or 'transparent'; found 'black'"),
        ("match_colors=target", "match_colors: should be 'source'; found 'target'"),
        ("match_colors=true", "match_colors: should be 'source'; found true"),
    ],
)
def test_what_there_is_not_to_keep_is_refused(
    translate: Translate, pictures: Path, tmp_path: Path, setting: str, message: str
) -> None:
    result = translate(pictures, "-o", tmp_path / "out", "--set", setting)
    assert (result.exit_code, result.stderr) == (2, f"error: {message}\n")


def test_a_format_without_alpha_is_refused(translate: Translate, pictures: Path, tmp_path: Path) -> None:
    result = translate(
        pictures, "-o", tmp_path / "out", "--format", "jpg", "--set", "background=transparent"
    )
    assert result.exit_code == 2 and len(result.stderr.splitlines()) == 1
    assert "jpg does not; set output.format: png or webp" in result.stderr
    assert not (tmp_path / "out").exists()


def test_without_what_matches_colours_the_job_is_refused(
    translate: Translate, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "skimage", None)
    result = translate(pictures, "-o", tmp_path / "out", "--set", "match_colors=source")
    assert result.exit_code == 2 and len(result.stderr.splitlines()) == 1
    assert "match_colors needs scikit-image" in result.stderr
