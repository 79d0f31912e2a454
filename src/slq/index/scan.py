"""What sources hold now, beside what the journal knows of them: in temporary tables, so that neither has to fit in memory.

found      what there is now
todo       inputs that are new, or may have changed, or are to be tried again
gone       inputs that there are no more
vectors    of contents whose row has been replaced since, and which may turn up under another name
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np

from slq.data.walk import Stamp
from slq.index.journal import COLUMNS, Input, Journal, Source, line_of

_TABLES = """
CREATE TEMP TABLE found (
    source INTEGER, name BLOB, image BLOB, size INTEGER, mtime_ns INTEGER, inode INTEGER, details TEXT, payload TEXT, reason TEXT,
    PRIMARY KEY (source, name)
) WITHOUT ROWID;
CREATE TEMP TABLE scanned (source INTEGER PRIMARY KEY);
CREATE TEMP TABLE unknown (source INTEGER, low BLOB, high BLOB);
CREATE TEMP TABLE todo (n INTEGER PRIMARY KEY, source INTEGER, name BLOB);
CREATE TEMP TABLE gone (n INTEGER PRIMARY KEY, source INTEGER, name BLOB, row TEXT, content_hash TEXT, moved INTEGER);
CREATE INDEX temp.gone_by_content ON gone (content_hash) WHERE row IS NOT NULL;
CREATE TEMP TABLE vectors (content_hash TEXT PRIMARY KEY, vector BLOB) WITHOUT ROWID;
"""
_INSERT = "INSERT OR IGNORE INTO found VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
_BATCH = 1000


@dataclass(frozen=True)
class Found:
    """An input as it is now.

    Attributes:
        name: as in `Input`, like `image`, `stamp` and `details`.
        payload: what a table's row says, as JSON.
        reason: why a table's row cannot be used.
        if_repeated: what stands for it where its source holds another input of its name.
    """

    name: bytes
    image: bytes | None = None
    stamp: Stamp | None = None
    details: str | None = None
    payload: str | None = None
    reason: str | None = None
    if_repeated: Found | None = None


@dataclass(frozen=True)
class Gone:
    """An input that there is no more.

    Attributes:
        source: number of its source.
        name: of the input.
        row: the id of its row, if it has one.
        was_moved: whether there is an input with its content under another name; see `Scan.claim_moved`.
    """

    source: int
    name: bytes
    row: str | None
    was_moved: bool


class Scan:
    """One look at all sources; see the module."""

    def __init__(self, journal: Journal):
        """Begin with empty tables.

        Args:
            journal: opened to be written.
        """
        self.journal, self._db = journal, journal.db
        with journal.errors():
            self._db.executescript(_TABLES)

    # --- what there is now ------------------------------------------------------------------------------------------------

    def add(self, source: Source, found: Iterable[Found]) -> int:
        """Take in what a source holds.

        Args:
            source: which one.
            found: its inputs; of two with one name the first counts.

        Returns:
            How many there were.
        """
        count, waiting = 0, iter(found)
        while part := list(islice(waiting, _BATCH)):
            with self.journal.transaction() as db:
                for each in part:
                    if not db.execute(_INSERT, _values(source, each)).rowcount and each.if_repeated is not None:
                        db.execute(_INSERT, _values(source, each.if_repeated))
            count += len(part)
        return count

    def discard(self, source: Source) -> None:
        """Take back what was added of a source, which cannot be read to its end.

        Args:
            source: which one.
        """
        with self.journal.transaction() as db:
            db.execute("DELETE FROM found WHERE source = ?", (source.id,))

    def keep(self, source: Source) -> int:
        """Take a source for unchanged, with all that the journal knows of it.

        Args:
            source: which one.

        Returns:
            How many inputs it has.
        """
        with self.journal.transaction() as db:
            return db.execute(
                "INSERT INTO found (source, name, image, size, mtime_ns, inode, details) "
                "SELECT source, name, image, size, mtime_ns, inode, details FROM inputs WHERE source = ?",
                (source.id,),
            ).rowcount

    def complete(self, source: Source, unreadable: Iterable[bytes] = ()) -> None:
        """Say that a source was looked at as a whole, so that what was not found in it is gone.

        Args:
            source: which one.
            unreadable: folders in it of which nothing is known.
        """
        with self.journal.transaction() as db:
            db.execute("INSERT OR IGNORE INTO scanned VALUES (?)", (source.id,))
            # What lies in a folder has a name from the folder's with a slash to that with what comes behind a slash.
            bounds = ((source.id, folder + b"/", folder + b"0") for folder in unreadable)
            db.executemany("INSERT INTO unknown VALUES (?, ?, ?)", bounds)

    # --- what is to be done -----------------------------------------------------------------------------------------------

    def compare(self, retry_failed: bool) -> None:
        """Find out what is to be read, and what is gone.

        Args:
            retry_failed: whether inputs that could not be indexed are read again although they have not changed.
        """
        with self.journal.transaction() as db:
            db.execute(
                "INSERT INTO todo (source, name) SELECT f.source, f.name FROM found f LEFT JOIN inputs i USING (source, name) "
                "WHERE i.name IS NULL OR f.size IS NULL OR i.size IS NOT f.size OR i.mtime_ns IS NOT f.mtime_ns "
                "OR i.inode IS NOT f.inode OR i.details IS NOT f.details OR (i.reason IS NOT NULL AND ?) ORDER BY f.source, f.name",
                (retry_failed,),
            )
            db.execute(
                "INSERT INTO gone (source, name, row, content_hash, moved) SELECT i.source, i.name, i.row, i.content_hash, 0 "
                "FROM inputs i JOIN scanned USING (source) LEFT JOIN found f USING (source, name) WHERE f.name IS NULL AND NOT EXISTS "
                "(SELECT 1 FROM unknown u WHERE u.source = i.source AND i.name >= u.low AND i.name < u.high)"
            )

    @property
    def num_found(self) -> int:
        """How many inputs there are."""
        return self._one("SELECT count(*) FROM found")

    @property
    def num_todo(self) -> int:
        """How many inputs are to be read."""
        return self._one("SELECT count(*) FROM todo")

    @property
    def num_known_failures(self) -> int:
        """How many inputs could not be indexed before, and are not to be tried again."""
        return self._one(
            "SELECT count(*) FROM found JOIN inputs i USING (source, name) LEFT JOIN todo t USING (source, name) "
            "WHERE i.reason IS NOT NULL AND t.n IS NULL"
        )

    def todo(self, after: int, most: int) -> list[tuple[int, int, Found, Input | None]]:
        """The next inputs to be read.

        Args:
            after: number of the last one before them.
            most: how many.

        Returns:
            Of each its number, that of its source, what there is now, and what the journal knows.
        """
        columns = ", ".join(f"i.{column}" for column in COLUMNS.split(", "))
        with self.journal.errors():
            found = self._db.execute(
                f"SELECT t.n, f.*, {columns} FROM todo t JOIN found f USING (source, name) LEFT JOIN inputs i USING (source, name) "
                "WHERE t.n > ? ORDER BY t.n LIMIT ?",
                (after, most),
            ).fetchall()
        return [_todo(values) for values in found]

    def gone(self, after: int, most: int) -> list[tuple[int, Gone]]:
        """The next inputs that there are no more, with their numbers; see `todo`."""
        with self.journal.errors():
            query = "SELECT n, source, name, row, moved FROM gone WHERE n > ? ORDER BY n LIMIT ?"
            found = self._db.execute(query, (after, most)).fetchall()
        return [(number, Gone(source, name, row, bool(moved))) for number, source, name, row, moved in found]

    def claim_moved(self, content_hash: str) -> bool:
        """Whether an input with this content is gone, and no other one was taken for it under another name.

        Args:
            content_hash: of an input that is new.
        """
        with self.journal.transaction() as db:
            return bool(
                db.execute(
                    "UPDATE gone SET moved = 1 WHERE n = "
                    "(SELECT min(n) FROM gone WHERE content_hash = ? AND row IS NOT NULL AND moved = 0)",
                    (content_hash,),
                ).rowcount
            )

    # --- vectors ----------------------------------------------------------------------------------------------------------

    def keep_vectors(self, vectors: Iterable[tuple[str, np.ndarray]]) -> None:
        """Hold on to the vectors of contents whose rows are about to be replaced or removed.

        Args:
            vectors: (D,) float32, by the hash of the content.
        """
        with self.journal.transaction() as db:
            rows = ((content_hash, vector.astype("<f4").tobytes()) for content_hash, vector in vectors)
            db.executemany("INSERT OR IGNORE INTO vectors VALUES (?, ?)", rows)

    def kept_vectors(self, hashes: Sequence[str]) -> Iterator[tuple[str, np.ndarray]]:
        """Those vectors that `keep_vectors` has of these contents.

        Args:
            hashes: of the contents.
        """
        with self.journal.errors():
            for content_hash in hashes:
                found = self._db.execute("SELECT vector FROM vectors WHERE content_hash = ?", (content_hash,)).fetchone()
                if found:
                    yield content_hash, np.frombuffer(found[0], "<f4").astype(np.float32)

    def _one(self, query: str, *values: object) -> int:
        with self.journal.errors():
            return self._db.execute(query, values).fetchone()[0]


def _values(source: Source, found: Found) -> tuple[object, ...]:
    stamp = found.stamp
    stamped: tuple[int | None, ...] = (None, None, None) if stamp is None else (stamp.size, stamp.mtime_ns, stamp.inode)
    return source.id, found.name, found.image, *stamped, found.details, found.payload, found.reason


def _todo(values: Sequence[object]) -> tuple[int, int, Found, Input | None]:
    number, source, name, image, size, mtime_ns, inode, details, payload, reason, *line = values
    stamp = None if size is None else Stamp(size, mtime_ns, inode)  # type: ignore[arg-type]
    found = Found(name, image, stamp, details, payload, reason)  # type: ignore[arg-type]
    return number, source, found, line_of(line) if line[0] is not None else None  # type: ignore[return-value]
