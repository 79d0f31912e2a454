"""The journal: what it holds survives its process, is read beside a writer and on a disk that cannot be written, and damage is told."""

from __future__ import annotations

import os
import sqlite3
import stat
from pathlib import Path

import pytest

from slq.data.walk import Stamp
from slq.errors import StoreCorruptError, StoreError, StoreLockedError
from slq.index.journal import FORMAT, Input, Journal, Source

STAMP = Stamp(5, 123_456_789_012_345_678, 2**63 - 1)


@pytest.fixture
def file(memory_path: Path) -> Path:
    return memory_path / os.fsdecode(b"caf\xe9 %41?#") / "journal.sqlite"


@pytest.fixture
def journal(file: Path) -> Journal:
    file.parent.mkdir()
    return Journal(file, writes=True)


def lines(journal: Journal) -> dict[bytes, str | None]:
    return dict(journal.db.execute("SELECT name, row FROM inputs"))


def test_sources_keep_their_numbers_and_options(journal, file):
    first = journal.save_source(Source(0, b"../caf\xe9", "folder", "caf%E9", {"follow_links": True}))
    second = journal.save_source(Source(0, b"/shop.csv", "table", "shop.csv", {}))
    assert (first.id, second.id) == (1, 2)
    changed = journal.save_source(Source(second.id, second.path, second.kind, second.label, {"text_column": "name"}, STAMP))
    journal.close()
    assert Journal(file).sources() == [first, changed]
    writer = Journal(file, writes=True)
    writer.remove_source(first)
    assert writer.sources() == [changed]


def test_lines_come_back_as_they_were_written(journal):
    source = journal.save_source(Source(0, b"/photos", "folder", "photos", {}))
    good = Input(source.id, b"caf\xe9.jpg", None, STAMP, None, "hash", "photos/caf%E9.jpg")
    bad = Input(source.id, b"b.jpg", b"/b.jpg", None, "details", None, None, f"the file {os.fsdecode(bytes([0xE9]))} is damaged")
    journal.begin([good.row])
    assert journal.pending() == [good.row]
    journal.commit([good, bad])
    assert journal.pending() == [] and journal.counts() == {"inputs": 2, "rows": 1, "failed": 1} and journal.counts(7)["inputs"] == 0
    [(of, found)] = journal.failed()
    assert of == source and found == Input(*bad_without_reason(bad), reason="the file \\udce9 is damaged")
    assert journal.rows_of(["hash", "other"]) == {"hash": good.row}
    journal.commit(gone=[(source.id, good.name)])
    assert lines(journal) == {b"b.jpg": None} and journal.rows_of(["hash"]) == {}


def bad_without_reason(line: Input) -> tuple:
    return line.source, line.name, line.image, line.stamp, line.details, line.content_hash, line.row


def test_a_transaction_is_whole_or_nothing(journal):
    def broken():
        yield Input(1, b"a", row="a")
        raise RuntimeError("stop")

    journal.begin(["a"])
    with pytest.raises(RuntimeError):
        journal.commit(broken())
    assert lines(journal) == {} and journal.pending() == ["a"]
    journal.commit([Input(1, b"a", row="a")])
    assert lines(journal) == {b"a": "a"}


def test_many_read_beside_the_one_that_writes(journal, file):
    reader = Journal(file)
    journal.note("last_run", {"new": 3})
    assert reader.fact("last_run") == {"new": 3} and reader.fact("none") is None
    with pytest.raises(StoreLockedError, match="is used by another process"), journal.transaction():
        other = Journal(file, writes=True)
        other.db.execute("PRAGMA busy_timeout = 1")
        other.note("last_run", {})
    assert reader.fact("last_run") == {"new": 3}


def test_it_is_read_on_a_disk_that_cannot_be_written(journal, file, monkeypatch):
    journal.note("last_run", 1)
    journal.close()
    file.chmod(stat.S_IREAD)
    file.parent.chmod(stat.S_IREAD | stat.S_IEXEC)
    connect = sqlite3.connect

    def refuse(address, **options):  # what SQLite says there to a user without the rights of root
        if "mode=ro" in address:
            raise sqlite3.OperationalError("unable to open database file")
        return connect(address, **options)

    monkeypatch.setattr(sqlite3, "connect", refuse)
    try:
        assert Journal(file).fact("last_run") == 1
    finally:
        file.parent.chmod(0o755)


def test_damage_is_told(journal, file):
    journal.commit(Input(1, f"{number}.jpg".encode(), row=f"{number}.jpg", content_hash="x" * 64) for number in range(2000))
    assert journal.damage() == []
    journal.close()
    content = bytearray(file.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 8192] = bytes(8192)
    file.write_bytes(content)
    assert Journal(file).damage()
    file.write_bytes(b"no database at all" * 100)
    with pytest.raises(StoreCorruptError, match=r"journal\.sqlite is damaged \(file is not a database\): move it away and index the same"):
        Journal(file)


def test_what_is_no_journal_is_refused(memory_path):
    with pytest.raises(StoreError, match=r"journal\.sqlite is missing: index the same paths again"):
        Journal(memory_path / "journal.sqlite")
    db = sqlite3.connect(memory_path / "journal.sqlite")
    db.execute("PRAGMA user_version = 9")
    db.execute("CREATE TABLE inputs (a)")
    db.close()
    with pytest.raises(StoreError, match=f"has the format 9, but this slq reads {FORMAT}"):
        Journal(memory_path / "journal.sqlite", writes=True)
