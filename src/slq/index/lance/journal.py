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
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from slq.errors import DiskFullError, Failure, OutputError, StoreCorruptError, StoreError
from slq.index.lance.rows import decode_text, encode_text
from slq.index.logfile import checksum
from slq.index.store import FORMAT, StoreMetadata
from slq.io.files import write_atomic

JOURNAL_FILE = "journal.sqlite"
_TABLES = """
create table state (one integer primary key check (one = 1), head integer not null, content text not null, checksum text not null);
create table commits (number integer primary key, content text not null, checksum text not null, ids blob not null);
create table files (path text primary key, size integer not null, checksum text not null, line_checksum text not null);
create table lost (id text primary key, reason text not null);
"""
_HEAD = "select s.content, s.checksum, c.content, c.checksum from state s join commits c on c.number = s.head"
_PATIENCE = 60  # seconds that another process may hold the journal


@dataclass(frozen=True)
class Commit:
    """A version of the table that counts.

    Attributes:
        number: counts commits from 1.
        version: of the table.
        rows: how many there are then.
        kind: `create`, `upsert`, `delete`, `optimize` or `repair`.
        manifest_size: in bytes.
        manifest_checksum: CRC-32 in hexadecimal.
    """

    number: int
    version: int
    rows: int
    kind: str
    manifest_size: int
    manifest_checksum: str


@dataclass(frozen=True)
class FileRecord:
    """A file as it was when the disk had it: bytes, and CRC-32 in hexadecimal."""

    size: int
    checksum: str


@dataclass(frozen=True)
class State:
    """What a process that reads must know.

    Attributes:
        metadata: what the vectors are.
        writers: how many processes have begun to write; another number, and files may have been replaced.
        rollbacks: how often commits were given up; another number, and rows that were read may be gone.
        head: the newest commit.
    """

    metadata: StoreMetadata
    writers: int
    rollbacks: int
    head: Commit


