"""Picture files written by hand, of every depth and photometric: Pillow itself writes few of them."""

import struct
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

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
        *tags,
    ]
    body = b"".join(strips)
    body += bytes(len(body) % 2)
    entries = b""
    for tag, kind, values in sorted(given):
        value = struct.pack(f"{order}{len(values)}{'H' if kind == 3 else 'I'}", *values)
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
    data = b"".join(b"\0" + rows[stride * row :][:stride] for row in range(height))
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, interlace)
    return png_of((b"IHDR", header), *chunks, (b"IDAT", zlib.compress(data)), (b"IEND", b""))


def png_of(*chunks: tuple[bytes, bytes]) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )
