"""Prompts from what web UIs and sdcorrect write into pictures, as untidy as it lies about."""

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import piexif
import pytest
from piexif.helper import UserComment
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from sdcorrect.batch.metadata import encode, parameters
from sdcorrect.inputs.items import Item
from sdcorrect.inputs.parameters import split

#: As Forge writes it: lines of a prompt, what other programs add, settings with commas in quotes.
FORGE = """a castle, (ink:1.2), “dusk”
on a hill
Negative prompt: blurry,
ugly
Steps: 20, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 7, Seed: 1, Size: 64x64, \
Model: "a, b", Lora hashes: "ink: 1a2b", Version: f2.0
Template: a {castle|house}
Negative Template: blurry"""
PROMPT, NEGATIVE = "a castle, (ink:1.2), “dusk”\non a hill", "blurry,\nugly"
SHORT = "un café\nNegative prompt: flou\nSteps: 20, Sampler: Euler a"


def png(icon: Image.Image, text: str, **how: Any) -> bytes:
    info = PngInfo()
    info.add_itxt("parameters", text, **how) if how.pop("itxt", False) else info.add_text(
        "parameters", text, **how
    )
    return saved(icon, "PNG", pnginfo=info)


def saved(icon: Image.Image, format: str, **more: Any) -> bytes:
    stream = io.BytesIO()
    icon.save(stream, format, **more)
    return stream.getvalue()


def chunk(kind: bytes, content: bytes) -> bytes:
    return (
        struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
    )


def behind_the_pixels(icon: Image.Image, content: bytes) -> bytes:
    """As ImageMagick leaves the texts of a PNG."""
    whole = saved(icon, "PNG")
    return whole[:-12] + chunk(b"tEXt", b"date:create\0now") + chunk(b"tEXt", content) + whole[-12:]


def commented(icon: Image.Image, format: str, comment: bytes) -> bytes:
    exif = piexif.dump({"0th": {271: b"a camera"}, "Exif": {piexif.ExifIFD.UserComment: comment}})
    return saved(icon, format, exif=exif)


def unicode(text: str, encoding: str) -> bytes:
    return b"UNICODE\0" + text.encode(encoding)


@pytest.fixture
def prompts(find: Callable[..., list[Item]], tmp_path: Path) -> Callable[..., tuple[str, str]]:
    """The prompt and the negative prompt of a picture, or twice what is wrong with it."""

    def prompts(content: bytes, **settings: Any) -> tuple[str, str]:
        (tmp_path / "in").mkdir(exist_ok=True)
        (tmp_path / "in" / "a.png").write_bytes(content)  # the suffix tells nothing
        asked = {"prompt": "{parameters}", "negative_prompt": "{parameters}"} | settings
        (item,) = find(tmp_path / "in", **asked)
        return (item.problem, item.problem) if item.problem else (item.prompt, item.negative_prompt)

    return prompts


Prompts = Callable[..., tuple[str, str]]


def test_a_text_is_parted_as_the_web_uis_part_it() -> None:
    assert split(FORGE) == split(FORGE.replace("\n", "\r\n")) == (PROMPT, NEGATIVE)
    assert split("a cat\nSteps: 1, Seed: 2") == split("a cat") == ("a cat", "")
    assert split("Negative prompt: b\nSteps: 1") == ("", "b")
    assert split("Steps: to the sea\nSteps: 20, CFG scale: 7") == ("Steps: to the sea", "")
    assert split(parameters("a cat", "b", {"Steps": 2, "Model": 'x, "y"\nz'})) == ("a cat", "b")


@pytest.mark.parametrize("how", [{}, {"zip": True}, {"itxt": True, "zip": True}])
def test_of_every_kind_of_a_png_s_texts(prompts: Prompts, icon: Image.Image, how: Any) -> None:
    assert prompts(png(icon, FORGE, **how)) == (PROMPT, NEGATIVE)
    assert prompts(png(icon, SHORT, **how)) == ("un café", "flou")


@pytest.mark.parametrize("encoding", ["latin-1", "utf-8"])
def test_of_a_text_behind_the_pixels(prompts: Prompts, icon: Image.Image, encoding: str) -> None:
    content = b"parameters\0" + SHORT.encode(encoding)
    assert prompts(behind_the_pixels(icon, content)) == ("un café", "flou")