class Journal:
    """The journal of one store. In a folder that cannot be written it is a copy, taken anew when the file has changed."""

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
            connection.executescript(_TABLES)
            _write_state(connection, State(metadata, 0, 0, commit), insert=True)
            _insert_commit(connection, commit, ())
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
            lines = connection.execute(_HEAD).fetchall()
            if len(lines) != 1:
                raise self._damaged("its newest commit is not in it")
            told, commit = _checked(lines[0][0], lines[0][1]), _commit(lines[0][2], lines[0][3])
            if told["head"] != commit.number:
                raise self._damaged("its newest commit is another one")
            metadata = StoreMetadata.from_dict(told)
            if metadata.format != FORMAT:
                raise StoreError(
                    f"{self.file.parent} has the format {metadata.format}, but this slq reads {FORMAT}: use another version of slq."
                )
            return State(metadata, told["writers"], told["rollbacks"], commit)

    def commits(self) -> list[Commit]:
        """All commits, the newest first."""
        with self._reading() as connection:
            return [_commit(*line) for line in connection.execute("select content, checksum from commits order by number desc")]

    def changes(self, after: int = 0) -> Iterator[tuple[Commit, list[str]]]:
        """Commits with the ids that they changed, the oldest first.

        Args:
            after: the number of a commit that is left out with those before it.
        """
        with self._reading() as connection:
            wanted = "select content, checksum, ids from commits where number > ? order by number"
            lines = connection.execute(wanted, (after,)).fetchall()
            changes = [(_commit(content, found), json.loads(zlib.decompress(ids))) for content, found, ids in lines]
        yield from changes

    def files(self) -> dict[str, FileRecord]:
        """Files of the table by their paths."""
        with self._reading() as connection:
            records = {}
            for path, size, found, line_checksum in connection.execute("select path, size, checksum, line_checksum from files"):
                if line_checksum != _line_checksum(path, size, found):
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
        self.state(), self.files(), self.lost(), list(self.changes())

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
            _insert_commit(connection, commit, ids)
            _insert_files(connection, files)
            self._set_lost(connection, found_again=ids, lost=lost)
            _write_state(connection, replace(before, head=commit, rollbacks=before.rollbacks + bool(lost)))

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
            _insert_commit(connection, commit, ids)
            _insert_files(connection, files)
            _write_state(connection, replace(before, head=commit))

    def roll_back(self, head: Commit, lost: Iterable[Failure]) -> None:
        """Give up all commits behind one.

        Args:
            head: the newest one that stays.
            lost: what was in the others.
        """
        with self._writing() as (connection, before):
            connection.execute("delete from commits where number > ?", (head.number,))
            self._set_lost(connection, found_again=(), lost=lost)
            _write_state(connection, replace(before, head=head, rollbacks=before.rollbacks + 1))

    def begin_writer(self) -> None:
        """Tell readers that another process writes now."""
        with self._writing() as (connection, before):
            _write_state(connection, replace(before, writers=before.writers + 1))

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
        if not os.access(self.file.parent, os.W_OK):
            self._connect_to_copy()
            return
        if self.file.stat().st_size == 0:
            raise self._damaged("it is empty")
        self._use(sqlite3.connect(self.file, timeout=_PATIENCE, isolation_level=None, check_same_thread=False))
        assert self._connection is not None
        self._connection.execute("pragma journal_mode=wal")
        self._connection.execute("pragma synchronous=full")

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
        except (sqlite3.Error, zlib.error, ValueError, KeyError, TypeError) as error:
            raise self._damaged(str(error)) from error

    @contextmanager
    def _writing(self) -> Iterator[tuple[sqlite3.Connection, State]]:
        """One transaction, which the disk has afterwards, in the journal's own file; with the state before it."""
        connection = self._connection
        if connection is None or self._copied:
            raise OutputError(f"Cannot write {self.file}: its folder is read-only.")
        try:
            connection.execute("begin immediate")
            try:
                yield connection, self.state()
                connection.execute("commit")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("rollback")
                raise
            with suppress(sqlite3.OperationalError):  # what is left written ahead, since somebody reads just now, counts as well
                connection.execute("pragma wal_checkpoint(truncate)").fetchone()
        except sqlite3.DatabaseError as error:
            if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL:
                raise DiskFullError(f"No room left on the disk while writing {self.file}: free some space and run again.") from error
            raise OutputError(f"Cannot write {self.file}: {error}.") from error

    def _damaged(self, reason: str) -> StoreCorruptError:
        return StoreCorruptError(f"{self.file} is damaged ({reason}): encode the items again into another store.")


def _write_state(connection: sqlite3.Connection, state: State, insert: bool = False) -> None:
    told = {**state.metadata.to_dict(), "writers": state.writers, "rollbacks": state.rollbacks, "head": state.head.number}
    content = json.dumps(told)
    values = (state.head.number, content, checksum(content.encode()))
    if insert:
        connection.execute("insert into state values (1, ?, ?, ?)", values)
    else:
        connection.execute("update state set head = ?, content = ?, checksum = ?", values)


def _insert_commit(connection: sqlite3.Connection, commit: Commit, ids: Sequence[str]) -> None:
    content = json.dumps(asdict(commit))
    packed = zlib.compress(json.dumps(list(ids)).encode(), level=1)  # which has a checksum of its own
    connection.execute("insert into commits values (?, ?, ?, ?)", (commit.number, content, checksum(content.encode()), packed))


def _insert_files(connection: sqlite3.Connection, files: Mapping[str, FileRecord]) -> None:
    lines = [(path, file.size, file.checksum, _line_checksum(path, file.size, file.checksum)) for path, file in files.items()]
    connection.executemany("insert or replace into files values (?, ?, ?, ?)", lines)


def _line_checksum(path: str, size: int, found: str) -> str:
    return checksum(json.dumps([path, size, found]).encode())


def _commit(content: str, found: str) -> Commit:
    return Commit(**_checked(content, found))


def _checked(content: str, found: str) -> dict[str, Any]:
    if checksum(content.encode()) != found:
        raise ValueError("one of its lines is not what was written")
    told = json.loads(content)
    if not isinstance(told, dict):
        raise ValueError("one of its lines is no object")
    return told
