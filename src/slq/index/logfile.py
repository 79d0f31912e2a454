"""A log of JSON lines, each with a checksum before it, written so that what a crash cuts off does not count."""

from __future__ import annotations

import json
import os
import zlib
from pathlib import Path
from typing import Any

from slq.io.disk import sync
from slq.io.files import map_os_errors


def write_at(file: Path, place: int, content: bytes) -> None:
    """Write behind the part of a file that counts, over what a crash left there, and wait for the disk.

    Args:
        file: open for writing.
        place: in bytes, where what counts ends.
        content: what is written there.
    """
    is_new = not file.exists()
    with map_os_errors(file):
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            os.ftruncate(descriptor, place)
            view = memoryview(content)
            while view:
                written = os.pwrite(descriptor, view, place)
                view, place = view[written:], place + written
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        if is_new:
            sync(file.parent)


def to_line(change: dict[str, Any]) -> bytes:
    """A line of the log.

    Args:
        change: ready for JSON.
    """
    content = json.dumps(change).encode()
    return f"{checksum(content)} ".encode() + content + b"\n"


def from_line(line: bytes) -> dict[str, Any] | None:
    """What a line of the log says; None if its checksum is wrong.

    Args:
        line: as `to_line` gave it, or what a crash left of it.
    """
    found, _, content = line.partition(b" ")
    return json.loads(content) if found == checksum(content).encode() else None


def checksum_of(head: dict[str, Any]) -> str:
    """CRC-32 of an object, whatever the order of its keys.

    Args:
        head: ready for JSON.
    """
    return checksum(json.dumps(head, sort_keys=True).encode())


def checksum(content: bytes) -> str:
    """CRC-32 in hexadecimal.

    Args:
        content: of any length.
    """
    return f"{zlib.crc32(content):08x}"
