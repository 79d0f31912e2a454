"""Words of captions and columns, which a collection's journal keeps beside its lines and finds by BM25 (SQLite's FTS5).

`texts` has a line for each row that says something in words; triggers keep the index `words` in step with it, in the same transactions
as the lines of inputs. A line of a row that is no more finds nothing: what is found is looked up in the store.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterable, Mapping

from slq.index.store import Row

_ADD = "INSERT INTO words (rowid, text) VALUES (new.id, new.text);"
_TAKE_OUT = "INSERT INTO words (words, rowid, text) VALUES ('delete', old.id, old.text);"
STATEMENTS = (
    "CREATE TABLE texts (id INTEGER PRIMARY KEY, row TEXT NOT NULL UNIQUE, text TEXT NOT NULL)",
    "CREATE VIRTUAL TABLE words USING fts5(text, content='texts', content_rowid='id', tokenize='unicode61 remove_diacritics 2')",
    f"CREATE TRIGGER texts_inserted AFTER INSERT ON texts BEGIN {_ADD} END",
    f"CREATE TRIGGER texts_deleted AFTER DELETE ON texts BEGIN {_TAKE_OUT} END",
    f"CREATE TRIGGER texts_updated AFTER UPDATE ON texts BEGIN {_TAKE_OUT} {_ADD} END",
)
SCHEMA = ";\n".join((*STATEMENTS, ""))
_UPSERT = "INSERT INTO texts (row, text) VALUES (?, ?) ON CONFLICT (row) DO UPDATE SET text = excluded.text WHERE text IS NOT excluded.text"
_FIND = "SELECT texts.row FROM words JOIN texts ON texts.id = words.rowid WHERE words MATCH ? ORDER BY bm25(words), texts.row LIMIT ?"


def words_of(row: Row) -> str:
    r"""What a row says in words: its text, and the columns that are no numbers; empty if nothing.

    Args:
        row: of the store.

    Example:
        >>> import numpy as np
        >>> words_of(Row("a", np.zeros(2), "a red cat", None, {"place": "Oslo", "price": 3}))
        'a red cat\nOslo'
    """
    said = [row.text or "", *(value for _, value in sorted(row.metadata.items()) if isinstance(value, str))]
    return "\n".join(text for text in said if re.search(r"\w", text))


def save(db: sqlite3.Connection, texts: Mapping[str, str]) -> None:
    """Write what rows say, in a transaction of the caller's.

    Args:
        db: the journal's.
        texts: by id of a row; empty for one that says nothing, or is gone.
    """
    db.executemany("DELETE FROM texts WHERE row = ?", ((row,) for row, text in texts.items() if not text))
    db.executemany(_UPSERT, ((row, text) for row, text in texts.items() if text))


def refill(db: sqlite3.Connection, rows: Iterable[Row]) -> None:
    """Write anew what all rows say, in a transaction of the caller's.

    Args:
        db: the journal's.
        rows: all that there are.
    """
    db.execute("DELETE FROM texts")
    for row in rows:
        save(db, {row.id: words_of(row)})


def differing(db: sqlite3.Connection, rows: Iterable[Row]) -> list[str]:
    """The ids of rows of which something else is written than they say.

    Args:
        db: the journal's.
        rows: all that there are.
    """
    written = dict(db.execute("SELECT row, text FROM texts"))
    return [row.id for row in rows if written.get(row.id, "") != words_of(row)]


def find(db: sqlite3.Connection, text: str, count: int) -> list[str]:
    """The ids of the rows that have words of a text, best first by BM25; equal ones by id.

    Args:
        db: the journal's.
        text: whose words are looked for, each by itself, whatever its case and accents.
        count: how many, at most.
    """
    words = " OR ".join(f'"{word}"' for word in dict.fromkeys(re.findall(r"\w+", text.casefold())))
    return [row for (row,) in db.execute(_FIND, (words, count))] if words else []
