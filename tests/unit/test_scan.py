"""What sources hold beside what the journal knows: which inputs are to be read, and which are gone."""

from __future__ import annotations

import numpy as np
import pytest

from slq.data.walk import Stamp
from slq.index.journal import Input, Journal, Source
from slq.index.scan import Found, Scan

OLD, NEW = Stamp(1, 1, 1), Stamp(1, 2, 1)


@pytest.fixture
def journal(memory_path) -> Journal:
    journal = Journal(memory_path / "journal.sqlite", writes=True)
    for name in ("photos", "more"):
        journal.save_source(Source(0, f"/{name}".encode(), "folder", name, {}))
    return journal


def known(name: bytes, source: int = 1, **about) -> Input:
    return Input(source, name, **{"stamp": OLD, "content_hash": f"hash of {name!r}", "row": f"{source}/{name!r}", **about})


def forget(journal: Journal) -> None:
    """The temporary tables of a scan, so that another one can begin."""
    for name in ("found", "scanned", "unknown", "todo", "gone", "vectors"):
        journal.db.execute(f"DROP TABLE {name}")


def compared(journal: Journal, *found: Found, unreadable=(), retry_failed=False, scanned=True) -> tuple[list[bytes], list[bytes]]:
    """The names of inputs that are to be read, and of those that are gone."""
    scan, [photos, _] = Scan(journal), journal.sources()
    scan.add(photos, found)
    if scanned:
        scan.complete(photos, unreadable)
    scan.compare(retry_failed)
    assert scan.num_found == len(found) and scan.num_todo == len(scan.todo(0, 99))
    return [each[2].name for each in scan.todo(0, 99)], [each.name for _, each in scan.gone(0, 99)]


def test_new_changed_and_gone(journal):
    journal.commit([known(b"same"), known(b"changed"), known(b"gone"), known(b"of another source", source=2)])
    found = [Found(b"same", stamp=OLD), Found(b"changed", stamp=NEW), Found(b"new", stamp=NEW)]
    assert compared(journal, *found) == ([b"changed", b"new"], [b"gone"])


def test_every_part_of_a_stamp_counts_and_none_is_never_the_same(journal):
    journal.commit([known(b"a"), known(b"b", stamp=None), known(b"c"), known(b"d", details="x")])
    for stamp in (Stamp(2, 1, 1), Stamp(1, 2, 1), Stamp(1, 1, 2), None):
        assert compared(journal, Found(b"a", stamp=stamp))[0] == [b"a"]
        journal.db.executescript(
            "DROP TABLE found; DROP TABLE scanned; DROP TABLE unknown; DROP TABLE todo; DROP TABLE gone; DROP TABLE vectors;"
        )
    found = (Found(b"a", stamp=OLD), Found(b"b", stamp=None), Found(b"d", stamp=OLD, details="y"))
    assert compared(journal, *found) == ([b"b", b"d"], [b"c"])


def test_failed_inputs_are_read_when_they_change_or_are_asked_for(journal):
    journal.commit([known(b"a", row=None, reason="it is damaged")])
    assert compared(journal, Found(b"a", stamp=OLD)) == ([], [])
    journal.db.executescript(
        "DROP TABLE found; DROP TABLE scanned; DROP TABLE unknown; DROP TABLE todo; DROP TABLE gone; DROP TABLE vectors;"
    )
    assert compared(journal, Found(b"a", stamp=OLD), retry_failed=True) == ([b"a"], [])


def test_nothing_is_gone_from_where_nobody_could_look(journal):
    names = (b"a/b.jpg", b"a/c/d.jpg", b"a.jpg", b"a0.jpg", b"a", b"b/c.jpg")
    journal.commit(known(name) for name in names)
    assert compared(journal, unreadable=[b"a"]) == ([], [b"a", b"a.jpg", b"a0.jpg", b"b/c.jpg"])


def test_nothing_is_gone_from_a_source_that_was_not_looked_at(journal):
    journal.commit([known(b"a"), known(b"b", source=2)])
    assert compared(journal, scanned=False) == ([], [])


def test_a_source_is_kept_or_discarded_as_a_whole(journal):
    journal.commit([known(b"a", image=b"/a", details="x"), known(b"b"), known(b"c", source=2)])
    scan, [photos, more] = Scan(journal), journal.sources()
    assert scan.keep(photos) == 2
    scan.complete(photos)
    scan.add(more, [Found(b"d", stamp=NEW)])
    scan.discard(more)
    scan.compare(False)
    assert scan.todo(0, 99) == [] and scan.gone(0, 99) == [] and scan.num_found == 2


def test_what_is_to_be_read_comes_with_what_is_known(journal):
    line = known(b"a", image=b"/a", details="x")
    journal.commit([line])
    scan, [photos, _] = Scan(journal), journal.sources()
    found = Found(b"a", b"/b", NEW, "y", '{"text": "a cat"}', None)
    twice = Found(b"a", b"/twice", NEW, if_repeated=Found(b"line 3", reason="repeats the id"))
    assert scan.add(photos, [found, Found(b"b", reason="no row"), twice, Found(b"a", b"/again", NEW)]) == 4
    scan.compare(False)
    assert scan.todo(0, 1) == [(1, 1, found, line)]
    assert scan.todo(1, 9) == [(2, 1, Found(b"b", reason="no row"), None), (3, 1, twice.if_repeated, None)]


def test_each_gone_input_is_moved_once(journal):
    journal.commit([known(b"a", content_hash="x"), known(b"b", content_hash="x"), known(b"c", content_hash="y", row=None)])
    scan = Scan(journal)
    scan.complete(journal.sources()[0])
    scan.compare(False)
    assert [scan.claim_moved(each) for each in ("x", "y", "x", "x", "z")] == [True, False, True, False, False]
    assert [(each.row, each.was_moved) for _, each in scan.gone(0, 9)] == [("1/b'a'", True), ("1/b'b'", True), (None, False)]
    assert [number for number, _ in scan.gone(1, 1)] == [2]


def test_vectors_are_kept_by_content(journal):
    scan, vector = Scan(journal), np.array([0.1, -2], np.float32)
    scan.keep_vectors([("x", vector)])
    [(content_hash, found)] = scan.kept_vectors(["y", "x"])
    assert content_hash == "x" and found.dtype == np.float32 and np.array_equal(found, vector)


def test_failures_that_are_known_are_counted(journal):
    journal.commit([known(b"a", row=None, reason="bad"), known(b"b", row=None, reason="bad"), known(b"c")])
    scan, [photos, _] = Scan(journal), journal.sources()
    scan.add(photos, [Found(b"a", stamp=OLD), Found(b"b", stamp=NEW), Found(b"c", stamp=OLD)])
    scan.compare(False)
    assert (scan.num_known_failures, scan.num_todo) == (1, 1)
