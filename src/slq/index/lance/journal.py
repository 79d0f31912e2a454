"""Which versions of the table count: a journal in SQLite, written after the table's files are on the disk.

    state      one line: what the vectors are, the newest commit, how many writers there were
    commits    number, version of the table, its manifest's size and checksum, rows; the ids that it changed
    files      size and checksum of every file that a version in `commits` reads
    lost       ids whose rows a damaged file took along, until they are stored again

SQLite writes ahead (WAL) with `synchronous=FULL`, and what it wrote ahead is moved into its one file after every commit. Each line has a
checksum of its own, so that a journal that is damaged is told from one that is short.
"""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import tempfile
import weakref
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from slq.errors import DiskFullError, Failure, OutputError, StoreCorruptError, StoreError
from slq.index.lance.lines import (
    HEAD,
    TABLES,
    Commit,
    FileRecord,
    State,
    insert_commit,
    insert_files,
    line_checksum,
    read_commit,
    read_state,
    write_state,
)
from slq.index.lance.rows import decode_text, encode_text
from slq.index.store import FORMAT, StoreMetadata
from slq.io.files import write_atomic

JOURNAL_FILE = "journal.sqlite"
_PATIENCE = 60  # seconds that another process may hold the journal


class Journal:
    """The journal of one store. Where nothing can be written it is a copy, taken anew when the file has changed."""

    def __init__(self, location: Path):
        """Open a journal.

        Args:
            location: the store's folder.

        Raises:
            StoreCorruptError: if it is damaged.
            StoreError: if it cannot be read.
        """
        self.file = location / JOURNAL_FILE
        self._copied: list[tuple[int, int]] = []
        self._connection: sqlite3.Connection | None = None
        with self._reading():
            self._connect()
        self.state()

    @staticmethod
    def create(location: Path, metadata: StoreMetadata, commit: Commit) -> None:
        """Make a journal, whole or not at all.

        Args:
            location: the store's folder.
            metadata: what the vectors are.
            commit: the first one, of an empty table.

        Raises:
            OutputError: if it cannot be written.
        """
        with closing(sqlite3.connect(":memory:")) as connection:
            connection.executescript(TABLES)
            write_state(connection, State(metadata, 0, 0, commit), is_new=True)
            insert_commit(connection, commit, ())
            connection.commit()
            content = connection.serialize()
        write_atomic(location / JOURNAL_FILE, lambda partial: partial.write_bytes(content))

    # --- reading ----------------------------------------------------------------------------------------------------------

    def state(self) -> State:
        """The newest state.

        Raises:
            StoreCorruptError: if it is damaged.
            StoreError: if it is of another format.
        """
        with self._reading() as connection:
            lines = connection.execute(HEAD).fetchall()
            if len(lines) != 1:
                raise self._damaged("its newest commit is not in it")
            state = read_state(*lines[0])
        if (found := state.metadata.format) != FORMAT:
            raise StoreError(f"{self.file.parent} has the format {found}, but this slq reads {FORMAT}: use another version of slq.")
        return state

    def commits(self) -> list[Commit]:
        """All commits, the newest first."""
        with self._reading() as connection:
            return [read_commit(*line) for line in connection.execute("select content, checksum from commits order by number desc")]

    def changes(self, after: int = 0) -> list[tuple[Commit, list[str]]]:
        """Commits with the ids that they changed, the oldest first.

        Args:
            after: the number of a commit that is left out with those before it.
        """
        with self._reading() as connection:
            wanted = "select content, checksum, ids from commits where number > ? order by number"
            lines = connection.execute(wanted, (after,)).fetchall()
            return [(read_commit(content, found), json.loads(zlib.decompress(ids))) for content, found, ids in lines]

    def files(self) -> dict[str, FileRecord]:
        """Files of the table by their paths."""
        with self._reading() as connection:
            records = {}
            for path, size, found, of_line in connection.execute("select path, size, checksum, line_checksum from files"):
                if of_line != line_checksum(path, size, found):
                    raise self._damaged(f"what it says of {path} is not what was written")
                records[path] = FileRecord(size, found)
            return records

    def lost(self) -> list[Failure]:
        """Ids whose rows were lost, and what to do."""
        with self._reading() as connection:
            return [
                Failure(decode_text(id_) or "", reason) for id_, reason in connection.execute("select id, reason from lost order by id")
            ]

    def check(self) -> None:
        """Read all of it.

        Raises:
            StoreCorruptError: if any of it is damaged.
        """
        with self._reading() as connection:
            (answer,) = connection.execute("pragma integrity_check(1)").fetchone()
            if answer != "ok":
                raise self._damaged(answer)
        for read in (self.state, self.files, self.lost, self.changes):
            read()

    # --- writing ----------------------------------------------------------------------------------------------------------

    def add(self, commit: Commit, ids: Sequence[str], files: Mapping[str, FileRecord], *, lost: Sequence[Failure] = ()) -> None:
        """Make a commit count, and return when the disk has it.

        Args:
            commit: whose files are on the disk.
            ids: that it changed.
            files: that are new.
            lost: ids whose rows are found to be lost.
        """
        with self._writing() as (connection, before):
            insert_commit(connection, commit, ids)
            insert_files(connection, files)
            self._set_lost(connection, found_again=ids, lost=lost)
            write_state(connection, replace(before, head=commit, rollbacks=before.rollbacks + bool(lost)))

    def forget_lost(self, ids: Sequence[str]) -> None:
        """No longer tell of rows that were lost, since nobody wants them back.

        Args:
            ids: of any rows.
        """
        if self.lost():
            with self._writing() as (connection, _):
                self._set_lost(connection, found_again=ids, lost=())

    def begin_anew(self, commit: Commit, ids: Sequence[str], files: Mapping[str, FileRecord]) -> None:
        """Make a commit the only one that counts, so that what the others were made of can go.

        Args:
            commit: whose files are on the disk.
            ids: of all rows.
            files: that it is made of.
        """
        with self._writing() as (connection, before):
            connection.execute("delete from commits")
            connection.execute("delete from files")
            insert_commit(connection, commit, ids)
            insert_files(connection, files)
            write_state(connection, replace(before, head=commit))

    def roll_back(self, head: Commit, lost: Iterable[Failure]) -> None:
        """Give up all commits behind one.

        Args:
            head: the newest one that stays.
            lost: what was in the others.
        """
        with self._writing() as (connection, before):
            connection.execute("delete from commits where number > ?", (head.number,))
            self._set_lost(connection, found_again=(), lost=lost)
            write_state(connection, replace(before, head=head, rollbacks=before.rollbacks + 1))

    def begin_writer(self) -> None:
        """Tell readers that another process writes now."""
        with self._writing() as (connection, before):
            write_state(connection, replace(before, writers=before.writers + 1))

    def close(self) -> None:
        """Let go of the file."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    @staticmethod
    def _set_lost(connection: sqlite3.Connection, *, found_again: Sequence[str], lost: Iterable[Failure]) -> None:
        if connection.execute("select 1 from lost limit 1").fetchone():
            connection.executemany("delete from lost where id = ?", [(encode_text(id_),) for id_ in found_again])
        lines = [(encode_text(failure.item), failure.reason) for failure in lost]
        connection.executemany("insert or replace into lost values (?, ?)", lines)

    # --- the file ---------------------------------------------------------------------------------------------------------

    def _connect(self) -> None:
        self._copied = []
        if self.file.stat().st_size == 0:
            raise self._damaged("it is empty")
        if not os.access(self.file.parent, os.W_OK):
            self._connect_to_copy()
            return
        connection = sqlite3.connect(self.file.absolute(), timeout=_PATIENCE, isolation_level=None, check_same_thread=False)
        self._use(connection)
        try:
            connection.execute("pragma journal_mode=wal")
            connection.execute("pragma synchronous=full")
            connection.execute(HEAD).fetchall()
        except sqlite3.OperationalError:  # no room for the files beside it; a real fault shows in the copy as well
            self._connect_to_copy()

    def _connect_to_copy(self) -> None:
        """Where nobody can make the files that SQLite reads beside the journal, it reads a copy, with what was written ahead."""
        while True:
            before = self._stamp()
            with tempfile.TemporaryDirectory() as folder:
                for name in (JOURNAL_FILE, f"{JOURNAL_FILE}-wal"):
                    if (source := self.file.with_name(name)).exists():
                        shutil.copyfile(source, Path(folder, name))
                with closing(sqlite3.connect(Path(folder, JOURNAL_FILE))) as copied:
                    memory = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
                    copied.backup(memory)
            self._use(memory)
            if self._stamp() == before:
                self._copied = before
                return

    def _use(self, connection: sqlite3.Connection) -> None:
        self.close()
        self._connection = connection
        weakref.finalize(self, connection.close)

    def _stamp(self) -> list[tuple[int, int]]:
        """Sizes and times of the journal's files."""
        files = [path for path in (self.file, self.file.with_name(f"{JOURNAL_FILE}-wal")) if path.exists()]
        return [(file.stat().st_size, file.stat().st_mtime_ns) for file in files]

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        try:
            if self._copied and self._stamp() != self._copied:
                self._connect_to_copy()
            yield self._connection  # type: ignore[misc]
        except sqlite3.OperationalError as error:
            if "malformed" in str(error) or "no such table" in str(error):
                raise self._damaged(str(error)) from error
            raise StoreError(f"{self.file} cannot be read ({error}): check its permissions, and whether its disk is there.") from error
        except OSError as error:
            raise StoreError(f"{self.file} cannot be read ({error.strerror}): check its path and permissions.") from error
        except (sqlite3.Error, zlib.error, ValueError) as error:
            raise self._damaged(str(error)) from error

    @contextmanager
    def _writing(self) -> Iterator[tuple[sqlite3.Connection, State]]:
        """One transaction, which the disk has afterwards, in the journal's own file; with the state before it."""
        if self._copied:
            with self._reading():
                self._connect()  # there may be room by now
        connection = self._connection
        if connection is None or self._copied:
            raise OutputError(f"Cannot write {self.file}: there was no room, or no permission, to open it for more than reading.")
        try:
            connection.execute("begin immediate")
            try:
                yield connection, self.state()
                connection.execute("commit")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("rollback")
                raise
            with suppress(sqlite3.OperationalError):  # what stays written ahead, since somebody reads just now, counts as well
                connection.execute("pragma busy_timeout = 0")
                connection.execute("pragma wal_checkpoint(truncate)").fetchone()
            connection.execute(f"pragma busy_timeout = {_PATIENCE * 1000}")
        except sqlite3.DatabaseError as error:
            if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL:
                raise DiskFullError(f"No room left on the disk while writing {self.file}: free some space and run again.") from error
            raise OutputError(f"Cannot write {self.file}: {error}.") from error

    def _damaged(self, reason: str) -> StoreCorruptError:
        return StoreCorruptError(f"{self.file} is damaged ({reason}): encode the items again into another store.")
