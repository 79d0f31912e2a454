"""LanceStore's own parts: columns and conditions, manifests, what the disk has before a commit counts, readers, the index."""

from __future__ import annotations

import os
import re
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from slq.errors import InputError, StoreCorruptError, StoreError, StoreLockedError
from slq.index.exact import ExactStore
from slq.index.filters import And, Eq, Filter, In, Not, Range
from slq.index.lance import EXACT_ROWS, LanceStore
from slq.index.lance.conditions import condition
from slq.index.lance.journal import Journal
from slq.index.lance.manifest import manifest_name, read_manifest, version_of
from slq.index.lance.rows import decode_text, encode_text, fact_hash
from slq.index.lance.versions import held_files
from slq.index.store import Row, StoreMetadata
from slq.testing.store_checks import FILTERS
from slq.testing.stores import METADATA, assert_finds, assert_holds, assert_same, make_queries, make_rows


class Indexed(LanceStore):
    """Makes an index of far fewer rows than it pays for."""

    exact_rows = 100


@pytest.fixture
def store(tmp_path):
    store = LanceStore(tmp_path / "s", METADATA)
    store.upsert(make_rows(5))
    yield store
    store.close()


# --- rows and filters -------------------------------------------------------------------------------------------------------

ODD = [
    Row("\udcff\udc80.jpg", make_rows(1)[0].vector, "\x00 not JSON", "\ud800", {"a.b": "\udcaa", "it's": -0.0}, "\x00"),
    Row("; drop table rows --", make_rows(1, 1)[0].vector, "", "", {"year": 2**53 + 1, "weight": 5e-324}),
    Row("`id` = 'row 1'", make_rows(1, 2)[0].vector, None, None, {"year": -(2**63), "weight": 1.7e308, "x" * 5000: "y"}),
]
BEYOND: tuple[Filter, ...] = (
    *(Eq("year", 2**53 + 1), Eq("year", float(2**53)), Eq("weight", 0), Eq("it's", 0), Eq("a.b", "\udcaa"), Eq("x" * 5000, "y")),
    *(Range("year", 2**53 + 1), Range("year", high=2**53), Not(Range("year", 0, 2**53)), Range("year", -(2**63), 0)),
    *(Range("it's", 0.0), Range("it's", high=-0.0), Range("weight", 5e-324, 1), Range("weight", 1e308), Range("year", 1, "x")),
    *(
        Eq("id", "\udcff\udc80.jpg"),
        In("image", ("\ud800", "")),
        Range("id", 1, 2),
        Range("id", "row 1", "row 3"),
        Eq("text", "' OR 1=1 --"),
    ),
    And((Range("animal", "c"), Range("weight", 1, 9), Not(In("year", (2003, "2004"))))),
)


def test_any_text_is_stored_as_it_is(store):
    store.upsert(ODD)
    for found, wanted in zip(store.get([row.id for row in ODD]), ODD, strict=True):
        assert_same(found, wanted)
    assert store.delete([row.id for row in ODD]) == 3
    for text in ("", "a", "\x00", '\x00"a"', "\udcff", "é\ud83d", None):
        stored = encode_text(text)
        assert decode_text(stored) == text and (stored is None or stored.encode() is not None)


@pytest.mark.slow
def test_filters_mean_the_same_to_the_table_as_to_python(tmp_path):
    """In every way of searching: in memory, through all rows from the disk, by the index, and by the index with rows that it lacks."""
    rows, vectors_QD = [*make_rows(300), *ODD], make_queries(1)
    exact, lance, indexed = ExactStore(tmp_path / "e", METADATA), LanceStore(tmp_path / "l", METADATA), Indexed(tmp_path / "i", METADATA)
    for store in (exact, lance, indexed):
        store.upsert(rows[: len(rows) - 2])
    indexed.optimize()
    for store in (exact, lance, indexed):
        store.upsert(rows[len(rows) - 2 :])
    for filter in (None, *FILTERS, *BEYOND):
        wanted = exact.search(vectors_QD, 7, filter=filter)
        for store, only_exact in ((lance, False), (indexed, True), (indexed, False)):
            assert store.search(vectors_QD, 7, filter=filter, exact=only_exact) == wanted, (filter, only_exact)
    for store in (exact, lance, indexed):
        store.close()