@pytest.mark.parametrize("format", ["JPEG", "WEBP", "PNG"])
@pytest.mark.parametrize("encoding", ["utf-16-be", "utf-16-le", "utf-16", "utf-8"])
def test_of_a_user_comment_in_either_order(
    prompts: Prompts, icon: Image.Image, format: str, encoding: str
) -> None:
    assert prompts(commented(icon, format, unicode(FORGE, encoding))) == (PROMPT, NEGATIVE)
    # 一 has a byte of zero where letters of ASCII have theirs in the other order
    prompt = "一一一一一一一一一一一一一一一一一一"
    asian = unicode(f"{prompt}\nSteps: 20, Seed: 1", encoding)
    assert prompts(commented(icon, format, asian)) == (prompt, "")


def test_of_a_user_comment_as_piexif_writes_it(prompts: Prompts, icon: Image.Image) -> None:
    for encoding, text in (("ascii", SHORT.replace("é", "e")), ("unicode", SHORT)):
        content = commented(icon, "JPEG", UserComment.dump(text, encoding=encoding))
        assert prompts(content) == (text.split("\n")[0], "flou")


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp"])
def test_of_what_sdcorrect_writes(prompts: Prompts, icon: Image.Image, suffix: str) -> None:
    text = parameters("a “castle”", "blurry", {"Steps": 20, "Seed": 7, "Model": "mini"})
    assert prompts(encode(icon, suffix, text, 6)) == ("a “castle”", "blurry")


def test_among_other_words(prompts: Prompts, icon: Image.Image) -> None:
    asked = {"prompt": "{parameters}, by {stem}", "negative_prompt": "", "source_prompt": "{parameters}"}
    assert prompts(png(icon, "a {b|c}\nSteps: 1"), **asked) == ("a {b|c}, by a", "")
    assert prompts(png(icon, "a\nSteps: 1"), negative_prompt="dull {parameters}") == ("a", "dull ")


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda icon: saved(icon, "PNG"), "there are none in it that a web UI writes"),
        (lambda icon: saved(icon, "GIF"), "there are none in it"),
        (lambda icon: commented(icon, "JPEG", b"ASCII\0\0\0our cat"), "there are none in it"),
        (lambda icon: commented(icon, "JPEG", b"ASCII\0\0\0" + b" " * 80), "there are none in it"),
        (lambda icon: png(icon, '{"prompt": "a"}'), "they are JSON, which other programs write"),
        (lambda icon: commented(icon, "WEBP", unicode('{"a": 1}', "utf-16-be")), "they are JSON"),
        (lambda icon: png(icon, "Negative prompt: b\nSteps: 1"), "those within it have no prompt"),
        (lambda icon: png(icon, "a " * (9 << 20), zip=True), "its metadata are damaged"),
        (
            lambda icon: png(icon, "a\nSteps: 1").replace(b"tEXtparameters\0a", b"tEXtparameters\0b"),
            "damaged",
        ),
        (lambda icon: b"no picture", "not a picture that can be read"),
        (lambda icon: png(icon, "a <lora:oil:0.7>\nSteps: 1"), "path: oil.safetensors, weight: 0.7}"),
        (lambda icon: png(icon, "a\nNegative prompt: <lora:oil>\nSteps: 1"), "path: oil.safetensors"),
        (lambda icon: png(icon, "a <hypernet:ink:1>\nSteps: 1"), "hypernetworks are not supported"),
    ],
)
def test_what_has_none_fails_alone(
    prompts: Prompts, icon: Image.Image, make: Callable[[Image.Image], bytes], reason: str
) -> None:
    problem, _ = prompts(make(icon), loras=["models/ink.safetensors"])
    assert reason in problem and "\n" not in problem


def test_loras_that_the_job_has_are_no_words(prompts: Prompts, icon: Image.Image) -> None:
    text = "a <lora:ink:0.7>castle <lyco: Oil paint :1:0.5>\nNegative prompt: b<lora:ink:1>\nSteps: 1"
    loras = [{"path": "models/ink.safetensors", "weight": 0.5}, "Oil paint.pt"]
    assert prompts(png(icon, text), loras=loras) == ("a castle", "b")


def test_a_picture_that_has_none_is_recorded_and_the_others_go_on(
    translate: Callable[..., Any], icon: Image.Image, tmp_path: Path
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "told.png").write_bytes(png(icon, FORGE))
    (folder / "untold.png").write_bytes(saved(icon, "PNG"))
    result = translate(folder, "-p", "{parameters}", "-o", tmp_path / "out", "--method", "sdedit")
    assert result.exit_code == 3
    failed = [line for line in result.stderr.splitlines() if line.startswith("failed: ")]
    assert len(failed) == 1 and "untold.png (sdedit): the prompt needs {parameters}" in failed[0]
    made = Image.open(tmp_path / "out" / "sdedit" / "told.png").info["parameters"]
    assert made.startswith(f"{PROMPT}\nSteps: 2, Sampler: DDIM")
