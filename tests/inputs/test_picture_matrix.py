"""Formats, depths, photometrics, alpha and profiles, each file against what a reference makes of it.

The reference is ImageMagick, with littlecms for the profiles; where no sample is lost in the file, also
the arithmetic of what was written.
"""

import io
import struct
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pillow_heif
import pytest
import tifffile
from encoders import jp2_with_profile, lut_profile, png, ppm, tiff
from PIL import Image, ImageCms

from sdcorrect.config import Input
from sdcorrect.inputs.pictures import read_image

WITHIN = 2  #: levels of 255
HEIGHT, WIDTH = 23, 31
Y, X = np.mgrid[0:HEIGHT, 0:WIDTH]
#: From 0 to 1, (height, width, channels).
GREY = ((X + Y) / (HEIGHT + WIDTH - 2))[..., None]
RGB = np.stack([X / (WIDTH - 1), Y / (HEIGHT - 1), 1 - GREY[..., 0]], -1)
CMYK = np.concatenate([RGB, GREY / 2], -1)
ALPHA = np.minimum(2 * X / (WIDTH - 1), 1)[..., None]
PROFILES = {
    "grey": bytes(imagecodecs.cms_profile("gray", gamma=1.6)),
    "rgb": bytes(imagecodecs.cms_profile("adobergb")),
    "cmyk": lut_profile(),
}
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
P3_TO_SRGB = np.array([[1.2249, -0.2247, 0], [-0.0420, 1.0419, 0], [-0.0197, -0.0786, 1.0979]])


@dataclass
class Case:
    name: str
    data: bytes
    shown: np.ndarray | None = None  #: what was written, 0 to 1, where it is known
    asks: bool = True  #: whether ImageMagick is asked, which misreads some
    like: bytes | None = None  #: what it is asked about instead


def levels(values: np.ndarray, bits: int) -> np.ndarray:
    return np.round(values * (2**bits - 1)).astype(np.uint32)


