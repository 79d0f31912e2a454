"""What a store on disk must survive: other processes, crashes and damage; see `slq.testing.stores`."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import suppress
from importlib import import_module
from itertools import islice
from operator import attrgetter
from pathlib import Path

from slq.errors import FingerprintMismatchError, SlqError, StoreError, StoreLockedError
from slq.index.store import OpenStore, Row, Store, StoreMetadata
from slq.testing.stores import (
    DIM,
    METADATA,
    Check,
    assert_finds,
    assert_holds,
    assert_raises,
    assert_same,
    check_importable,
    make_queries,
    make_rows,
)
from slq.testing.subject import LONGEST

CHECKS: list[Check] = []
_CHILD = "import sys; from slq.testing.store_checks_on_disk import run_child; run_child(*sys.argv[1:])"
Operation = tuple[str, list[Row]]


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
    readers = [_start("read", factory, folder, "0") for _ in range(2)]
    for reader in readers:
        assert reader.stdout is not None
        assert reader.stdout.readline(), f"a reader ended before it had read anything: {_last_line(reader.communicate()[1])}"
    for operation in islice(operations(), 80):
        apply_operation(store, operation)
    (folder / "done").touch()
    for reader in readers:
        _, told = reader.communicate(timeout=120)
        assert reader.returncode == 0, f"a reader failed: {_last_line(told)}"
    store.close()


@check
def what_was_acknowledged_survives_a_kill(factory: OpenStore, folder: Path) -> None:
    """A writer is killed at random moments, five times over one store; every row is whole or absent."""
    chance, done = random.Random(5), 0
    factory(folder / "store", METADATA).close()
    for _ in range(5):
        writer = _start("write", factory, folder, str(done))
        assert writer.stdout is not None
        for _ in range(chance.randint(1, 25)):
            line = writer.stdout.readline()
            assert line, f"the writer failed: {_last_line(writer.communicate()[1])}"
            done = int(line) + 1
        time.sleep(chance.random() / 100)
        writer.kill()
        rest, _ = writer.communicate()
        done = max([done, *(int(line) + 1 for line in rest.split(b"\n")[:-1])])
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


# --- other processes --------------------------------------------------------------------------------------------------------


def _start(task: str, factory: OpenStore, folder: Path, argument: str) -> subprocess.Popen[bytes]:
    """This module's `run_child` in a process of its own."""
    check_importable(factory)
    name = (factory.__module__, factory.__qualname__)  # type: ignore[attr-defined]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    command = [sys.executable, "-c", _CHILD, task, *name, str(folder), argument]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment)


def _last_line(told: bytes) -> str:
    """What another process said last: of a traceback the error."""
    return (told.decode(errors="replace").strip().splitlines() or ["it said nothing"])[-1][:LONGEST]


def run_child(task: str, module: str, name: str, folder: str, argument: str) -> None:
    """Write from an operation on until killed, or read until the folder holds a file `done`.

    Args:
        task: `write` or `read`.
        module: where the factory is.
        name: of the factory.
        folder: holds the store.
        argument: the first operation.
    """
    factory = attrgetter(name)(import_module(module))
    store = factory(Path(folder) / "store")
    if task == "write":
        for step, operation in enumerate(operations()):
            if step >= int(argument):
                apply_operation(store, operation)
                print(step, flush=True)
    while True:
        is_done = (Path(folder) / "done").exists()
        _assert_whole(store)
        with suppress(BrokenPipeError):
            print("read", flush=True)
        if is_done:
            return


def operations() -> Iterator[Operation]:
    """Upserts of new rows and of new content for old ids, deletions, and optimisations, without end, always the same."""
    for step in range(10**9):
        kind = step % 5
        if kind == 3:
            yield "delete", make_rows(2, start=4 * (step - 2))
        elif kind == 4:
            yield "optimize" if step % 15 == 4 else "upsert", make_rows(4, start=4 * (step - 4), salt=1)
        else:
            yield "upsert", make_rows(4, start=4 * step)


def apply_operation(store: Store, operation: Operation) -> None:
    """Change a store.

    Args:
        store: what is tried.
        operation: one of `operations()`.
    """
    kind, rows = operation
    if kind == "upsert":
        store.upsert(rows)
    elif kind == "delete":
        store.delete([row.id for row in rows])
    else:
        store.optimize()


def assert_holds_operations(store: Store, done: int) -> None:
    """Whether a store holds what so many operations leave, the next one done for any of its rows, or not.

    Args:
        store: what is tried.
        done: how many operations were acknowledged.
    """
    wanted: dict[str, Row] = {}
    touched: dict[str, Row | None] = {}
    for step, (kind, rows) in zip(range(done + 1), operations(), strict=False):
        if kind == "optimize":
            continue
        change = {row.id: row if kind == "upsert" else None for row in rows}
        if step == done:
            touched = change
        else:
            wanted = {id_: row for id_, row in {**wanted, **change}.items() if row is not None}
    found = [row for batch in store.scan() for row in batch]
    assert len(found) == len({row.id for row in found}) == len(store), "an id is there twice"
    for row in found:
        choices = [one for one in (wanted.get(row.id), touched.get(row.id)) if one is not None]
        assert choices, f"{row.id!r} is there, though it was deleted or never stored"
        same = [one for one in choices if one.content_hash == row.content_hash]
        assert same, f"{row.id!r} is of another write"
        assert_same(row, same[0])
    lost = wanted.keys() - {row.id for row in found} - {id_ for id_, row in touched.items() if row is None}
    assert not lost, f"{len(lost)} acknowledged rows are lost, such as {min(lost)!r}"


def _assert_whole(store: Store) -> None:
    """Whether every row is one that was written, and none is there twice."""
    found = [row for batch in store.scan(7) for row in batch]
    assert len(found) == len({row.id for row in found}), "scan() gives an id twice"
    for row in found:
        number, salt = map(int, row.content_hash.split("-"))
        assert_same(row, make_rows(1, number, salt)[0])
    for hit in store.search(make_queries(2), 5)[0]:
        number = int(hit.id.removeprefix("row "))
        assert hit.text in {f"text {number} {salt}" for salt in (0, 1)}, f"{hit.id!r} has the text {hit.text!r}"
