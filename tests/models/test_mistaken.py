"""Files that were saved in place of weights are recognised, whatever their names."""

import gzip
import io
import tarfile
import zipfile
from pathlib import Path

import pytest
import torch

from sdcorrect.errors import UsageError
from sdcorrect.models.tensors import SUFFIXES, read_header, read_shapes, read_tensors


def zipped() -> bytes:
    with zipfile.ZipFile(stream := io.BytesIO(), "w") as content:
        content.writestr("ink.safetensors", b"\0" * 600)
    return stream.getvalue()


def tarred() -> bytes:
    with tarfile.open(fileobj=(stream := io.BytesIO()), mode="w") as content:
        content.addfile(tarfile.TarInfo("ink.safetensors"))
    return stream.getvalue()


def pickled() -> bytes:
    torch.save({"a": torch.ones(2)}, stream := io.BytesIO())
    return stream.getvalue()


@pytest.mark.parametrize("suffix", sorted(SUFFIXES))
@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"\r\n<!DOCTYPE html>\n<title>Log in</title>", "is a web page, not weights"),
        ("\ufeff<html>schön".encode(), "is a web page, not weights"),
        (b'{"error": "not authorised"}', "is JSON text, not weights"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "run `git lfs pull`"),
        (zipped(), "is a zip archive, not weights; unpack it"),
        (gzip.compress(b"weights"), "is a gzip archive"),
        (b"7z\xbc\xaf\x27\x1c" + bytes(90), "is a 7z archive"),
        (tarred(), "is a tar archive"),
        (b"", "it is empty; download it again"),
        (zipped()[:300], "it may be cut short"),
        (b"\x02\x00\x00\x00\x00\x00\x00\x00{", "it may be cut short"),
    ],
    # archives contain the time: two workers would give the same test different names
    ids=[
        "page",
        "page-with-mark",
        "json",
        "pointer",
        "zip",
        "gzip",
        "7z",
        "tar",
        "empty",
        "cut-zip",
        "cut-header",
    ],
)
def test_what_was_saved_instead_is_told(
    tmp_path: Path, suffix: str, content: bytes, expected: str
) -> None:
    file = tmp_path / f"ink{suffix}"
    file.write_bytes(content)
    readers = (read_shapes, read_tensors, *[read_header] * (suffix == ".safetensors"))
    for read in readers:
        with pytest.raises(UsageError, match=expected) as refused:
            read("lora", file)
        assert str(refused.value).startswith(f"lora {file}: ")


def test_torchs_own_zip_is_no_archive(tmp_path: Path) -> None:
    (tmp_path / "a.pt").write_bytes(pickled())
    assert read_shapes("lora", tmp_path / "a.pt") == {"a": (2,)}
    (tmp_path / "a.safetensors").write_bytes(pickled())
    with pytest.raises(UsageError, match=r"rename it to \.ckpt"):
        read_shapes("lora", tmp_path / "a.safetensors")
