"""Records on disk by the hash of what they depend on: each whole or absent, with a checksum, in a folder that processes may share.

A record is one file, `ab/abcd....<checksum><suffix>`. The checksum of its bytes stands in its name, so that every format is checked alike
and a file can be read in place. Only a record whose bytes are not what its name says is corrupt; it is removed and computed again. What the
operating system cannot read just now (no permission, too many open files, a bad disk) says nothing about the record: it is left alone.

First come, first stored under a byte budget: nothing is ever evicted, so what is there does not depend on timing.
"""

from __future__ import annotations

import json
import os
import re
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from safetensors import SafetensorError

from slq.errors import InputError
from slq.io.disk import checksum, new_file, sync
from slq.io.files import crash_point, is_abandoned, map_os_errors, sibling_path

T = TypeVar("T")

# What backup programs know a cache by (bford.info/cachedir).
TAG_FILE = "CACHEDIR.TAG"
_TAG = "Signature: 8a477f597d28d172789f06886806bc55\n# A cache of slq; safe to remove.\n"
NEARLY_FULL = 0.99  # fraction of a budget past which hardly a record fits
_RECOUNTS = 100  # times that the folder is counted anew while it fills up, for what other processes put there
_KEY = re.compile(r"[A-Za-z0-9_-]{2,128}")


@dataclass(frozen=True)
class Codec(Generic[T]):
    """How a value stands in a file.

    Attributes:
        suffix: of the file's name.
        write: writes a value to a path.
        read: the value in a file.
    """

    suffix: str
    write: Callable[[Path, T], object]
    read: Callable[[Path], T]


JSON: Codec[Any] = Codec(
    ".json",
    lambda path, value: path.write_text(json.dumps(value), encoding="utf-8"),
    lambda path: json.loads(path.read_bytes()),
)


def bytes_codec(suffix: str) -> Codec[bytes]:
    """Files of any kind as they are, such as images.

    Args:
        suffix: of the files' names, `.png`.
    """
    return Codec(suffix, lambda path, value: path.write_bytes(value), lambda path: path.read_bytes())


