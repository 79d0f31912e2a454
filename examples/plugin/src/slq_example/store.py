"""A durable store of vectors: all rows in one file, which every change replaces as a whole."""

import fcntl
import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import numpy as np

from slq.errors import Failure, InputError, StoreCorruptError, StoreError
from slq.index.filters import Filter
from slq.index.store import Hit, Row, StoreMetadata
from slq.io.files import write_atomic
from slq.testing import MemoryStore


class FileStore(MemoryStore):
    """Rows in memory and in one JSON file: simple, and slow for many rows, since a change of one writes all. See `Store`."""

    def __init__(self, location: Path, metadata: StoreMetadata | None = None):
        """Open a store, or make one; see `OpenStore`."""
        self.file, self.lock, self._seen = location / "rows.json", location / "lock", None
        if self.file.is_file():
            super().__init__(location, self._read()[0])
            if metadata is not None:
                self.metadata.check(metadata, str(location))
            return
        if metadata is None:
            raise StoreError(f"There is no store in {location}.")
        if location.exists() and (not location.is_dir() or any(location.iterdir())):
            raise StoreError(f"{location} holds something else: choose another folder.")
        super().__init__(location, metadata)
        location.mkdir(parents=True, exist_ok=True)
        self._write()

    def upsert(self, rows: Sequence[Row]) -> None:
        """Store rows; see `Store`."""
        with self._changing():
            super().upsert(rows)

    def delete(self, ids: Sequence[str]) -> int:
        """Remove rows; see `Store`."""
        with self._changing():
            return super().delete(ids)

    def get(self, ids: Sequence[str]) -> list[Row]:
        """The rows of these ids; see `Store`."""
        self._refresh()
        return super().get(ids)

    def search(self, vectors_QD: np.ndarray, k: int, *, filter: Filter | None = None, exact: bool = False) -> list[list[Hit]]:
        """The nearest rows; see `Store`."""
        self._refresh()
        return super().search(vectors_QD, k, filter=filter, exact=exact)

    def scan(self, batch_size: int = 1024) -> Iterator[list[Row]]:
        """All rows; see `Store`."""
        self._refresh()
        yield from super().scan(batch_size)

    def __len__(self) -> int:
        self._refresh()
        return super().__len__()

    def verify(self) -> list[Failure]:
        """Whether the file is what was written; see `Store`."""
        try:
            self._read()
        except StoreCorruptError as error:
            return [Failure(self.file.name, str(error))]
        return []

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """One change at a time, of all processes, over the newest rows; it counts once the file is replaced, and on the disk."""
        with self.lock.open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            self._refresh()
            yield
            self._write()

    def _refresh(self) -> None:
        """Read the file again if another process has replaced it."""
        if self._stamp() != self._seen:
            seen = self._stamp()
            self.metadata, self._rows = self._read()
            self._seen = seen

    def _stamp(self) -> tuple[int, int, int]:
        status = self.file.stat()
        return status.st_ino, status.st_mtime_ns, status.st_size

    def _write(self) -> None:
        """A checksum in the first line, everything else in the second."""
        rows = [{**asdict(row), "vector": row.vector.tolist()} for row in self._rows.values()]
        content = json.dumps({"metadata": self.metadata.to_dict(), "rows": rows})
        checksum = hashlib.sha256(content.encode()).hexdigest()
        write_atomic(self.file, lambda path: path.write_text(f"{checksum}\n{content}", encoding="utf-8"))
        self._seen = self._stamp()

    def _read(self) -> tuple[StoreMetadata, dict[str, Row]]:
        checksum, _, content = self.file.read_bytes().partition(b"\n")
        if hashlib.sha256(content).hexdigest().encode() != checksum:
            raise StoreCorruptError(f"{self.file} is damaged: encode its items again.")
        try:
            held = json.loads(content)
            rows = [Row(**{**row, "vector": np.array(row["vector"], np.float32)}) for row in held["rows"]]
            return StoreMetadata.from_dict(held["metadata"]), {row.id: row for row in rows}
        except (ValueError, KeyError, TypeError, InputError) as error:
            raise StoreCorruptError(f"{self.file} is not the file of a store: {error}.") from error