SQL = {*"array_has array_has_any make_array array_element array_position facts names numbers".split()}
SQL |= {*"cast as bigint double e coalesce and not true false".split()}  # e is of a number such as 1e+20


def test_no_text_of_a_user_enters_a_condition():
    for text in ("x", "' OR 1=1 --", "year < 3", "\udcff", "); delete"):
        for filter in (Eq(text, text), In(text, (text, 1, True)), Range(text, 1, 2.5), Range(text, "a"), Not(And((Eq("id", text),)))):
            words = set(re.findall(r"[^\W\d]+", condition(filter).sql))
            assert words <= SQL, words - SQL


def test_what_filters_take_for_equal_has_one_hash():
    assert fact_hash("a", 2) == fact_hash("a", 2.0) and fact_hash("a", 0) == fact_hash("a", -0.0) and 0 <= fact_hash("a", 2) < 2**63
    others = [
        fact_hash("a", 1),
        fact_hash("a", True),
        fact_hash("a", "1"),
        fact_hash("b", 1),
        fact_hash("a", 2**53),
        fact_hash("a", 2**53 + 1),
    ]
    assert len(set(others)) == len(others)


def test_only_what_the_table_can_tell_is_left_to_it():
    assert condition(Range("id", 1)).sql == condition(In("a", ())).sql == condition(Range("a", 1, "b")).sql == "false"
    assert condition(And(())).sql == "true"
    for filter in (Range("a"), Range("a", "b"), Range("a", 2**53 + 1), Not(Range("id", "b")), And((Eq("a", 1), Range("a", "b")))):
        assert not condition(filter).is_exact
    assert condition(And((Eq("a", 1), Range("a", "b")))).sql == f"({condition(Eq('a', 1)).sql}) and (true)"


# --- files ------------------------------------------------------------------------------------------------------------------


def test_a_manifest_names_the_files_that_are_read(store):
    store.delete(["row 0"])
    store.upsert(make_rows(3, start=4))
    table = store.location / "rows.lance"
    version = store._state.head.version
    content = (table / manifest_name(version)).read_bytes()
    manifest = read_manifest(content)
    assert manifest.version == version == version_of(table / manifest_name(version)) and version_of(Path("hint.json")) is None
    assert [fragment.rows for fragment in manifest.fragments] == [3, 3]
    named = [file for fragment in manifest.fragments for file in fragment.files]
    assert len(named) == 3 and set(named) < set(held_files(table)) and (table / manifest.transaction).exists()
    for size in range(0, len(content), 7):
        with pytest.raises(ValueError, match=r"it |one of"):
            read_manifest(content[:size])
    store.close()


def test_the_disk_has_all_files_of_a_version_before_it_counts(store, monkeypatch):
    synced, fsync, counted = {}, os.fsync, Journal(store.location)

    def recorded(descriptor: int) -> None:
        synced.setdefault(os.readlink(f"/proc/self/fd/{descriptor}"), counted.state().head.number)
        fsync(descriptor)

    if not Path("/proc/self/fd").exists():
        pytest.skip("this system does not tell the file of a descriptor")
    before, table = set(store.location.rglob("*")), store.location / "rows.lance"
    with monkeypatch.context() as patched, closing(counted):
        patched.setattr(os, "fsync", recorded)
        number = store._state.head.number
        store.upsert(make_rows(3, start=3))
        store.delete(["row 0"])
        new = {str(path) for path in set(store.location.rglob("*")) - before if path.is_file() and table in path.parents}
        new = {path for path in new if not path.endswith("latest_version_hint.json")}  # which nothing needs
        assert len(new) == 7 and new <= synced.keys(), "data, two deletions, two manifests and two transactions"
        assert {synced[path] for path in new} == {number, number + 1}
        assert {str(table / name) for name in ("data", "_versions", "_deletions", "_transactions")} | {str(table)} <= synced.keys()


def test_a_store_of_another_format_is_told(tmp_path):
    with pytest.raises(StoreError, match="has the format 9, but this slq reads 1: use another version of slq"):
        LanceStore(tmp_path / "s", StoreMetadata("adapter", "fingerprint", METADATA.dim, format=9))


