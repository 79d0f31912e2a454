"""Images made of random numbers, and a file that only claims to be one."""

from __future__ import annotations

import struct
import zlib

import numpy as np
from PIL import Image


def drawn(width: int = 40, height: int = 30, seed: int = 0) -> Image.Image:
    """An image no two parts of which are alike."""
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)).resize((width, height))


def png_header(width: int, height: int) -> bytes:
    """A PNG that is nothing but the claim of a size."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)) + chunk(b"IDAT", zlib.compress(b""))
