"""The journal of a collection: its sources, and a line for each of their inputs, in SQLite.

An input is a file, or a row of a table, that a source held when it was last looked at. Its line says what tells that it has changed, the
hash of its content, and the id of its row in the store. With a reason it has failed; a row that it then still has is of its content before.

A row is stored before its line is written. `pending` names the rows that a store is about to change, so that after a crash between the two
they alone are compared. Every transaction is on the disk when it returns (a write-ahead log with synchronous=FULL).
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

from slq.data.walk import Stamp
from slq.errors import DiskFullError, OutputError, StoreCorruptError, StoreError, StoreLockedError
from slq.index import words
from slq.io.disk import sync

FORMAT, WITHOUT_WORDS = 2, 1
_OF_SOURCE = "path, kind, label, options, size, mtime_ns, inode, mounts"  # columns
_MOST_PARAMETERS = 500  # of one statement
_SCHEMA = """
CREATE TABLE sources (
    id INTEGER PRIMARY KEY,
    path BLOB NOT NULL UNIQUE,
    kind TEXT NOT NULL,
    label TEXT NOT NULL UNIQUE,
    options TEXT NOT NULL,
    size INTEGER, mtime_ns INTEGER, inode INTEGER,
    mounts TEXT NOT NULL
);
CREATE TABLE inputs (
    source INTEGER NOT NULL,
    name BLOB NOT NULL,
    image BLOB,
    size INTEGER, mtime_ns INTEGER, inode INTEGER,
    details TEXT,
    content_hash TEXT,
    row TEXT,
    reason TEXT,
    PRIMARY KEY (source, name)
) WITHOUT ROWID;
CREATE UNIQUE INDEX inputs_by_row ON inputs (row) WHERE row IS NOT NULL;
CREATE INDEX inputs_by_content ON inputs (content_hash) WHERE row IS NOT NULL;
CREATE INDEX failed_inputs ON inputs (source) WHERE reason IS NOT NULL;
CREATE TABLE pending (row TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
"""


@dataclass(frozen=True)
class Source:
    """What a user named to be indexed.

    Attributes:
        id: its number in the journal.
        path: of the folder or file, as the collection stores paths.
        kind: `folder`, `image` or `table`.
        label: the first part of its rows' ids.
        options: how it is read.
        stamp: of a table that was read through.
        mounts: folders in it at which another disk begins, or would if it were there.
    """

    id: int
    path: bytes
    kind: str
    label: str
    options: Mapping[str, Any]
    stamp: Stamp | None = None
    mounts: frozenset[bytes] = frozenset()


@dataclass(frozen=True)
class Input:
    """A line of the journal.

    Attributes:
        source: number of its source.
        name: path of the file in its folder, or id of the table's row; empty where the source is one image.
        image: path of the image that a table's row names.
        stamp: of the file when it was read; None: to be read again.
        details: hash of what a table's row says beside the image.
        content_hash: `Item.content_hash`; with a row that of its row.
        row: id of its row in the store, if it has one.
        reason: why it could not be indexed; None if it is.
    """

    source: int
    name: bytes
    image: bytes | None = None
    stamp: Stamp | None = None
    details: str | None = None
    content_hash: str | None = None
    row: str | None = None
    reason: str | None = None


class Journal:
    """The journal in a file; see the module.

    Attributes:
        file: where it is.
        db: the connection, for the modules of `slq.index`.
    """

    def __init__(self, file: Path, *, writes: bool = False):
        """Open it.

        Args:
            file: its database.
            writes: whether it is written, and made where there is none; only by the process that holds the collection's lock.

        Raises:
            StoreCorruptError: if it is damaged.
            StoreError: if it is missing, or of another version.
            OutputError: if it cannot be written.
        """
        self.file = file
        with self.errors():
            self.db = self._open_to_write() if writes else self._open_to_read()
            version = self.db.execute("PRAGMA user_version").fetchone()[0]
        if version not in (FORMAT, WITHOUT_WORDS):
            self.close()
            raise StoreError(f"The journal {file} has the format {version}, but this slq reads {FORMAT}: use another version of slq.")

    def _open_to_write(self) -> sqlite3.Connection:
        is_new = not self.file.exists()
        db = sqlite3.connect(self.file, isolation_level=None)
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        if not db.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]:
            db.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} {words.SCHEMA} PRAGMA user_version = {FORMAT}; COMMIT;")
        if is_new:
            sync(self.file.parent)
        return db

    def _open_to_read(self) -> sqlite3.Connection:
        if not self.file.exists():
            raise StoreError(f"The journal {self.file} is missing: index the same paths again; what was encoded is known by its content.")
        address = f"file:{quote(os.fsencode(self.file))}"
        try:
            db = sqlite3.connect(f"{address}?mode=ro", uri=True, isolation_level=None)
            db.execute("SELECT count(*) FROM sqlite_schema").fetchone()
            return db
        except sqlite3.OperationalError:
            if (self.file.parent / f"{self.file.name}-wal").exists():
                raise
            # On a disk that cannot be written the log of a reader has no place; without a log nobody writes.
            return sqlite3.connect(f"{address}?immutable=1", uri=True, isolation_level=None)

    def close(self) -> None:
        """Let go of the file."""
        with suppress(sqlite3.Error):
            self.db.close()

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Turn what SQLite raises into one sentence.

        Raises:
            DiskFullError: if there is no room left.
            StoreCorruptError: if the file is damaged.
            StoreLockedError: if another process holds it.
            OutputError: for what else the system refuses.
        """
        try:
            yield
        except sqlite3.DatabaseError as error:
            match getattr(error, "sqlite_errorcode", 0) & 0xFF:
                case sqlite3.SQLITE_FULL:
                    raise DiskFullError(f"No room left on the disk while writing {self.file}: free some space and run again.") from error
                case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB:
                    raise StoreCorruptError(
                        f"The journal {self.file} is damaged ({error}): move it away and index the same paths again; what was encoded is "
                        "known by its content, and is not encoded again."
                    ) from error
                case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
                    raise StoreLockedError(f"{self.file} is used by another process: wait until it has ended.") from error
                case sqlite3.SQLITE_IOERR | sqlite3.SQLITE_READONLY | sqlite3.SQLITE_CANTOPEN:
                    raise OutputError(f"{self.file} cannot be used: {error}.") from error
            raise

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All that is written inside of it, or nothing; on the disk when it ends.

        Yields:
            The connection.

        Raises:
            OutputError: see `errors`, like the other errors.
        """
        with self.errors():
            self.db.execute("BEGIN IMMEDIATE")
            try:
                yield self.db
                self.db.execute("COMMIT")
            except BaseException:
                if self.db.in_transaction:
                    self.db.execute("ROLLBACK")
                raise

    # --- sources ----------------------------------------------------------------------------------------------------------

    def sources(self) -> list[Source]:
        """All sources, in the order in which they were named."""
        with self.errors():
            found = self.db.execute(f"SELECT id, {_OF_SOURCE} FROM sources ORDER BY id").fetchall()
        return [
            Source(id_, path, kind, label, json.loads(options), _stamp(stamp), frozenset(map(bytes.fromhex, json.loads(mounts))))
            for id_, path, kind, label, options, *stamp, mounts in found
        ]

    def save_source(self, source: Source) -> Source:
        """Write a source; see `Source`.

        Args:
            source: the number 0 is that of a new one.

        Returns:
            The source with its number.
        """
        options, mounts = json.dumps(dict(source.options), sort_keys=True), json.dumps(sorted(name.hex() for name in source.mounts))
        values = (source.path, source.kind, source.label, options, *_values(source.stamp), mounts)
        with self.transaction() as db:
            cursor = db.execute(
                f"INSERT OR REPLACE INTO sources (id, {_OF_SOURCE}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", (source.id or None, *values)
            )
        return replace(source, id=cursor.lastrowid or source.id)

    def remove_source(self, source: Source) -> None:
        """Forget a source, all of whose rows are gone.

        Args:
            source: which one.
        """
        with self.transaction() as db:
            db.execute("DELETE FROM inputs WHERE source = ?", (source.id,))
            db.execute("DELETE FROM sources WHERE id = ?", (source.id,))

    # --- inputs -----------------------------------------------------------------------------------------------------------

    def begin(self, rows: Iterable[str]) -> None:
        """Say which rows of the store are about to change.

        Args:
            rows: their ids.
        """
        with self.transaction() as db:
            db.executemany("INSERT OR IGNORE INTO pending VALUES (?)", ((row,) for row in rows))

    def commit(self, lines: Iterable[Input] = (), gone: Iterable[tuple[int, bytes]] = (), texts: Mapping[str, str] | None = None) -> None:
        """Write what has become of inputs; with it, no row is about to change any more.

        Args:
            lines: of inputs that there are.
            gone: sources and names of inputs that are no more.
            texts: what rows say that are new, other or gone; see `slq.index.words.save`.
        """
        with self.transaction() as db:
            db.executemany("DELETE FROM inputs WHERE source = ? AND name = ?", gone)
            db.executemany(f"INSERT OR REPLACE INTO inputs ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", map(_values_of, lines))
            words.save(db, texts or {})
            db.execute("DELETE FROM pending")

    def pending(self) -> list[str]:
        """The rows that were about to change when a process ended."""
        with self.errors():
            return [row for (row,) in self.db.execute("SELECT row FROM pending")]

    def rows_of(self, hashes: Sequence[str]) -> dict[str, str]:
        """The id of a row for each content that has one.

        Args:
            hashes: of contents.
        """
        found: dict[str, str] = {}
        with self.errors():
            for begin in range(0, len(hashes), _MOST_PARAMETERS):
                part = hashes[begin : begin + _MOST_PARAMETERS]
                marks = ", ".join("?" * len(part))
                query = f"SELECT content_hash, min(row) FROM inputs WHERE content_hash IN ({marks}) AND row IS NOT NULL GROUP BY 1"
                found.update(self.db.execute(query, part))
        return found

    def inputs(self, source: Source) -> Iterator[Input]:
        """The lines of a source's inputs, by name.

        Args:
            source: which one.
        """
        with self.errors():
            yield from map(line_of, self.db.execute(f"SELECT {COLUMNS} FROM inputs WHERE source = ? ORDER BY name", (source.id,)))

    def failed(self) -> Iterator[tuple[Source, Input]]:
        """Inputs that could not be indexed, with their sources, by source and name."""
        sources = {source.id: source for source in self.sources()}
        query = f"SELECT {COLUMNS} FROM inputs WHERE reason IS NOT NULL ORDER BY source, name"
        with self.errors():
            for values in self.db.execute(query):
                line = line_of(values)
                yield sources[line.source], line

    def counts(self, source: int | None = None) -> dict[str, int]:
        """How many inputs, rows and failed inputs there are.

        Args:
            source: of this source alone.
        """
        where, values = ("", ()) if source is None else ("WHERE source = ?", (source,))
        with self.errors():
            found = self.db.execute(f"SELECT count(*), count(row), count(reason) FROM inputs {where}", values).fetchone()
        return dict(zip(("inputs", "rows", "failed"), found, strict=True))

    @property
    def has_words(self) -> bool:
        """Whether it knows what rows say: not one of an earlier slq, until the next run of indexing."""
        with self.errors():
            return bool(self.db.execute("SELECT count(*) FROM sqlite_schema WHERE name = 'texts'").fetchone()[0])

    # --- facts ------------------------------------------------------------------------------------------------------------

    def fact(self, name: str) -> Any:
        """What was noted under a name; None if nothing.

        Args:
            name: such as `last_run`.
        """
        with self.errors():
            found = self.db.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
        return json.loads(found[0]) if found else None

    def note(self, name: str, value: Any) -> None:
        """Note something.

        Args:
            name: what to call it.
            value: ready for JSON.
        """
        with self.transaction() as db:
            db.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (name, json.dumps(value)))

    def damage(self) -> list[str]:
        """What SQLite finds wrong with the file; empty if nothing."""
        try:
            found = [text for (text,) in self.db.execute("PRAGMA integrity_check(10)")]
        except sqlite3.DatabaseError as error:
            return [str(error)]
        return [] if found == ["ok"] else found


COLUMNS = "source, name, image, size, mtime_ns, inode, details, content_hash, row, reason"  # columns of a line, as `line_of` takes them


def line_of(values: Sequence[Any]) -> Input:
    """A line of the values of `COLUMNS`.

    Args:
        values: in their order.
    """
    source, name, image, size, mtime_ns, inode, *rest = values
    return Input(source, name, image, _stamp((size, mtime_ns, inode)), *rest)


def _values_of(line: Input) -> tuple[Any, ...]:
    # A reason may name a file whose name is not UTF-8.
    reason = None if line.reason is None else line.reason.encode("utf-8", "backslashreplace").decode()
    return line.source, line.name, line.image, *_values(line.stamp), line.details, line.content_hash, line.row, reason


def _stamp(values: Sequence[int | None]) -> Stamp | None:
    size, mtime_ns, inode = values
    return None if size is None or mtime_ns is None or inode is None else Stamp(size, mtime_ns, inode)


def _values(stamp: Stamp | None) -> tuple[int | None, int | None, int | None]:
    return (None, None, None) if stamp is None else (stamp.size, stamp.mtime_ns, stamp.inode)