def test_a_folder_with_other_files_is_refused(tmp_path):
    (tmp_path / "cat.jpg").touch()
    with pytest.raises(StoreError, match=r"holds cat\.jpg but no journal\.sqlite: choose an empty folder"):
        LanceStore(tmp_path, METADATA)
    mine = tmp_path / "photos" / "rows.lance" / "cat.jpg"
    mine.parent.mkdir(parents=True)
    mine.touch()
    with pytest.raises(StoreCorruptError, match=r"holds rows but no journal\.sqlite"):
        LanceStore(tmp_path / "photos", METADATA)
    assert mine.exists()


def test_a_file_that_the_system_refuses_is_no_damage(store, monkeypatch):
    """Such as for want of permission: it is told, and nothing is given up for it."""
    store.close()
    before = sorted(path.relative_to(store.location) for path in store.location.rglob("*"))

    def refused(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(path))

    with monkeypatch.context() as patched:
        patched.setattr(Path, "read_bytes", refused)
        with pytest.raises(StoreError, match=r"cannot be read \(.*Permission denied.*\): check its permissions, and its disk") as told:
            LanceStore(store.location)
        assert not isinstance(told.value, StoreCorruptError)
    assert sorted(path.relative_to(store.location) for path in store.location.rglob("*")) == before
    found = LanceStore(store.location)
    assert_holds(found, make_rows(5))
    found.close()


