"""A store that compares every row: no build, no approximation, and what every other store is measured by. Good to about 20,000 rows.

    store.json           what the vectors are, and which generation of the two other files counts
    rows-N.log           every write is one line of JSON with a checksum before it, and counts once its line is whole
    vectors-N.f32        vectors (slots, D) float32, only ever added to; a line of the log says which slots are whose
    lock                 held by the process that writes

A write adds its vectors, waits for the disk, adds its line, and waits again. What a crash cuts off was never acknowledged and does not
count. `optimize` writes both files anew and then replaces store.json.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from slq.errors import Failure, OutputError, StoreCorruptError, StoreError
from slq.index.filters import Filter, check_filter, matches
from slq.index.lock import take_lock
from slq.index.logfile import checksum, checksum_of, from_line, to_line, write_at
from slq.index.scoring import search_rows
from slq.index.store import FORMAT, Hit, Row, StoreMetadata, check_queries, check_rows
from slq.io.disk import sync
from slq.io.files import crash_point, is_sibling, map_os_errors, write_json

STORE_FILE = "store.json"
_NO_VECTOR = np.zeros(0, dtype=np.float32)


@dataclass(frozen=True)
class _Entry:
    """A row without its vector, the slot that has it, and the vector's checksum."""

    row: Row
    slot: int
    checksum: str