def laid(colours: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    return colours * alpha + 1 - alpha


def curve(linear: np.ndarray) -> np.ndarray:
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


def linear(value: np.ndarray) -> np.ndarray:
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def saved(image: Image.Image, format: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format, **options)
    return stream.getvalue()


def image(values: np.ndarray) -> Image.Image:
    """`values` in 8 bits; two channels are grey with alpha, four are RGB with alpha."""
    samples = levels(values, 8).astype(np.uint8)
    return Image.fromarray(samples[..., 0] if samples.shape[-1] == 1 else samples)


def cmyk_image() -> Image.Image:
    return Image.frombytes("CMYK", (WIDTH, HEIGHT), levels(CMYK, 8).astype(np.uint8).tobytes())


def by_littlecms(picture: Image.Image, icc: bytes) -> np.ndarray:
    profiles = (ImageCms.ImageCmsProfile(io.BytesIO(each)) for each in (icc, SRGB))
    exact = ImageCms.Flags.NOOPTIMIZE
    return np.asarray(ImageCms.profileToProfile(picture, *profiles, outputMode="RGB", flags=exact)) / 255


def tiffs() -> Iterator[Case]:
    for bits in (1, 2, 4, 6, 8, 10, 12, 14, 16):
        for photometric, values in enumerate((1 - GREY, GREY, RGB, None, None, CMYK)):
            if values is None:
                continue
            for kind in (None, 1, 2) if photometric < 5 else (None,):
                yield from _tiffs(bits, photometric, values, kind)
    for bits in (1, 4, 8):
        palette = np.round(np.linspace((0, 1, 0.3), (1, 0, 0.6), 2**bits) * 65535).astype(int)
        indices = levels(GREY, bits)
        tag = (320, 3, tuple(palette.T.ravel().tolist()))
        yield Case(
            f"palette-{bits}", tiff(indices, bits, 3, tags=(tag,)), palette[indices[..., 0]] / 65535
        )
    indices, alpha = levels(GREY, 8), levels(ALPHA, 8)
    data = tiff(np.concatenate([indices, alpha], -1), 8, 3, extra=2, tags=(tag,))
    yield Case("palette-alpha", data, laid(palette[indices[..., 0]] / 65535, alpha / 255))
    for bits in (8, 16):
        samples = levels(RGB, bits).astype(np.uint8 if bits == 8 else np.uint16)
        for compression in ("lzw", "zlib", "packbits"):
            for planar in ("contig", "separate"):
                stream = io.BytesIO()
                tifffile.imwrite(
                    stream,
                    samples if planar == "contig" else np.moveaxis(samples, -1, 0),
                    photometric="rgb",
                    planarconfig=planar,
                    compression=compression,
                    predictor=compression != "packbits",
                    rowsperstrip=7,
                )
                yield Case(f"{compression}-{bits}-{planar}", stream.getvalue(), RGB)
    bilevel = image(GREY).convert("1")
    for compression in ("group3", "group4"):
        data = saved(bilevel, "TIFF", compression=compression)
        yield Case(compression, data, np.asarray(bilevel)[..., None])
    yield Case("jpeg", saved(image(RGB), "TIFF", compression="jpeg"))
    yield Case("ycbcr", saved(image(RGB).convert("YCbCr"), "TIFF"))
    for space, photometric, values in (("grey", 1, GREY), ("rgb", 2, RGB), ("cmyk", 5, CMYK)):
        for bits in (8, 16):
            icc = PROFILES[space]
            data = tiff(levels(values, bits), bits, photometric, profile=icc)
            # ImageMagick 6 knows one intent for tables; a profile asks for perceptual
            shown = by_littlecms(cmyk_image(), icc) if space == "cmyk" else None
            yield Case(f"icc-{space}-{bits}", data, shown, asks=space != "cmyk")


def _tiffs(bits: int, photometric: int, values: np.ndarray, kind: int | None) -> Iterator[Case]:
    most = 2**bits - 1
    colours, alpha = levels(values, bits), levels(ALPHA, bits)
    shown = {0: 1 - colours / most, 1: colours / most, 2: colours / most}.get(photometric)
    if photometric == 5:
        shown = (1 - colours[..., :3] / most) * (1 - colours[..., 3:] / most)
    assert shown is not None
    samples = colours
    if kind:
        stored = colours
        if kind == 1:  # premultiplied: black, wherever that is, at no alpha
            light = most - colours if photometric == 0 else colours
            light = np.round(light * (alpha / most)).astype(np.uint32)
            stored = most - light if photometric == 0 else light
            shown = light / most + 1 - alpha / most
        else:
            shown = laid(shown, alpha / most)
        samples = np.concatenate([stored, alpha], -1)
    # ImageMagick 6 misreads grey with alpha, and MinIsWhite, in most depths
    asks = bits in {8, 16} and not (photometric < 2 and kind) if photometric < 2 else True
    for planar in (False, True) if samples.shape[-1] > 1 and photometric > 1 else (False,):
        for deflate in (False, True):
            for order in "<>" if bits in {8, 12, 16} else "<":
                name = f"{bits}-{photometric}-{kind}{'-planar' * planar}{'-deflate' * deflate}{order}"
                data = tiff(
                    samples, bits, photometric, planar=planar, extra=kind, deflate=deflate, order=order
                )
                yield Case(name, data, shown, asks)


def pngs() -> Iterator[Case]:
    for bits in (1, 2, 4, 8, 16):
        grey = levels(GREY, bits)
        clear = int(grey[HEIGHT // 2, WIDTH // 2, 0])
        transparent = (b"tRNS", struct.pack(">H", clear))
        yield Case(f"grey-{bits}", png(grey, bits, 0), grey / (2**bits - 1))
        yield Case(
            f"grey-{bits}-trns",
            png(grey, bits, 0, transparent),
            np.where(grey == clear, 1, grey / (2**bits - 1)),
        )
    for bits in (1, 2, 4, 8):
        palette = levels(np.linspace((0, 1, 0.3), (1, 0, 0.6), 2**bits), 8).astype(np.uint8)
        alphas = np.linspace(0, 255, 2**bits).astype(np.uint8)
        indices, chunk = levels(GREY, bits), (b"PLTE", palette.tobytes())
        shown = palette[indices[..., 0]] / 255
        yield Case(f"palette-{bits}", png(indices, bits, 3, chunk), shown)
        yield Case(
            f"palette-{bits}-trns",
            png(indices, bits, 3, chunk, (b"tRNS", alphas.tobytes())),
            laid(shown, alphas[indices] / 255),
        )
    for bits in (8, 16):
        colours = levels(RGB, bits)
        clear_colour = colours[3, 4]
        yield Case(f"rgb-{bits}", png(colours, bits, 2), RGB)
        yield Case(
            f"rgb-{bits}-trns",
            png(colours, bits, 2, (b"tRNS", struct.pack(">3H", *clear_colour))),
            np.where((colours == clear_colour).all(-1, keepdims=True), 1, RGB),
        )
        yield Case(
            f"la-{bits}",
            png(levels(np.concatenate([GREY, ALPHA], -1), bits), bits, 4),
            laid(GREY, ALPHA),
        )
        yield Case(
            f"rgba-{bits}",
            png(levels(np.concatenate([RGB, ALPHA], -1), bits), bits, 6),
            laid(RGB, ALPHA),
        )
        for space, values, colour in (("grey", GREY, 0), ("rgb", RGB, 2)):
            icc = (b"iCCP", b"icc\0\0" + zlib_of(PROFILES[space]))
            yield Case(f"icc-{space}-{bits}", png(levels(values, bits), bits, colour, icc))
            both = levels(np.concatenate([values, ALPHA], -1), bits)
            yield Case(f"icc-{space}-alpha-{bits}", png(both, bits, colour + 4, icc))
        for gamma in (1 / 1.8, 0.8, 1.0):
            chunk = (b"gAMA", struct.pack(">I", round(gamma * 100_000)))
            for space, values, colour in (("grey", GREY, 0), ("rgb", RGB, 2)):
                samples = levels(values, bits)
                shown = curve((samples / (2**bits - 1)) ** (1 / gamma))
                data = png(samples, bits, colour, chunk)
                yield Case(f"gamma-{gamma:.2f}-{space}-{bits}", data, shown, asks=False)
                told = png(samples, bits, colour, (b"sRGB", b"\0"), chunk)
                yield Case(f"gamma-{gamma:.2f}-{space}-{bits}-srgb", told, values, asks=False)
        adobe = (31270, 32900, 64000, 33000, 21000, 71000, 15000, 6000)
        chunks = ((b"gAMA", struct.pack(">I", 45455)), (b"cHRM", struct.pack(">8I", *adobe)))
        same = png(levels(RGB, bits), bits, 2, (b"iCCP", b"icc\0\0" + zlib_of(PROFILES["rgb"])))
        yield Case(f"icc-gamma-chrm-{bits}", png(levels(RGB, bits), bits, 2, *chunks), like=same)
        p3 = (b"cICP", bytes((12, 13, 0, 1)))
        samples = levels(RGB, bits)
        shown = curve(np.clip(linear(samples / (2**bits - 1)) @ P3_TO_SRGB.T, 0, 1))
        yield Case(f"cicp-p3-{bits}", png(levels(RGB, bits), bits, 2, p3), shown, asks=False)


def zlib_of(data: bytes) -> bytes:
    return bytes(imagecodecs.zlib_encode(data))


def jpegs() -> Iterator[Case]:
    for name, picture in (("grey", image(GREY)), ("rgb", image(RGB)), ("cmyk", cmyk_image())):
        for progressive in (False, True):
            for subsampling in (0, 2) if name == "rgb" else (0,):
                options: dict[str, Any] = {"progressive": progressive, "subsampling": subsampling}
                case = f"{name}-{subsampling}{'-progressive' * progressive}"
                yield Case(case, whole := saved(picture, "JPEG", quality=95, **options))
                yield Case(f"{case}-no-end", whole[:-2], like=whole)
        data = saved(picture, "JPEG", quality=95, icc_profile=PROFILES[name])
        if name == "cmyk":
            shown = by_littlecms(Image.open(io.BytesIO(data)), PROFILES[name])
            yield Case("icc-cmyk", data, shown, asks=False)
        else:
            yield Case(f"icc-{name}", data)
    inverted = 255 - levels(CMYK, 8).astype(np.uint8)
    ycck = imagecodecs.jpeg8_encode(inverted, 98, colorspace="cmyk", outcolorspace="ycck")
    yield Case("ycck", bytes(ycck))
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        yield Case(f"orientation-{orientation}", saved(image(RGB), "JPEG", quality=95, exif=exif))


def others(format: str, **options: Any) -> Iterator[Case]:
    """RGB, with alpha where the format has some, and with a profile; lossless where it can be."""
    for name, values in (("rgb", RGB), ("rgba", np.concatenate([RGB, ALPHA], -1))):
        yield Case(name, saved(image(values), format, **options))
        yield Case(f"icc-{name}", saved(image(values), format, icc_profile=PROFILES["rgb"], **options))


def webps() -> Iterator[Case]:
    yield from others("WEBP", lossless=True, exact=True)


def gifs() -> Iterator[Case]:
    yield Case("palette", saved(image(RGB).quantize(32), "GIF"))
    yield Case("transparent", saved(image(RGB).quantize(32), "GIF", transparency=3))
    yield Case("grey", saved(image(GREY), "GIF"), GREY)


def bmps() -> Iterator[Case]:
    for mode in ("1", "L", "RGB"):
        picture = image(RGB).convert(mode)
        yield Case(mode, saved(picture, "BMP"), np.asarray(picture.convert("RGB")) / 255)
    yield Case("palette", saved(image(RGB).quantize(32), "BMP"))


def ppms() -> Iterator[Case]:
    for most in (1, 3, 255, 1023, 65535):
        for values, magic in ((GREY, 5), (RGB, 6)):
            samples = np.round(values * most).astype(int)
            yield Case(f"P{magic}-{most}", ppm(samples, most, magic), samples / most)
            yield Case(f"P{magic - 3}-{most}", ppm(samples, most, magic - 3), samples / most)
    bits = (GREY > 0.5).astype(int)
    yield Case("P1", ppm(bits, 1, 1), 1 - bits)
    yield Case("P4", ppm(bits, 1, 4), 1 - bits)


def jpeg2000s() -> Iterator[Case]:
    for name, values in (("grey", GREY), ("rgb", RGB), ("rgba", np.concatenate([RGB, ALPHA], -1))):
        shown = laid(RGB, ALPHA) if name == "rgba" else values
        yield Case(name, saved(image(values), "JPEG2000"), shown, asks=name != "rgba")
    yield Case("codestream", saved(image(RGB), "JPEG2000", no_jp2=True), RGB)
    deep = Image.fromarray(levels(GREY, 16).astype(np.uint16)[..., 0])
    yield Case("grey-16", saved(deep, "JPEG2000"), GREY)
    for bits in (4, 10, 12, 16):
        for name, values in (("grey", GREY), ("rgb", RGB)):
            samples = levels(values, bits).astype(np.uint8 if bits < 8 else np.uint16)
            data = imagecodecs.jpeg2k_encode(samples, level=0, bitspersample=bits, codecformat="jp2")
            shown = levels(values, bits) / (2**bits - 1)
            yield Case(f"deep-{name}-{bits}", bytes(data), shown, asks=False)
    data = jp2_with_profile(saved(image(RGB), "JPEG2000"), PROFILES["rgb"])
    yield Case("icc-rgb", data, by_littlecms(image(RGB), PROFILES["rgb"]), asks=False)


def avifs() -> Iterator[Case]:
    """By libavif: ImageMagick 6 heeds neither the matrix of their colours, nor alpha, nor a profile."""
    for case in others("AVIF", quality=95, subsampling="4:4:4"):
        samples = np.asarray(imagecodecs.avif_decode(case.data))
        picture = Image.fromarray(samples[..., :3])
        shown = by_littlecms(picture, PROFILES["rgb"]) if "icc" in case.name else samples[..., :3] / 255
        if samples.shape[-1] == 4:
            shown = laid(shown, samples[..., 3:] / 255)
        for brand in (b"avif", b"mif1", b"miaf"):
            data = case.data[:8] + brand + case.data[12:]
            yield Case(f"{case.name}-{brand.decode()}", data, shown, asks=False)


def heifs() -> Iterator[Case]:
    """Nothing else here decodes HEVC: as near as its own loss lets it be, at its best quality."""
    pillow_heif.register_heif_opener()
    for case in others("HEIF", quality=-1, chroma=444, matrix_coefficients=0):
        shown = RGB
        if "icc" in case.name:
            shown = by_littlecms(image(RGB), PROFILES["rgb"])
        yield Case(
            case.name, case.data, laid(shown, ALPHA) if "rgba" in case.name else shown, asks=False
        )


FORMATS = {
    "tiff": tiffs,
    "png": pngs,
    "jpeg": jpegs,
    "webp": webps,
    "gif": gifs,
    "bmp": bmps,
    "ppm": ppms,
    "jp2": jpeg2000s,
    "avif": avifs,
    "heic": heifs,
}


def reference(cases: list[Case], folder: Path) -> dict[str, np.ndarray]:
    """What ImageMagick makes of the cases, all by one process: (height, width, 3) each."""
    files = []
    for number, case in enumerate(cases):
        file = folder / f"{number:04}"
        file.write_bytes(case.like or case.data)
        files.append(file)
    found: dict[str, np.ndarray] = {}
    (folder / "srgb.icc").write_bytes(SRGB)
    for converts in (False, True):
        group = [
            n for n, case in enumerate(cases) if case.asks and case.name.startswith("icc") == converts
        ]
        if not group:
            continue
        profile = ("-profile", folder / "srgb.icc") if converts else ("-colorspace", "sRGB")
        command = (
            *("convert", *(f"{files[n]}[0]" for n in group), "-auto-orient"),
            *(*profile, "-background", "white", "-alpha", "remove", "-alpha", "off"),
            *("-colorspace", "sRGB", "-type", "TrueColor", "-depth", "8", "RGB:-"),
        )
        raw = subprocess.run(list(map(str, command)), capture_output=True, check=True).stdout
        assert len(raw) == len(group) * HEIGHT * WIDTH * 3
        for place, n in enumerate(group):
            pixels = np.frombuffer(raw, np.uint8)[place * HEIGHT * WIDTH * 3 :][: HEIGHT * WIDTH * 3]
            found[cases[n].name] = pixels
    return found


@pytest.mark.parametrize("format", FORMATS)
def test_pictures_are_read_as_a_reference_reads_them(format: str, tmp_path: Path) -> None:
    cases = list(FORMATS[format]())
    assert len({case.name for case in cases}) == len(cases)
    expected = reference(cases, tmp_path)
    errors: dict[str, float] = {}
    for case in cases:
        file = tmp_path / "picture"
        file.write_bytes(case.data)
        got = np.asarray(read_image(file, Input(path=file))[0]).astype(int)
        wanted = [expected[case.name].reshape(got.shape)] if case.asks else []
        if case.shown is not None:
            wanted.append(np.broadcast_to(255 * case.shown, got.shape))
        errors[case.name] = max(float(np.abs(got - want).max()) for want in wanted)
    worst = max(errors, key=lambda name: errors[name])
    told = f"{format}: {len(cases)} files, the worst error {errors[worst]:.1f} of 255, {worst}"
    sys.stdout.write(f"{told}\n")
    assert {name: error for name, error in errors.items() if error > WITHIN} == {}