class RecordStore(Generic[T]):
    """A folder of records.

    Attributes:
        num_bytes: size of all records.
        corrupt: how many corrupt records were found and removed.
        failure: why nothing is written any more; None while all is well.
    """

    def __init__(self, folder: Path, codec: Codec[T], budget: int | None = None, *, required: bool = False):
        """Open a folder of records, or make one.

        Args:
            folder: where the records are; a folder that cannot be made or written ends the writing, with a warning, and no more.
            codec: how a value stands in a file.
            budget: bytes that the records may take; None for as many as the disk holds.
            required: whether what cannot be written is an error instead, since the caller needs the file.

        Raises:
            InputError: if the folder holds anything but records: its tag would tell backups to leave that out.
            OutputError: if the folder is `required` and cannot be made.
        """
        if not (folder / TAG_FILE).exists() and folder.is_dir() and (foreign := next(folder.iterdir(), None)) is not None:
            raise InputError(f"{folder} is not a cache folder of slq: it holds {foreign.name}. Name a new or an empty folder.")
        self.folder, self.codec, self.budget, self.required = folder, codec, budget, required
        self.num_bytes = self.corrupt = self._count = self._written = 0
        self.failure: Exception | None = None
        self._lock, self._checked, self._warned = threading.Lock(), set[str](), False
        self._name = re.compile(rf"(?P<key>{_KEY.pattern})\.(?P<checksum>[0-9a-f]{{8}}){re.escape(codec.suffix)}")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with suppress(FileExistsError), (folder / TAG_FILE).open("x", encoding="utf-8") as file:
                file.write(_TAG)
        except OSError as error:
            self._stop_writing(error)
        self._remove_abandoned()
        self._recount()

    def __len__(self) -> int:
        return self._count

    def __contains__(self, key: str) -> bool:
        """Whether there is a file; it may still prove corrupt."""
        return self._find(key) is not None

    @property
    def full(self) -> bool:
        """Whether it takes nothing more, or next to nothing."""
        return self.failure is not None or (self.budget is not None and self.num_bytes >= NEARLY_FULL * self.budget)

    def keys(self) -> Iterator[str]:
        """The keys of all records, in order, also of those that other processes put there."""
        seen = ""
        for path in self.files():
            key = self._key_of(path)
            if key != seen:
                yield key
            seen = key

    def files(self) -> list[Path]:
        """The records' files, in order."""
        return sorted(path for path in self._all_files() if self._name.fullmatch(path.name))

    def path(self, key: str) -> Path | None:
        """The file of a record, its checksum verified once in this process; None if there is none that can be read.

        Args:
            key: letters, digits, `-` and `_`.
        """
        path = self._find(key)
        if path is None:
            return None
        if path.name not in self._checked:
            try:
                found = checksum(path)
            except FileNotFoundError:  # another process has removed it since
                return None
            except OSError as error:
                self._warn_unreadable(path, error)
                return None
            if found != self._checksum_of(path):
                self._remove_corrupt(path)
                return None
            self._checked.add(path.name)
        return path

    def get(self, key: str) -> T | None:
        """The value of a record; None if there is none, if it is corrupt (and then removed), or if it cannot be read just now.

        Args:
            key: letters, digits, `-` and `_`.
        """
        path = self.path(key)
        if path is None:
            return None
        try:
            return self.codec.read(path)
        except FileNotFoundError:
            return None
        except (OSError, SafetensorError) as error:  # its bytes are right, so the fault lies elsewhere: the record stays
            self._warn_unreadable(path, error)
            return None

    def put(self, key: str, value: T, size: int = 0) -> Path | None:
        """Store a value.

        Args:
            key: letters, digits, `-` and `_`.
            value: what to store. A record that is there already stays as it is.
            size: bytes that it takes at least, where that is known beforehand: what has no room is then not written first.

        Returns:
            The record's file; None if there is no room, or the folder cannot be written.

        Raises:
            OutputError: if the folder is `required` and cannot be written.
        """
        if self.failure is not None or not self._has_room(size):
            return None
        if (found := self.path(key)) is not None:
            return found
        shard = self.folder / key[:2]
        partial = sibling_path(shard / key)
        try:
            shard.mkdir(exist_ok=True)
            mode = new_file(partial)
            self.codec.write(partial, value)
            partial.chmod(mode)
            size = partial.stat().st_size
            if not self._has_room(size):
                return None
            name = f"{key}.{checksum(partial)}{self.codec.suffix}"
            crash_point("record.written")
            sync(partial)
            os.replace(partial, shard / name)
            crash_point("record.replaced")
            sync(shard)
        except (OSError, SafetensorError) as error:  # safetensors reports a full disk as an error of its own
            self._stop_writing(error)
            return None
        finally:
            with suppress(OSError):
                partial.unlink()
        with self._lock:
            self._checked.add(name)
            self.num_bytes, self._count, self._written = self.num_bytes + size, self._count + 1, self._written + size
        return shard / name

    def verify(self, progress: Callable[[int], object] = lambda count: None) -> int:
        """Read every record.

        Args:
            progress: called with 1 after each record.

        Returns:
            How many were corrupt; they are removed.
        """
        before = self.corrupt
        self._checked.clear()
        for path in self.files():
            self.path(self._key_of(path))
            progress(1)
        self._recount()
        return self.corrupt - before

    def clear(self) -> None:
        """Remove every record, and nothing else."""
        for path in self.files():
            with suppress(OSError):
                path.unlink()
        self._checked.clear()
        self._recount()

    def _find(self, key: str) -> Path | None:
        """The record's file: the first where two processes have put it there with other bytes."""
        if not _KEY.fullmatch(key):
            raise ValueError(f"not a key of a record: {key!r}")
        try:
            names = [name for name in os.listdir(self.folder / key[:2]) if name.startswith(f"{key}.") and self._name.fullmatch(name)]
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            self._warn_unreadable(self.folder / key[:2], error)
            return None
        return self.folder / key[:2] / min(names) if names else None

    def _key_of(self, path: Path) -> str:
        match = self._name.fullmatch(path.name)
        assert match is not None
        return match["key"]

    def _checksum_of(self, path: Path) -> str:
        match = self._name.fullmatch(path.name)
        assert match is not None
        return match["checksum"]

    def _all_files(self) -> Iterator[Path]:
        """Everything in the folders that records are in, as far as they can be read."""
        for folder in (self.folder, *self.folder.glob("??")):
            try:
                if folder != self.folder:
                    yield from list(folder.iterdir())
                else:
                    os.listdir(folder)  # glob says nothing about a folder that it may not read
            except (FileNotFoundError, NotADirectoryError):
                continue
            except OSError as error:
                self._warn_unreadable(folder, error)

    def _has_room(self, size: int) -> bool:
        if self.budget is None:
            return True
        if self._written >= self.budget / _RECOUNTS:
            self._recount()
        return self.num_bytes + size <= self.budget

    def _recount(self) -> None:
        sizes = []
        for path in self.files():
            with suppress(OSError):
                sizes.append(path.stat().st_size)
        with self._lock:
            self.num_bytes, self._count, self._written = sum(sizes), len(sizes), 0

    def _remove_corrupt(self, path: Path) -> None:
        with suppress(OSError):
            size = path.stat().st_size
            path.unlink()
            with self._lock:
                self.corrupt, self.num_bytes, self._count = self.corrupt + 1, self.num_bytes - size, self._count - 1

    def _remove_abandoned(self) -> None:
        """Remove partial files whose writer is gone."""
        for path in filter(is_abandoned, self._all_files()):
            with suppress(OSError):
                path.unlink()

    def _stop_writing(self, error: Exception) -> None:
        if self.required:
            with map_os_errors(self.folder):
                raise error
        self.failure = error
        warnings.warn(f"The cache in {self.folder} takes nothing more ({error}); the run continues without it.", stacklevel=3)

    def _warn_unreadable(self, path: Path, error: Exception) -> None:
        """Say once that something cannot be read."""
        if not self._warned:
            self._warned = True
            warnings.warn(f"The cache in {self.folder} cannot be read ({path}: {error}); the run continues without it.", stacklevel=4)