@pytest.mark.parametrize("name", ["a b#c?d%20é 日本", "file:", "s3:", "~x", "x'\"y", "with.lance"])
def test_a_folder_may_have_any_name(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    store = LanceStore(Path(name), METADATA)
    store.upsert(make_rows(3))
    store.close()
    assert (tmp_path / name / "rows.lance/data").is_dir() and [path.name for path in tmp_path.iterdir()] == [name]
    store = LanceStore(Path(name))
    assert_holds(store, make_rows(3))
    store.close()


def test_a_folder_whose_name_is_not_utf8_is_refused(tmp_path):
    with pytest.raises(StoreError, match=r"LanceDB cannot use '\S+udcff', which is not UTF-8: choose another folder"):
        LanceStore(tmp_path / "\udcff", METADATA)
    assert not list(tmp_path.iterdir())


def test_what_keeps_lancedb_from_reading_whole_files_is_told_at_once(store, monkeypatch):
    store.close()

    def refused(*location: object, **options: object) -> None:
        raise RuntimeError("Too many open files (os error 24)")

    with monkeypatch.context() as patched:
        patched.setattr("lancedb.connect", refused)
        with pytest.raises(StoreError, match=r"cannot be read \(Too many open files \(os error 24\)\): see what `verify\(\)` says"):
            LanceStore(store.location)
    found = LanceStore(store.location)
    assert_holds(found, make_rows(5))
    assert found.verify() == [] and found._state.rollbacks == 0 and found._state.writers <= 2, "it was not taken for damage again and again"
    found.close()


# --- processes --------------------------------------------------------------------------------------------------------------


def test_a_second_writer_is_told_to_wait(store):
    second = LanceStore(store.location)
    with pytest.raises(StoreLockedError, match="is written by another process: wait until it has ended"):
        second.delete(["row 1"])
    assert_holds(second, make_rows(5))
    store.close()
    assert second.delete(["row 1"]) == 1
    second.close()


def test_rows_are_scanned_once_although_their_files_are_replaced_meanwhile(store):
    store.upsert(make_rows(40, start=5))
    reader = LanceStore(store.location)
    batches = reader.scan(batch_size=2)
    found = next(batches)
    store.delete(["row 44"])
    store.optimize()
    found += [row for batch in batches for row in batch]
    ids = [row.id for row in found]
    assert len(ids) == len(set(ids)) and {row.id for row in make_rows(44)} <= set(ids) <= {row.id for row in make_rows(45)}
    reader.close()


def test_what_another_process_changes_reaches_the_rows_in_memory(store):
    reader = LanceStore(store.location)
    assert_finds(reader, make_rows(5))
    for salt in range(1, 4):
        store.upsert(make_rows(3, salt=salt))
        store.delete(["row 3"])
        store.upsert(make_rows(1, start=3, salt=salt))
        assert_finds(reader, [*make_rows(4, salt=salt), make_rows(5)[4]], k=9)
    store.close()
    writer = LanceStore(store.location)
    writer.delete([row.id for row in make_rows(4)])
    assert_finds(reader, make_rows(5)[4:])
    assert len(reader) == 1
    writer.close()
    reader.close()


@pytest.mark.parametrize(
    ("call", "count"),
    [
        (len, 15),
        (lambda reader: sum(len(batch) for batch in reader.scan()), 15),
        (lambda reader: len(reader.get(["row 12"])), 1),
        (lambda reader: len(reader.search(make_queries(1), 20)[0]), 15),
    ],
    ids=["len", "scan", "get", "search"],
)
def test_a_version_that_is_removed_before_a_reader_has_opened_it_is_no_damage(call, count, store, monkeypatch):
    """Another process optimises after the journal has named a version and before that is opened."""
    reader = LanceStore(store.location)
    store.upsert(make_rows(5, start=5))
    read, optimised = reader._journal.state, []

    def then_optimised():
        state = read()
        if not optimised:
            optimised.append(state.head.version)
            store.upsert(make_rows(5, start=10))
            store.optimize()
        return state

    with monkeypatch.context() as patched:
        patched.setattr(reader._journal, "state", then_optimised)
        assert call(reader) == count
    assert optimised and not (store.location / "rows.lance" / manifest_name(optimised[0])).exists()
    assert_holds(reader, make_rows(15))
    reader.close()


# --- the index --------------------------------------------------------------------------------------------------------------


def test_an_index_is_made_kept_up_to_date_and_dropped_when_rows_are_few(tmp_path):
    assert EXACT_ROWS == LanceStore.exact_rows == 50_000
    store, rows = Indexed(tmp_path / "s", METADATA), make_rows(400)
    store.upsert(rows[:300])
    assert not store._table.is_indexed
    assert_finds(store, rows[:300])
    store.optimize()
    assert store._table.is_indexed and list((store.location / "rows.lance/_indices").iterdir())
    store.upsert(rows[300:])
    store.delete(["row 7", "row 301"])
    left = [row for row in rows if row.id not in ("row 7", "row 301")]
    found = store.search(make_queries(), 400)
    assert [[hit.id for hit in hits] for hits in found] == [
        [hit.id for hit in hits] for hits in store.search(make_queries(), 400, exact=True)
    ]
    store.optimize()
    assert_finds(store, left)
    assert store.verify() == []
    for file in (store.location / "rows.lance/_indices").rglob("*.idx"):
        file.write_bytes(b"")
    store.close()
    assert "index" in {failure.item for failure in store.verify()}
    with pytest.warns(UserWarning, match=r"The index of \S+ was damaged and is gone .*: optimize\(\) makes it anew"):
        store = Indexed(tmp_path / "s")
    assert_holds(store, left)
    assert_finds(store, left)
    store.delete([row.id for row in rows[50:]])
    store.optimize()
    assert not store._table.is_indexed and len(store) == 49
    store.close()


def test_equal_vectors_have_equal_scores_and_come_by_id_however_they_are_compared(tmp_path):
    store, vector = Indexed(tmp_path / "s", METADATA), make_rows(1)[0].vector
    store.upsert([Row(f"{number:03d}", vector) for number in reversed(range(257))])
    store.optimize()
    for exact in (True, False):
        (hits,) = store.search(make_queries(1), 3 if exact else 257, exact=exact)
        assert len({hit.score for hit in hits}) == 1 and [hit.id for hit in hits] == [f"{number:03d}" for number in range(len(hits))]
    store.close()


# --- surroundings -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("threads", ["1", "0", "many"])
def test_a_setting_with_which_lancedb_waits_for_ever_is_refused(threads, store, monkeypatch, tmp_path):
    monkeypatch.setenv("LANCE_IO_THREADS", threads)
    message = rf"LANCE_IO_THREADS={threads} would make LanceDB wait for ever .* set it to 2 or more, or unset it"
    for call in (lambda: LanceStore(tmp_path / "new", METADATA), lambda: store.upsert(make_rows(1, start=9))):
        with pytest.raises(StoreError, match=message):
            call()
    assert not (tmp_path / "new").exists()
    monkeypatch.setenv("LANCE_IO_THREADS", "2")
    store.upsert(make_rows(1, start=9))
    assert len(store) == 6


def test_vectors_of_any_kind_of_number_are_stored_as_float32(store):
    store.upsert([Row("f16", np.ones(METADATA.dim, np.float16)), Row("f64", np.full(METADATA.dim, 0.1))])
    assert [row.vector.dtype for row in store.get(["f16", "f64"])] == [np.float32] * 2
    with pytest.raises(InputError, match="has the shape"):
        store.upsert([Row("x", np.ones(3, np.float32))])
