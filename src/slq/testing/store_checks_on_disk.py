"""What a store on disk must survive: other processes, crashes and damage; see `slq.testing.stores`."""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
import warnings
from itertools import islice
from pathlib import Path

from slq.errors import FingerprintMismatchError, SlqError, StoreError, StoreLockedError
from slq.index.store import OpenStore, Row, StoreMetadata
from slq.testing.store_processes import Processes, apply_operation, assert_holds_operations, operations
from slq.testing.stores import DIM, METADATA, Check, assert_finds, assert_holds, assert_raises, make_rows

CHECKS: list[Check] = []


def check(function: Check) -> Check:
    """Add a check.

    Args:
        function: is named as what must hold.
    """
    CHECKS.append(function)
    return function


@check
def rows_are_there_when_it_is_opened_again(factory: OpenStore, folder: Path) -> None:
    """With metadata and without, and what it is made of with them."""
    rows = make_rows(20)
    store = factory(folder / "store", METADATA)
    store.upsert(rows)
    store.close()
    for metadata in (METADATA, None):
        store = factory(folder / "store", metadata)
        assert store.metadata == METADATA, f"its metadata are {store.metadata} when it is opened again, not {METADATA}"
        assert_holds(store, rows)
        assert_finds(store, rows)
        store.close()


@check
def there_is_nothing_to_open_without_a_store(factory: OpenStore, folder: Path) -> None:
    """Neither where there is nothing, nor where something else is; nothing is made or changed."""
    (folder / "photos").mkdir()
    (folder / "photos" / "cat.jpg").write_text("mine")
    (folder / "file").write_text("mine")
    for name in ("none", "photos", "file"):
        assert_raises(StoreError, factory, folder / name)
    assert not (folder / "none").exists(), "opening a store that is not there made something"
    are_kept = (folder / "photos" / "cat.jpg").read_text() == (folder / "file").read_text() == "mine"
    assert are_kept, "opening what is not a store changed it"
    assert_raises(SlqError, factory, folder / "photos", METADATA)
    assert [path.name for path in (folder / "photos").iterdir()] == ["cat.jpg"], "something was written among other files"


@check
def another_encoder_is_refused(factory: OpenStore, folder: Path) -> None:
    """By its fingerprint and by its width, not by its name."""
    rows = make_rows(3)
    store = factory(folder / "store", METADATA)
    store.upsert(rows)
    store.close()
    for other in (StoreMetadata("adapter", "another", DIM), StoreMetadata("adapter", "fingerprint", DIM + 1)):
        assert_raises(FingerprintMismatchError, factory, folder / "store", other)
    store = factory(folder / "store", StoreMetadata("another/name", "fingerprint", DIM))
    assert store.metadata == METADATA, "the store's own metadata changed"
    assert_holds(store, rows)
    store.close()


@check
def two_processes_do_not_write_at_once(factory: OpenStore, folder: Path) -> None:
    """The second is refused until the first has closed, or both writes count."""
    first, second = factory(folder / "store", METADATA), factory(folder / "store", METADATA)
    rows, more = make_rows(5), make_rows(5, start=5)
    first.upsert(rows)
    refused = False
    try:
        second.upsert(more)
    except StoreLockedError:
        refused = True
    first.upsert(rows[:1])
    first.close()
    if refused:
        second.upsert(more)
    second.close()
    store = factory(folder / "store")
    assert_holds(store, [*rows, *more])
    store.close()


@check
def a_reader_sees_what_is_written_later(factory: OpenStore, folder: Path) -> None:
    """Without being opened again, also after the writer has optimised."""
    writer = factory(folder / "store", METADATA)
    reader, rows = factory(folder / "store"), make_rows(30)
    writer.upsert(rows[:20])
    assert_holds(reader, rows[:20])
    writer.delete([rows[0].id])
    writer.upsert(rows[20:])
    assert_holds(reader, rows[1:])
    writer.optimize()
    assert_holds(reader, rows[1:])
    assert_finds(reader, rows[1:])
    writer.upsert(rows[:1])
    assert_holds(reader, rows)
    writer.close()
    reader.close()


