"""The exact store's own files: crashes between the steps of a write, a full disk, a second writer."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from contextlib import contextmanager

import pytest

from slq.errors import OutputError, StoreCorruptError, StoreError, StoreLockedError
from slq.index.exact import ExactStore
from slq.index.store import Row
from slq.testing.stores import METADATA, assert_finds, assert_holds, make_queries, make_rows

SCRIPT = """
import sys
from pathlib import Path
from slq.index.exact import ExactStore
from slq.testing.stores import METADATA, make_rows
store = ExactStore(Path(sys.argv[1]), METADATA)
store.upsert(make_rows(5))
store.delete(["row 0"])
if sys.argv[2] == "write":
    store.upsert(make_rows(5, start=5))
else:
    store.optimize()
"""


@contextmanager
def largest_file(size: int):
    """No file of this process may grow beyond so many bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture
def store(tmp_path) -> ExactStore:
    store = ExactStore(tmp_path / "store", METADATA)
    store.upsert(make_rows(5))
    return store


@pytest.mark.parametrize(
    ("task", "at", "written"),
    [
        ("write", "store.vectors:2", 5),
        ("write", "store.logged:3", 10),
        ("optimize", "store.vectors:2", 5),
        ("optimize", "store.optimized", 5),
        ("optimize", "file.written:2", 5),
        ("optimize", "store.switched", 5),
    ],
)
def test_a_crash_between_two_steps(task, at, written, tmp_path):
    environment = {**os.environ, "SLQ_CRASH_AT": at}
    result = subprocess.run([sys.executable, "-c", SCRIPT, str(tmp_path / "s"), task], env=environment, capture_output=True, timeout=60)
    assert result.returncode == -9, result.stderr.decode()
    store, rows = ExactStore(tmp_path / "s"), make_rows(written)[1:]
    assert_holds(store, rows)
    assert store.verify() == []
    store.upsert(make_rows(3, start=20))
    store.optimize()
    assert_holds(store, [*rows, *make_rows(3, start=20)])
    assert_finds(ExactStore(tmp_path / "s"), [*rows, *make_rows(3, start=20)])
    assert len([path for path in (tmp_path / "s").iterdir() if path.name.startswith(("rows-", "vectors-"))]) == 2, "old files are gone"


def test_a_disk_that_refuses_leaves_what_was_there(store):
    with largest_file(2000), pytest.raises(OutputError, match=r"Cannot write \S+: File too large"):
        store.upsert(make_rows(200, start=5))
    with largest_file(200), pytest.raises(OutputError, match=r"Cannot write \S+: File too large"):
        store.optimize()
    assert_holds(store, make_rows(5))
    store.upsert(make_rows(5, start=5))
    store.optimize()
    assert_holds(store, make_rows(10))
    assert store.verify() == [] and len(ExactStore(store.location)) == 10


def test_a_second_writer_is_told_to_wait(store):
    second = ExactStore(store.location)
    with pytest.raises(StoreLockedError, match=r"is written by another process: wait until it has ended"):
        second.delete(["row 1"])
    assert_holds(second, make_rows(5))
    store.close()
    assert second.delete(["row 1"]) == 1


def test_damage_is_named(store):
    store.upsert(make_rows(5, start=5))
    store.close()
    vectors, log = store.location / "vectors-0.f32", store.location / "rows-0.log"
    content = bytearray(vectors.read_bytes())
    content[5 * 32 + 1] ^= 4
    vectors.write_bytes(content)
    assert [failure.item for failure in ExactStore(store.location).verify()] == ["row 5"]
    with pytest.raises(StoreCorruptError, match=r"is damaged \(row 5: its vector is damaged; store the item again\)"):
        ExactStore(store.location).optimize()
    lines = log.read_bytes().split(b"\n")
    log.write_bytes(b"\n".join([lines[0], lines[1].replace(b"text 1", b"text 7"), *lines[2:]]))
    failures = ExactStore(store.location).verify()
    assert [failure.item for failure in failures] == ["rows-0.log line 2", "row 5"] and len(ExactStore(store.location)) == 5
    vectors.write_bytes(content[:100])
    with pytest.raises(StoreCorruptError, match="is shorter than its log says"):
        ExactStore(store.location)
    assert len(store.verify()) == 1
    (store.location / "store.json").write_text("{")
    with pytest.raises(StoreCorruptError, match=r"store\.json is damaged"):
        ExactStore(store.location)


def test_a_store_of_another_format_is_told(store):
    store.close()
    store._write_head(type(METADATA)("adapter", "fingerprint", METADATA.dim, format=9), 0)
    with pytest.raises(StoreError, match="has the format 9, but this slq reads 1: use another version of slq"):
        ExactStore(store.location)


def test_gaps_between_vectors_do_not_matter(tmp_path):
    store, rows = ExactStore(tmp_path / "store", METADATA), make_rows(100)
    store.upsert(rows)
    store.delete([row.id for row in rows[::3]])
    store.upsert(make_rows(10, salt=1))
    left = [*make_rows(10, salt=1), *(row for number, row in enumerate(rows[10:], start=10) if number % 3)]
    assert_finds(store, left, k=30)
    assert isinstance(store.search(make_queries(1), 1)[0][0].score, float)


def test_equal_vectors_have_equal_scores_wherever_they_are(tmp_path):
    """As rows of a product in float32 they have not, on every processor."""
    store, vector = ExactStore(tmp_path / "store", METADATA), make_rows(1)[0].vector
    store.upsert([Row(f"{number:03d}", vector) for number in range(257)])
    for k in (3, 257):
        (hits,) = store.search(make_queries(1), k)
        assert len({hit.score for hit in hits}) == 1 and [hit.id for hit in hits] == [f"{number:03d}" for number in range(k)]
