"""Picture files written by hand, of every depth and photometric: Pillow itself writes few of them."""

import struct
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

TITLE = b"desc\0\0\0\0" + struct.pack(">I", 5) + b"cmyk\0" + bytes(79)  #: of a profile
FIELDS = {3: "H", 4: "I", 7: "B"}  #: TIFF's types

Samples = NDArray[np.integer[Any]]


def packed(samples: Samples, bits: int, order: str = ">") -> bytes:
    """Rows of samples (height, width, channels), `bits` each, every row from a whole byte on.

    `order` is that of the bytes in samples of 16 and 32 bits.
    """
    height = len(samples)
    if bits % 8 == 0:
        return samples.astype(f"{order}u{bits // 8}").tobytes()
    shifts = np.arange(bits - 1, -1, -1)
    each = (samples.reshape(height, -1, 1).astype(np.uint32) >> shifts) & 1
    return np.packbits(each.reshape(height, -1).astype(np.uint8), axis=1).tobytes()


def tiff(
    samples: Samples,
    bits: int,
    photometric: int,
    *,
    planar: bool = False,
    extra: int | None = None,
    deflate: bool = False,
    order: str = "<",
    tags: tuple[tuple[int, int, tuple[int, ...]], ...] = (),
    profile: bytes | None = None,
) -> bytes:
    """A TIFF of one strip, or of one for each plane.

    Args:
        samples: (height, width, channels), not inverted where the photometric is.
        extra: what the last channel is, as ExtraSamples says: 1 premultiplied alpha, 2 plain.
        tags: more of them: number, type (3 is SHORT) and values.
    """
    height, width, channels = samples.shape
    planes = [samples[..., [n]] for n in range(channels)] if planar else [samples]
    strips = [packed(plane, bits, order) for plane in planes]
    if deflate:
        strips = [zlib.compress(strip) for strip in strips]
    offsets = tuple(8 + sum(map(len, strips[:n])) for n in range(len(strips)))
    given = [
        *((256, 3, (width,)), (257, 3, (height,)), (258, 3, (bits,) * channels)),
        *((259, 3, (8 if deflate else 1,)), (262, 3, (photometric,)), (273, 4, offsets)),
        *((277, 3, (channels,)), (278, 3, (height,)), (279, 4, tuple(map(len, strips)))),
        (284, 3, (2 if planar else 1,)),
        *([(338, 3, (extra,))] if extra is not None else []),
        *([(34675, 7, tuple(profile))] if profile else []),
        *tags,
    ]
    body = b"".join(strips)
    body += bytes(len(body) % 2)
    entries = b""
    for tag, kind, values in sorted(given):
        value = struct.pack(f"{order}{len(values)}{FIELDS[kind]}", *values)
        if len(value) > 4:
            body, value = body + value, struct.pack(f"{order}I", 8 + len(body))
        entries += struct.pack(f"{order}HHI", tag, kind, len(values)) + value.ljust(4, b"\0")
    head = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HI", 42, 8 + len(body))
    return head + body + struct.pack(f"{order}H", len(given)) + entries + bytes(4)


def png(
    samples: Samples, bits: int, colour: int, *chunks: tuple[bytes, bytes], interlace: int = 0
) -> bytes:
    """A PNG of samples (height, width, channels); `chunks` go before its pixels."""
    height, width, _ = samples.shape
    rows = packed(samples, bits)
    stride = len(rows) // height
    data = b"".join(b"\0" + rows[stride * row : stride * (row + 1)] for row in range(height))
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, interlace)
    return png_of((b"IHDR", header), *chunks, (b"IDAT", zlib.compress(data)), (b"IEND", b""))


def png_of(*chunks: tuple[bytes, bytes]) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )


def ppm(samples: Samples, most: int, magic: int) -> bytes:
    """PBM, PGM or PPM: 1 to 3 are text, 4 to 6 the same in bytes."""
    height, width, _ = samples.shape
    head = f"P{magic}\n# by hand\n{width} {height}\n" + ("" if magic in {1, 4} else f"{most}\n")
    if magic < 4:
        return f"{head}{' '.join(map(str, samples.ravel().tolist()))}\n".encode()
    return head.encode() + packed(samples, 1 if magic == 4 else 8 if most < 256 else 16)


def lut_profile(space: str = "CMYK") -> bytes:
    """An ICC profile of a printer or, of RGB, a scanner: to Lab by a table, and no way back.

    The table has two points a channel (ICC.1, 10.10).
    """
    channels = len(space)
    points = np.stack(np.meshgrid(*[(0, 1)] * channels, indexing="ij"), -1).reshape(-1, channels)
    light = (1 - points[:, :3].mean(1)) * (1 - points[:, 3]) if channels == 4 else points.mean(1)
    lab = np.stack(
        [255 * light, 128 + 40 * (points[:, 1] - points[:, 0]), 128 + 60 * (points[:, 2] - 0.5)]
    )
    ramp = bytes(range(256))
    identity = struct.pack(">9i", *(65536 * n for n in (1, 0, 0, 0, 1, 0, 0, 0, 1)))
    table = b"mft1\0\0\0\0" + bytes((channels, 3, 2, 0)) + identity
    table += ramp * channels + np.round(lab.T).clip(0, 255).astype(np.uint8).tobytes() + ramp * 3
    white = b"XYZ \0\0\0\0" + struct.pack(">3i", 63190, 65536, 54061)
    tags = {b"A2B0": table, b"wtpt": white, b"cprt": b"text\0\0\0\0none\0", b"desc": TITLE}
    index, body, start = b"", b"", 132 + 12 * len(tags)
    for name, content in tags.items():
        content += bytes(-len(content) % 4)
        index += name + struct.pack(">II", start + len(body), len(content))
        body += content
    kind = b"prtr" if channels == 4 else b"scnr"
    spaces = space.ljust(4).encode() + b"Lab "
    head = struct.pack(">I4sI4s8s", start + len(body), b"lcms", 0x02400000, kind, spaces)
    head += bytes(12) + b"acsp" + bytes(28) + struct.pack(">3i", 63190, 65536, 54061)
    return head.ljust(128, b"\0") + struct.pack(">I", len(tags)) + index + body


def jp2_with_profile(data: bytes, icc: bytes) -> bytes:
    """A JP2 that tells its colours by a number, with a profile in its place."""
    header, colours = data.index(b"jp2h") - 4, data.index(b"colr") - 4
    end = colours + int.from_bytes(data[colours : colours + 4], "big")
    box = b"colr\2\0\0" + icc
    box = struct.pack(">I", len(box) + 4) + box
    length = int.from_bytes(data[header : header + 4], "big") + len(box) - (end - colours)
    return data[:header] + struct.pack(">I", length) + data[header + 4 : colours] + box + data[end:]
