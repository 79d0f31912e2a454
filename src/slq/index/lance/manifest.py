"""Which files a version of a Lance table is made of, as its manifest lists them.

A manifest ends with the place of its message, two version numbers and `LANC`; the message is in the protocol-buffer encoding of Lance's
published table format. Read here is only what names files: LanceDB tells it through no function of its own.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_FOOTER = struct.Struct("<QHH4s")  # where the message begins, two version numbers, the magic word
_LENGTH = struct.Struct("<I")  # stands before a message
_LARGEST = 2**64 - 1  # a manifest is named by this less its version, so that the newest comes first
_FRAGMENTS, _VERSION, _INDICES, _TRANSACTION = 2, 3, 6, 12  # of a manifest
_FRAGMENT_ID, _DATA_FILES, _DELETION_FILE, _PHYSICAL_ROWS = 1, 2, 3, 4  # of a fragment
_PATH = 1  # of a data file
_DELETION_KIND, _READ_VERSION, _DELETION_ID, _DELETED_ROWS = 1, 2, 3, 4  # of a deletion file
_DELETION_SUFFIX = {0: "arrow", 1: "bin"}
Value = int | bytes


@dataclass(frozen=True)
class Fragment:
    """Rows that are stored together.

    Attributes:
        number: the upper 32 bits of its rows' addresses.
        rows: how many there are, without the deleted ones.
        files: their paths within the table.
    """

    number: int
    rows: int
    files: tuple[str, ...]


@dataclass(frozen=True)
class Manifest:
    """A version of a table.

    Attributes:
        version: its number.
        fragments: its rows.
        indices: folders within the table, each of one segment of an index.
        transaction: the file that says what this version changed; nothing that is read needs it.
    """

    version: int
    fragments: tuple[Fragment, ...]
    indices: tuple[str, ...]
    transaction: str


def manifest_name(version: int) -> str:
    """The path of a manifest within its table.

    Args:
        version: its number.
    """
    return f"_versions/{_LARGEST - version}.manifest"


def version_of(manifest: Path) -> int | None:
    """The number of the version that a file's name stands for; None if it is no manifest's.

    Args:
        manifest: a file of the folder of manifests.
    """
    return _LARGEST - int(manifest.stem) if manifest.suffix == ".manifest" and manifest.stem.isdecimal() else None


def read_manifest(content: bytes) -> Manifest:
    """What a manifest says.

    Args:
        content: of the whole file.

    Raises:
        ValueError: if it is not whole, or not of the format that is known here.
    """
    try:
        start, _, _, magic = _FOOTER.unpack(content[-_FOOTER.size :])
        if magic != b"LANC":
            raise ValueError("it does not end as a manifest does")
        version, fragments, transaction = 0, [], ""
        indices: tuple[str, ...] = ()
        for number, value in _fields(_message(content, start)):
            if number == _FRAGMENTS:
                fragments.append(_fragment(_as_bytes(value)))
            elif number == _VERSION:
                version = _as_int(value)
            elif number == _INDICES:
                indices = tuple(_indices(_message(content, _as_int(value))))
            elif number == _TRANSACTION:
                transaction = f"_transactions/{_as_bytes(value).decode()}"
    except (struct.error, IndexError, KeyError, UnicodeDecodeError) as error:
        raise ValueError(f"it is not whole ({error})") from error
    return Manifest(version, tuple(fragments), tuple(dict.fromkeys(indices)), transaction)


def _message(content: bytes, start: int) -> bytes:
    """The message that stands at a place, behind its length."""
    (length,) = _LENGTH.unpack_from(content, start)
    message = content[start + _LENGTH.size : start + _LENGTH.size + length]
    if len(message) != length:
        raise ValueError("it is shorter than it says")
    return message


def _fragment(message: bytes) -> Fragment:
    number, rows, files, deletion = 0, 0, [], None
    for field, value in _fields(message):
        if field == _FRAGMENT_ID:
            number = _as_int(value)
        elif field == _PHYSICAL_ROWS:
            rows = _as_int(value)
        elif field == _DATA_FILES:
            files.append("data/" + next(_as_bytes(path).decode() for name, path in _fields(_as_bytes(value)) if name == _PATH))
        elif field == _DELETION_FILE:
            deletion = dict(_fields(_as_bytes(value)))
    if deletion is not None:
        suffix = _DELETION_SUFFIX[_as_int(deletion.get(_DELETION_KIND, 0))]
        read_version, unique = (_as_int(deletion.get(field, 0)) for field in (_READ_VERSION, _DELETION_ID))
        files.append(f"_deletions/{number}-{read_version}-{unique}.{suffix}")
        rows -= _as_int(deletion.get(_DELETED_ROWS, 0))
    return Fragment(number, rows, tuple(files))


def _indices(message: bytes) -> Iterator[str]:
    """Folders of the segments, named by the 16 bytes of their UUID, which is a message of one field."""
    for _, segment in _fields(message):
        unique = next((_as_bytes(value) for field, value in _fields(_as_bytes(segment)) if field == 1), None)
        if unique is not None:
            digits = next(_as_bytes(value) for field, value in _fields(unique) if field == 1).hex()
            yield f"_indices/{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def _fields(message: bytes) -> Iterator[tuple[int, Value]]:
    """Numbers and values of a message's fields, in the encoding of protocol buffers."""
    place = 0
    while place < len(message):
        tag, place = _varint(message, place)
        kind, value = tag & 7, b""
        if kind == 0:
            number, place = _varint(message, place)
            yield tag >> 3, number
            continue
        size = {1: 8, 5: 4}.get(kind)
        if size is None:
            if kind != 2:
                raise ValueError(f"it holds a field of the unknown kind {kind}")
            size, place = _varint(message, place)
        value = message[place : place + size]
        if len(value) != size:
            raise ValueError("one of its fields is cut off")
        place += size
        yield tag >> 3, value


def _varint(message: bytes, place: int) -> tuple[int, int]:
    """A number of seven bits a byte, and the place behind it."""
    number = shift = 0
    while True:
        byte = message[place]
        number |= (byte & 127) << shift
        place, shift = place + 1, shift + 7
        if byte < 128:
            return number, place


def _as_int(value: Value) -> int:
    if not isinstance(value, int):
        raise ValueError("one of its fields is no number")
    return value


def _as_bytes(value: Value) -> bytes:
    if not isinstance(value, bytes):
        raise ValueError("one of its fields is a number")
    return value