class ExactStore:
    """Rows in a folder, all of them compared. See `slq.index.store.Store`.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> store = ExactStore(folder / "index", StoreMetadata("my-adapter", "f1", dim=2))
        >>> store.upsert([Row("a", np.array([1, 0], np.float32)), Row("b", np.array([0, 1], np.float32))])
        >>> [hit.id for hit in store.search(np.array([[0.6, 0.8]]), k=2)[0]]
        ['b', 'a']
    """

    def __init__(self, location: Path, metadata: StoreMetadata | None = None):
        """Open a store, or make one.

        Args:
            location: its folder.
            metadata: what is to be stored or searched for; makes the store if there is none. None opens what is there.

        Raises:
            FingerprintMismatchError: if the store's vectors were made by another encoder.
            StoreCorruptError: if store.json cannot be read.
            StoreError: if there is no store, and no metadata to make one with.
            OutputError: if a store cannot be made.
        """
        self.location = location
        self._lock: int | None = None
        self._generation = -1
        if not (location / STORE_FILE).exists():
            self._make(metadata)
        self.metadata, _ = self._read_head()
        if metadata is not None:
            self.metadata.check(metadata, str(location))
        self._refresh()

    def _make(self, metadata: StoreMetadata | None) -> None:
        if metadata is None:
            raise StoreError(f"There is no store in {self.location}: name the folder of one, or store items first.")
        with map_os_errors(self.location):
            self.location.mkdir(parents=True, exist_ok=True)
            sync(self.location.parent)
            files = self._files(0)
            if foreign := [path for path in self.location.iterdir() if path not in files and not is_sibling(path.name)]:
                raise StoreError(f"{self.location} holds {foreign[0].name} but no {STORE_FILE}: choose an empty folder.")
        self._begin_generation(metadata, 0)
        self._write_head(metadata, 0)

    # --- reading ----------------------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        self._refresh()
        return len(self._entries)

    def get(self, ids: Sequence[str]) -> list[Row]:
        """The rows of these ids that are there, in the order of the ids.

        Args:
            ids: of rows.
        """
        self._refresh()
        return [self._row(entry) for id_ in ids if (entry := self._entries.get(id_)) is not None]

    def scan(self, batch_size: int = 1024) -> Iterator[list[Row]]:
        """All rows, in batches.

        Args:
            batch_size: rows at a time.
        """
        self._refresh()
        entries, vectors = list(self._entries.values()), self._vectors
        for start in range(0, len(entries), batch_size):
            yield [replace(entry.row, vector=np.array(vectors[entry.slot])) for entry in entries[start : start + batch_size]]

    def search(self, vectors_QD: np.ndarray, k: int, *, filter: Filter | None = None, exact: bool = False) -> list[list[Hit]]:
        """The k rows with the largest inner product for each query, best first, equal ones by id.

        Args:
            vectors_QD: (Q, D).
            k: how many results.
            filter: only rows that pass it.
            exact: nothing to this store, which is exact.

        Raises:
            InputError: for vectors of another width, NaN, k < 1, or what is no filter.
        """
        queries_QD = check_queries(vectors_QD, self.metadata.dim, k)
        check_filter(filter)
        self._refresh()
        entries = [entry for entry in self._entries.values() if filter is None or matches(filter, entry.row)]
        slots_C = np.fromiter((entry.slot for entry in entries), dtype=np.int64, count=len(entries))
        return search_rows(queries_QD, k, lambda place: entries[place].row, slots_C, self._vectors)

    def verify(self) -> list[Failure]:
        """Lines of the log and vectors whose checksum is wrong, read anew from the disk; repairs nothing."""
        try:
            found = ExactStore(self.location)
        except StoreCorruptError as error:
            return [Failure(str(self.location), str(error))]
        bad = [entry for entry in found._entries.values() if checksum(found._vectors[entry.slot].tobytes()) != entry.checksum]
        return [*found._damaged, *(Failure(entry.row.id, "its vector is damaged; store the item again") for entry in bad)]

    def _row(self, entry: _Entry) -> Row:
        return replace(entry.row, vector=np.array(self._vectors[entry.slot]))

    # --- files ------------------------------------------------------------------------------------------------------------

    def _read_head(self) -> tuple[StoreMetadata, int]:
        file = self.location / STORE_FILE
        try:
            head = json.loads(file.read_bytes())
            if head.pop("checksum") != checksum_of(head):
                raise ValueError("its checksum is wrong")
            metadata, generation = StoreMetadata.from_dict(head), int(head["generation"])
        except OSError as error:
            raise StoreError(f"{file} cannot be read ({error.strerror}): check its path and permissions.") from error
        except (ValueError, KeyError, TypeError) as error:
            raise StoreCorruptError(f"{file} is damaged ({error}): encode the items again into another store.") from error
        if metadata.format != FORMAT:
            raise StoreError(f"{self.location} has the format {metadata.format}, but this slq reads {FORMAT}: use another version of slq.")
        return metadata, generation

    def _write_head(self, metadata: StoreMetadata, generation: int) -> None:
        head = {**metadata.to_dict(), "generation": generation}
        write_json(self.location / STORE_FILE, {**head, "checksum": checksum_of(head)})

    def _begin_generation(self, metadata: StoreMetadata, generation: int) -> None:
        """A log with its first line, by which an emptied one is told, and no vectors."""
        log, vectors = self._files(generation)
        write_at(vectors, 0, b"")
        write_at(log, 0, to_line({"fingerprint": metadata.fingerprint}))

    def _files(self, generation: int) -> tuple[Path, Path]:
        """The log and the vectors."""
        return self.location / f"rows-{generation}.log", self.location / f"vectors-{generation}.f32"

    def _refresh(self) -> None:
        """Take in what another process has written since."""
        while self._lock is None:  # else nobody else writes
            _, generation = self._read_head()
            try:
                if generation != self._generation:
                    self._open_generation(generation)
                else:
                    self._replay()
            except OSError as error:
                if self._read_head()[1] == generation:
                    raise StoreCorruptError(f"A file of {self.location} cannot be read ({error}): encode the items again.") from error
                continue  # another process has just replaced the files
            if self._read_head()[1] == generation:
                return

    def _open_generation(self, generation: int) -> None:
        self._generation = generation
        self._rows_file, self._vectors_file = self._files(generation)
        self._entries: dict[str, _Entry] = {}
        self._damaged: list[Failure] = []
        self._log_end = self._log_line = self._slots = 0  # bytes, lines and vectors that count
        self._vectors: np.ndarray = np.zeros((0, self.metadata.dim), dtype=np.float32)
        self._replay()

    def _replay(self) -> None:
        """Read the lines of the log that have come since; one without an end was cut off, and was never acknowledged."""
        with self._rows_file.open("rb") as file:
            file.seek(self._log_end)
            content = file.read()
        *lines, rest = content.split(b"\n")
        for line in lines:
            self._log_end, self._log_line = self._log_end + len(line) + 1, self._log_line + 1
            change = from_line(line)
            if change is None:
                reason = "is damaged, and what it says is lost; store the items again"
                self._damaged.append(Failure(f"{self._rows_file.name} line {self._log_line}", reason))
            else:
                self._apply(change)
        if not self._log_line or from_line(rest[:-1]) is not None:
            raise StoreCorruptError(f"{self._rows_file} is damaged at its end: encode the items again into another store.")
        self._map_vectors()

    def _apply(self, change: dict[str, Any]) -> None:
        """One line of the log: rows with their slots, or ids that are removed."""
        for id_ in change.get("delete", ()):
            self._entries.pop(id_, None)
        for fields in change.get("upsert", ()):
            slot, found = fields.pop("slot"), fields.pop("checksum")
            self._entries.pop(fields["id"], None)
            self._entries[fields["id"]] = _Entry(Row(vector=_NO_VECTOR, **fields), slot, found)
            self._slots = max(self._slots, slot + 1)

    def _map_vectors(self) -> None:
        if len(self._vectors) >= self._slots:
            return
        width = 4 * self.metadata.dim
        if self._vectors_file.stat().st_size < self._slots * width:
            raise StoreCorruptError(f"{self._vectors_file} is shorter than its log says: encode the items again into another store.")
        self._vectors = np.memmap(self._vectors_file, "<f4", "r", shape=(self._slots, self.metadata.dim))

    # --- writing ----------------------------------------------------------------------------------------------------------

    def upsert(self, rows: Sequence[Row]) -> None:
        """Store rows, in place of those that have their ids; of rows with one id the last counts.

        Args:
            rows: all of them are stored, or none.

        Raises:
            InputError: if a row is not what it should be.
            StoreLockedError: if another process writes.
            OutputError: if the disk refuses; DiskFullError if it is full.
        """
        check_rows(rows, self.metadata.dim)
        rows = list({row.id: row for row in rows}.values())
        if not rows:
            return
        self._take_lock()
        vectors_CD = np.ascontiguousarray(np.stack([row.vector for row in rows]), dtype="<f4")
        listed = [
            {
                "id": row.id,
                "slot": self._slots + place,
                "checksum": checksum(vector.tobytes()),
                "text": row.text,
                "image": row.image,
                "metadata": dict(row.metadata),
                "content_hash": row.content_hash,
            }
            for place, (row, vector) in enumerate(zip(rows, vectors_CD, strict=True))
        ]
        write_at(self._vectors_file, self._slots * self.metadata.dim * 4, vectors_CD.tobytes())
        crash_point("store.vectors")
        self._log({"upsert": listed})

    def delete(self, ids: Sequence[str]) -> int:
        """Remove rows.

        Args:
            ids: of rows; those that are not there do not matter.

        Returns:
            How many there were.

        Raises:
            StoreLockedError: if another process writes.
            OutputError: if the disk refuses.
        """
        self._take_lock()
        there = [id_ for id_ in dict.fromkeys(ids) if id_ in self._entries]
        if there:
            self._log({"delete": there})
        return len(there)

    def optimize(self) -> None:
        """Write the files anew without what is no longer needed; results stay.

        Raises:
            StoreCorruptError: if something is damaged, which this would carry over unseen.
            StoreLockedError: if another process writes.
            OutputError: if the disk refuses.
        """
        self._take_lock()
        if damaged := self.verify():
            raise StoreCorruptError(f"{self.location} is damaged ({damaged[0]}): store those items again before it is optimised.")
        rows = [row for batch in self.scan() for row in batch]
        before = self._generation
        self._begin_generation(self.metadata, before + 1)
        self._open_generation(before + 1)
        try:
            self.upsert(rows)
            crash_point("store.optimized")
            self._write_head(self.metadata, self._generation)
        except OutputError:
            self._open_generation(before)
            raise
        crash_point("store.switched")
        self._remove_other_generations()

    def close(self) -> None:
        """Let the next process write."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None
        self._vectors = np.zeros((0, self.metadata.dim), dtype=np.float32)
        self._entries = {}

    def _log(self, change: dict[str, Any]) -> None:
        """Add a line, and apply it once the disk has it."""
        line = to_line(change)
        write_at(self._rows_file, self._log_end, line)
        crash_point("store.logged")
        self._log_end, self._log_line = self._log_end + len(line), self._log_line + 1
        self._apply(change)
        self._map_vectors()

    def _take_lock(self) -> None:
        """Become the one process that writes, and take in what the last one wrote."""
        if self._lock is not None:
            return
        lock = take_lock(self.location)
        self._refresh()
        self._lock = lock
        self._remove_other_generations()

    def _remove_other_generations(self) -> None:
        """Remove files that an optimisation has replaced, or did not get to the end of."""
        for file in (*self.location.glob("rows-*.log"), *self.location.glob("vectors-*.f32")):
            if file not in (self._rows_file, self._vectors_file):
                file.unlink(missing_ok=True)
