"""The store itself: one process writes to the table and the journal, and any number read what counts."""

from __future__ import annotations

import os
import shutil
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import RLock
from typing import TypeVar

import numpy as np

from slq.errors import Failure, OutputError, StoreCorruptError, StoreError, StoreLockedError
from slq.index.filters import Filter, check_filter
from slq.index.lance.journal import JOURNAL_FILE, Journal
from slq.index.lance.lines import FileRecord, State
from slq.index.lance.memory import RowsInMemory
from slq.index.lance.repair import recover, verify
from slq.index.lance.rows import READ, ids, to_rows
from slq.index.lance.search import search_all, search_index
from slq.index.lance.table import TABLE_FOLDER, Table, load_lancedb
from slq.index.lance.versions import Files, damage_of, held_files, holds_rows, settle
from slq.index.lock import LOCK_FILE, take_lock
from slq.index.store import Hit, Row, StoreMetadata, check_queries, check_rows
from slq.io.disk import sync
from slq.io.files import crash_point, is_sibling, map_os_errors

# Up to so many rows all are compared, in memory: 22 ms of CPU for 100,000 x 1,024, less than an index costs that finds as much.
EXACT_ROWS = 50_000
_ATTEMPTS, _PAUSE = 100, 0.05  # to open a store that another process is just changing; seconds between two
T = TypeVar("T")


