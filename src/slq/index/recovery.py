"""A journal brought in line with the rows of its store, after a process was killed between the two or a store has lost its last writes.

The rows count. A line whose row is missing is to be read again; a row without a line gets one that knows no more than the row, so that its
input is read, found to have that content, and not encoded again; or found to be gone.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence

from slq.errors import Failure
from slq.index import words
from slq.index.ids import input_of, row_id
from slq.index.journal import FORMAT, Journal
from slq.index.store import Row, Store

_BATCH = 512
_LOST = "its row is missing or damaged; index again"
_TABLES = """
CREATE TEMP TABLE IF NOT EXISTS stored (row TEXT PRIMARY KEY, content_hash TEXT) WITHOUT ROWID;
CREATE TEMP TABLE IF NOT EXISTS asked (row TEXT PRIMARY KEY) WITHOUT ROWID;
DELETE FROM stored;
DELETE FROM asked;
"""
_NOTHING_KNOWN = "size = NULL, mtime_ns = NULL, inode = NULL, details = NULL"
_WITH_ANOTHER_CONTENT = "SELECT i.row FROM inputs i JOIN stored s USING (row) WHERE i.content_hash IS NOT s.content_hash"
_WITHOUT_A_LINE = "SELECT row, content_hash FROM stored WHERE row NOT IN (SELECT row FROM inputs WHERE row IS NOT NULL) ORDER BY row"


def recover(journal: Journal, store: Store, repair: bool = False) -> list[str]:
    """Bring a journal in line with its store, as far as they are known to differ.

    Args:
        journal: opened to be written.
        store: whose rows count.
        repair: whether every row is compared, and those that are damaged are to be encoded again.

    Returns:
        The ids of rows that belong to no source.
    """
    if repair or not journal.has_words:
        _refill_words(journal, store)
    if repair:
        unknown = _compare(journal, store.scan(), None)
        with journal.transaction() as db:
            damaged = ((_LOST, failure.item) for failure in store.verify())
            db.executemany(f"UPDATE inputs SET row = NULL, content_hash = NULL, {_NOTHING_KNOWN}, reason = ? WHERE row = ?", damaged)
        return unknown
    if pending := journal.pending():
        _compare(journal, (store.get(pending[begin : begin + _BATCH]) for begin in range(0, len(pending), _BATCH)), pending)
    return _compare(journal, store.scan(), None) if journal.counts()["rows"] != len(store) else []


def differences(journal: Journal, store: Store) -> list[Failure]:
    """Where a journal and its store differ, other than by what an interrupted run is known to have left; repairs nothing.

    Args:
        journal: opened to be read.
        store: of the collection.
    """
    with journal.errors():
        journal.db.executescript(_TABLES)
        _fill(journal.db, store.scan())
        missing = "SELECT row FROM inputs WHERE row IS NOT NULL AND row NOT IN (SELECT row FROM stored) ORDER BY row"
        pending = set(journal.pending())
        found = [(row, "the journal has it, and the store has no such row") for (row,) in journal.db.execute(missing)]
        found += [(row, "the store has it, and the journal does not know it") for row, _ in journal.db.execute(_WITHOUT_A_LINE)]
        found += [(row, "its row is of another content than the journal says") for (row,) in journal.db.execute(_WITH_ANOTHER_CONTENT)]
        if journal.has_words:
            rows = (row for batch in store.scan() for row in batch)
            found += [(row, "its words in the journal are not those of the row") for row in words.differing(journal.db, rows)]
    return [Failure(row, reason) for row, reason in found if row not in pending]


def _refill_words(journal: Journal, store: Store) -> None:
    """What the rows say written anew, also where an earlier slq has not."""
    is_missing = not journal.has_words
    with journal.transaction() as db:
        if is_missing:
            for statement in words.STATEMENTS:
                db.execute(statement)
            db.execute(f"PRAGMA user_version = {FORMAT}")
        words.refill(db, (row for batch in store.scan() for row in batch))


def _compare(journal: Journal, batches: Iterable[Sequence[Row]], asked: Sequence[str] | None) -> list[str]:
    """Bring the lines of rows in line with these rows: of those that are asked about, or of all."""
    with journal.errors():
        journal.db.executescript(_TABLES)
        _fill(journal.db, batches)
        journal.db.executemany("INSERT INTO asked VALUES (?)", ((row,) for row in asked or ()))
    among = "" if asked is None else "AND row IN (SELECT row FROM asked)"
    with journal.transaction() as db:
        db.execute(
            f"UPDATE inputs SET row = NULL, content_hash = NULL, {_NOTHING_KNOWN}, reason = ? "
            f"WHERE row IS NOT NULL AND row NOT IN (SELECT row FROM stored) {among}",
            (_LOST,),
        )
        db.execute(
            f"UPDATE inputs SET content_hash = (SELECT s.content_hash FROM stored s WHERE s.row = inputs.row), {_NOTHING_KNOWN} "
            f"WHERE row IN ({_WITH_ANOTHER_CONTENT})"
        )
        unknown = _adopt(journal, db)
        db.execute("DELETE FROM pending")
    return unknown


def _fill(db: sqlite3.Connection, batches: Iterable[Sequence[Row]]) -> None:
    for rows in batches:
        db.executemany("INSERT OR REPLACE INTO stored VALUES (?, ?)", ((row.id, row.content_hash) for row in rows))


def _adopt(journal: Journal, db: sqlite3.Connection) -> list[str]:
    """Give rows without a line one; returns those whose ids are of no source."""
    numbers, unknown = {source.label: source.id for source in journal.sources()}, []
    for row, content_hash in db.execute(_WITHOUT_A_LINE).fetchall():
        label, name = input_of(row)
        if label not in numbers or row_id(label, name) != row:
            unknown.append(row)
            continue
        db.execute(
            "INSERT INTO inputs (source, name, content_hash, row) VALUES (?, ?, ?, ?) ON CONFLICT (source, name) "
            f"DO UPDATE SET content_hash = excluded.content_hash, row = excluded.row, reason = NULL, {_NOTHING_KNOWN}",
            (numbers[label], name, content_hash, row),
        )
    return unknown
