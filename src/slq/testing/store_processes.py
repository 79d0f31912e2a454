"""Processes that write to a store and read from it beside one another, what they do there, and what must be left of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import suppress
from importlib import import_module
from operator import attrgetter
from pathlib import Path
from typing import NoReturn

from slq.index.store import OpenStore, Row, Store
from slq.testing.stores import assert_same, check_importable, make_queries, make_rows
from slq.testing.subject import LONGEST

_PARENT = "import sys; from slq.testing.store_processes import run_processes; run_processes(*sys.argv[1:])"
_PAUSE = 3  # of a reader between two times, in the time that one takes: it leaves the processor to the one that writes
Operation = tuple[str, list[Row]]


class Processes:
    """Processes that use a store, all forked from one that has imported the factory: no other waits for its imports.

    They end with the `with` block at the latest.

    Args:
        factory: opens a store at a folder; other processes can import it.
        folder: holds the store.
    """

    def __init__(self, factory: OpenStore, folder: Path):
        check_importable(factory)
        name = (factory.__module__, factory.__qualname__)  # type: ignore[attr-defined]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        command = [sys.executable, "-c", _PARENT, *name, str(folder)]
        pipe = subprocess.PIPE
        self._parent = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, env=environment, start_new_session=True)

    def __enter__(self) -> Processes:
        return self

    def __exit__(self, *error: object) -> None:
        if self._parent.poll() is None:
            os.killpg(self._parent.pid, signal.SIGKILL)
        self._parent.communicate()

    def start(self, task: str, first: int = 0, count: int = 1) -> None:
        """Start some, once those before have ended.

        Args:
            task: `write`, until it is killed, or `read`, until the folder holds a file `done`.
            first: the operation that it begins with.
            count: how many do the same at once.
        """
        assert self._parent.stdin is not None
        with suppress(BrokenPipeError):  # it cannot import the factory: the next line is empty, and `end` tells why
            self._parent.stdin.write(f"{task} {first} {count}\n")
            self._parent.stdin.flush()

    def next_line(self) -> tuple[int, str]:
        """The number of a process, and what it says: the operation that it has done, `read`, or `ended` and its exit code."""
        assert self._parent.stdout is not None
        return _parse(self._parent.stdout.readline())

    def end(self) -> tuple[list[tuple[int, str]], str]:
        """Wait until every process has ended.

        Returns:
            The lines that nobody has asked for yet, and the last one that was said of errors.
        """
        told, errors = self._parent.communicate(timeout=120)
        said = errors.strip().splitlines() or ["it said nothing"]
        return [_parse(line) for line in told.splitlines()], said[-1][:LONGEST]


def _parse(line: str) -> tuple[int, str]:
    process, _, told = line.strip().partition(" ")
    return int(process or 0), told


def run_processes(module: str, name: str, folder: str) -> None:
    """Fork processes for each line of the standard input (task, first operation, how many), and say when each has ended.

    Args:
        module: where the factory is.
        name: of the factory.
        folder: holds the store.
    """
    factory = attrgetter(name)(import_module(module))
    for line in sys.stdin:
        task, first, count = line.split()
        for _ in range(int(count)):
            if os.fork() == 0:
                _run_and_exit(task, factory, Path(folder), int(first))
        for _ in range(int(count)):
            process, status = os.wait()
            _tell(process, f"ended {os.waitstatus_to_exitcode(status)}")


def _tell(process: int, told: str) -> None:
    """A line in one write, so that no other process gets between its parts."""
    os.write(1, f"{process} {told}\n".encode())


def _run_and_exit(task: str, factory: OpenStore, folder: Path, first: int) -> NoReturn:
    code = 1
    try:
        if task == "write":
            _write(factory(folder / "store"), first)
        else:
            _read(factory(folder / "store"), folder / "done")
        code = 0
    except Exception:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)  # without what the process that it was forked from does at its end


def _write(store: Store, first: int) -> None:
    for step, operation in enumerate(operations()):
        if step >= first:
            apply_operation(store, operation)
            _tell(os.getpid(), f"{step}")


def _read(store: Store, done: Path) -> None:
    is_done = False
    while not is_done:
        is_done, started = done.exists(), time.perf_counter()
        _assert_whole(store)
        _tell(os.getpid(), "read")
        time.sleep(0 if is_done else _PAUSE * (time.perf_counter() - started))


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