class LanceStore:
    """Rows in a table of LanceDB, in a folder; see `slq.index.store.Store`, and `slq.index.lance` for its files.

    Attributes:
        exact_rows: with more rows than this `optimize` makes an index, by which searches are approximate.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> store = LanceStore(folder / "index", StoreMetadata("my-adapter", "f1", dim=2))
        >>> store.upsert([Row("a", np.array([1, 0], np.float32)), Row("b", np.array([0, 1], np.float32))])
        >>> [hit.id for hit in store.search(np.array([[0.6, 0.8]]), k=2)[0]]
        ['b', 'a']
        >>> store.close()
    """

    exact_rows = EXACT_ROWS

    def __init__(self, location: Path, metadata: StoreMetadata | None = None):
        """Open a store, or make one.

        What a crash left unfinished does not count. Where the newest version is damaged, the store goes on from what is whole, and warns.

        Args:
            location: its folder.
            metadata: what is to be stored or searched for; makes the store if there is none. None opens what is there.

        Raises:
            FingerprintMismatchError: if the store's vectors were made by another encoder.
            StoreCorruptError: if nothing of it can be read.
            StoreError: if there is no store, and no metadata to make one with, or if `LANCE_IO_THREADS` would make LanceDB wait for ever.
            MissingExtraError: if LanceDB is not installed.
            OutputError: if a store cannot be made.
        """
        load_lancedb(location)
        self.location = location
        self._lock: int | None = None
        self._known: dict[str, FileRecord] = {}  # files that the disk has; of use to the one that writes
        self._mutex = RLock()
        if not (location / JOURNAL_FILE).exists():
            self._make(metadata)
        self._journal = Journal(location)
        try:
            self.metadata = self._journal.state().metadata
            if metadata is not None:
                self.metadata.check(metadata, str(location))
            self._memory = RowsInMemory(self.metadata.dim)
            self._state, self._table = self._open()
            self._warn_of_lost()
        except BaseException:
            self._journal.close()
            raise

    def _make(self, metadata: StoreMetadata | None) -> None:
        """Make the table and then its journal, without which there is no store."""
        if metadata is None:
            raise StoreError(f"There is no store in {self.location}: name the folder of one, or store items first.")
        table = self.location / TABLE_FOLDER
        with map_os_errors(self.location):
            self.location.mkdir(parents=True, exist_ok=True)
            sync(self.location.parent)
            names = [path.name for path in self.location.iterdir() if not is_sibling(path.name)]
            if foreign := [name for name in names if name not in (LOCK_FILE, TABLE_FOLDER) and not name.startswith(JOURNAL_FILE)]:
                raise StoreError(f"{self.location} holds {foreign[0]} but no {JOURNAL_FILE}: choose an empty folder.")
        lock = take_lock(self.location)
        try:
            if (self.location / JOURNAL_FILE).exists():
                return  # another process has just made it
            with map_os_errors(self.location):
                if holds_rows(table):
                    raise StoreCorruptError(f"{self.location} holds rows but no {JOURNAL_FILE}: encode the items into another folder.")
                shutil.rmtree(table, ignore_errors=True)
            Table.create(self.location, metadata.dim)
            crash_point("lance.created")
            commit, _ = settle(self.location, Table(self.location, metadata.dim).version, 1, 0, "create", {})
            Journal.create(self.location, metadata, commit)
        finally:
            os.close(lock)

    # --- reading ----------------------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return self._refresh().head.rows

    def get(self, ids: Sequence[str]) -> list[Row]:
        """The rows of these ids that are there, in the order of the ids.

        Args:
            ids: of rows.
        """

        def read(table: Table, state: State) -> list[Row]:
            found = {row.id: row for batch in table.batches_of(ids, READ) for row in to_rows(batch)}
            return [found[id_] for id_ in ids if id_ in found]

        return self._read(read)

    def scan(self, batch_size: int = 1024) -> Iterator[list[Row]]:
        """All rows, in batches.

        Args:
            batch_size: rows at a time.
        """
        seen: set[str] = set()
        while True:
            state = self._refresh()
            try:
                for batch in self._table.batches(READ, size=batch_size):
                    rows = [row for row in to_rows(batch) if row.id not in seen]
                    seen.update(row.id for row in rows)
                    if rows:
                        yield rows
                return
            except StoreCorruptError:
                if self._journal.state() == state:
                    raise
                # another process has just replaced the files; go on with what was not seen yet

    def search(self, vectors_QD: np.ndarray, k: int, *, filter: Filter | None = None, exact: bool = False) -> list[list[Hit]]:
        """The k rows with the largest inner product for each query, best first, equal ones by id.

        Args:
            vectors_QD: (Q, D).
            k: how many results.
            filter: only rows that pass it.
            exact: compare every row also where there is an index.

        Raises:
            InputError: for vectors of another width, NaN, k < 1, or what is no filter.
        """
        queries_QD = check_queries(vectors_QD, self.metadata.dim, k)
        check_filter(filter)

        def read(table: Table, state: State) -> list[list[Hit]]:
            if state.head.rows <= self.exact_rows:
                with self._mutex:
                    self._memory.refresh(table, state)
                    return self._memory.search(queries_QD, k, filter)
            if exact or not table.is_indexed:
                return search_all(table, queries_QD, k, filter)
            return search_index(table, queries_QD, k, filter)

        return self._read(read)

    def verify(self) -> list[Failure]:
        """Files that are not what was written, by the ids of their rows, and rows that damage took along; repairs nothing."""
        return verify(self.location)

    def _read(self, read: Callable[[Table, State], T]) -> T:
        """Read at the newest version, again where another process replaces files meanwhile."""
        while True:
            state = self._refresh()
            try:
                return read(self._table, state)
            except StoreCorruptError:
                if self._journal.state() == state:
                    raise

    def _refresh(self) -> State:
        """Take in what another process has written since."""
        with self._mutex:
            while self._lock is None and (state := self._journal.state()) != self._state:  # with the lock nobody else writes
                if (state.writers, state.rollbacks) != (self._state.writers, self._state.rollbacks):
                    before = self._state.rollbacks
                    self._state, self._table = self._open()
                    if self._state.rollbacks != before:
                        self._warn_of_lost()
                    break
                try:
                    self._state, self._table = state, self._table.at(state.head.version)
                    break
                except StoreCorruptError:
                    if self._journal.state() == state:
                        raise
                    # another process has just removed that version; a newer one counts
            return self._state

    def _open(self) -> tuple[State, Table]:
        """The newest version that counts; where it is damaged and nobody writes, the store is repaired."""
        is_repaired = False
        for attempt in range(_ATTEMPTS):
            state = self._journal.state()
            try:
                if damage := damage_of(state.head, Files(self.location, self._journal.files())):
                    raise StoreCorruptError(f"{self.location} is damaged ({damage}).")
                return state, Table(self.location, self.metadata.dim, state.head.version)
            except StoreCorruptError as error:
                if self._journal.state() != state:
                    continue  # another process has just replaced the files
                if is_repaired:
                    raise  # it is not the files that keep LanceDB from reading them
                try:
                    lock = take_lock(self.location)
                except (StoreLockedError, OutputError) as refused:
                    if attempt == _ATTEMPTS - 1 or isinstance(refused, OutputError):
                        raise StoreCorruptError(f"{error} It cannot be repaired now: {refused}") from error
                    time.sleep(_PAUSE)  # the process that writes may be about to do so
                    continue
                try:
                    recover(self.location, self._journal)
                finally:
                    os.close(lock)
                is_repaired = True
        raise StoreCorruptError(f"{self.location} is replaced faster than it can be read.")

    def _warn_of_lost(self) -> None:
        if lost := self._journal.lost():
            told = f"{len(lost)} row(s) are lost or came back, such as {lost[0]}. `verify()` lists them."
            warnings.warn(f"{self.location} was damaged: {told}", stacklevel=3)

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
        latest = {row.id: row for row in rows}
        if latest:
            with self._changing() as table:
                table.merge(list(latest.values()), self._state.head.number + 1)
                self._commit(table, "upsert", list(latest))

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
        with self._changing() as table:
            there = table.present(ids)
            if there:
                table.delete(there)
                self._commit(table, "delete", there)
            self._journal.forget_lost(ids)
            return len(there)

    def optimize(self) -> None:
        """Write small files together, bring the index up to date, remove old versions; results stay.

        Raises:
            StoreCorruptError: if something is damaged, which this would carry over unseen.
            StoreLockedError: if another process writes.
            OutputError: if the disk refuses.
        """
        with self._changing() as table:
            if damage := damage_of(self._state.head, Files(self.location, self._known, by_checksum=True)):
                raise StoreCorruptError(f"{self.location} is damaged ({damage}): call repair() before it is optimised.")
            is_done = table.compact(train_from=self.exact_rows + 1)
            everything = [id_ for batch in table.batches(["id"]) for id_ in ids(batch)]
            self._commit(table, "optimize", everything)
            crash_point("lance.optimized")
            if is_done:
                table.remove_old_versions()
            crash_point("lance.cleaned")

    def repair(self) -> None:
        """Go on without what `verify` finds damaged. It lists the rows that were lost, until they are stored again.

        Raises:
            StoreCorruptError: if nothing can be read.
            StoreLockedError: if another process writes.
            OutputError: if the disk refuses.
        """
        with self._mutex:
            self._give_up()
            self._begin_writing(by_checksum=True)

    def close(self) -> None:
        """Let the next process write."""
        with self._mutex:
            self._give_up()
            self._memory.clear()
            self._journal.close()

    @contextmanager
    def _changing(self) -> Iterator[Table]:
        """The table at its newest version, to be changed. After an error the next change begins with removing what it left."""
        load_lancedb(self.location)  # `LANCE_IO_THREADS` may have been set since
        with self._mutex:
            if self._lock is None:
                self._begin_writing()
            try:
                yield self._newest
            except BaseException:
                self._give_up()
                raise

    def _begin_writing(self, *, by_checksum: bool = False) -> None:
        """Become the one process that writes, and take in what the last one wrote."""
        self._lock = take_lock(self.location)
        try:
            before = self._state.rollbacks
            recover(self.location, self._journal, by_checksum=by_checksum)
            self._known = self._journal.files()
            self._state = self._journal.state()
            if self._state.rollbacks != before:
                self._warn_of_lost()
            self._newest = Table(self.location, self.metadata.dim)
            self._table = self._newest.at(self._state.head.version)
        except BaseException:
            self._give_up()
            raise

    def _give_up(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _commit(self, table: Table, kind: str, changed: Sequence[str]) -> None:
        """Make the newest version of the table count, once the disk has it."""
        crash_point("lance.written")
        number = self._state.head.number + 1
        commit, files = settle(self.location, table.version, number, len(table), kind, self._known)
        self._known |= files
        if kind == "optimize":
            self._known = {path: self._known[path] for path in held_files(self.location / TABLE_FOLDER)}
            self._journal.begin_anew(commit, changed, self._known)
        else:
            self._journal.add(commit, changed, files)
        crash_point("lance.journalled")
        self._state = self._journal.state()
        self._table = table.at(commit.version)