@check
def optimizing_makes_files_smaller(factory: OpenStore, folder: Path) -> None:
    """After most rows are gone."""
    store, rows = factory(folder / "store", METADATA), make_rows(2000)
    store.upsert(rows)
    before = _size(folder)
    store.delete([row.id for row in rows[100:]])
    store.optimize()
    assert _size(folder) < before / 2, f"{before} bytes before, {_size(folder)} after nineteen rows in twenty were deleted"
    assert_holds(store, rows[:100])
    store.close()


@check
def readers_beside_a_writer_see_whole_rows(factory: OpenStore, folder: Path) -> None:
    """Two processes read while a third upserts, replaces, deletes and optimises."""
    store = factory(folder / "store", METADATA)
    store.upsert(make_rows(20))
    readers: set[int] = set()
    with Processes(factory, folder) as processes:
        processes.start("read", count=2)
        while len(readers) < 2:
            reader, told = processes.next_line()
            if told != "read":
                (folder / "done").touch()
                raise AssertionError(f"a reader ended before it had read anything: {processes.end()[1]}")
            readers.add(reader)
        for operation in islice(operations(), 60):
            apply_operation(store, operation)
        (folder / "done").touch()
        lines, error = processes.end()
    assert [told for _, told in lines if told.startswith("ended")] == ["ended 0"] * 2, f"a reader failed: {error}"
    store.close()


@check
def what_was_acknowledged_survives_a_kill(factory: OpenStore, folder: Path) -> None:
    """A writer is killed at random moments, five times over one store; every row is whole or absent."""
    chance, done = random.Random(5), 0
    factory(folder / "store", METADATA).close()
    with Processes(factory, folder) as processes:
        for _ in range(5):
            processes.start("write", done)
            for _ in range(chance.randint(1, 25)):
                writer, told = processes.next_line()
                assert told.isdecimal(), f"the writer failed: {processes.end()[1]}"
                done = int(told) + 1
            time.sleep(chance.random() / 100)
            os.kill(writer, signal.SIGKILL)
            while (told := processes.next_line()[1]).isdecimal():
                done = int(told) + 1
            assert told == "ended -9", f"the writer failed: {processes.end()[1]}"
            store = factory(folder / "store")
            assert_holds_operations(store, done)
            assert store.verify() == [], f"after a kill: {store.verify()[0]}"
            store.close()


@check
def damage_does_not_go_unnoticed(factory: OpenStore, folder: Path) -> None:
    """A flipped bit or an emptied file is told on opening, reading or verifying, or changes nothing."""
    rows = make_rows(12)
    store = factory(folder / "store", METADATA)
    store.upsert(rows[:8])
    store.upsert(rows[8:])
    store.close()
    chance = random.Random(7)
    for file in sorted(path.relative_to(folder / "store") for path in (folder / "store").rglob("*") if path.is_file()):
        content = (folder / "store" / file).read_bytes()
        if not content:
            continue
        places = {0, len(content) - 1, *(chance.randrange(len(content)) for _ in range(12))}
        for damaged in (b"", *(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :] for place in sorted(places))):
            shutil.rmtree(folder / "copy", ignore_errors=True)
            shutil.copytree(folder / "store", folder / "copy")
            (folder / "copy" / file).write_bytes(damaged)
            assert _is_noticed(factory, folder / "copy") or _is_as_before(factory, folder / "copy", rows), f"{file} was damaged unseen"


def _is_noticed(factory: OpenStore, folder: Path) -> bool:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            store = factory(folder)
            found = store.verify()
            store.close()
    except (SlqError, UserWarning):
        return True
    return bool(found)


def _is_as_before(factory: OpenStore, folder: Path, rows: list[Row]) -> bool:
    store = factory(folder)
    try:
        assert_holds(store, rows)
        assert_finds(store, rows)
        return store.metadata == METADATA
    except AssertionError:
        return False
    finally:
        store.close()


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
