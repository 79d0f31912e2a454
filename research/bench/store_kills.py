"""Kill a process that writes to a store at random instants, and look after each kill whether anything acknowledged is lost or doubled.

    python -m research.bench.store_kills --kills 100

Every writer, and every process that looks, is forked from this one, which has imported LanceDB and not used it: nothing is imported anew.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

from rich.progress import track

from research.bench.measuring import console, fork, write_result
from slq.index.store import stores
from slq.testing.store_processes import apply_operation, assert_holds_operations, operations
from slq.testing.stores import METADATA

SEED = 0
LONGEST = 1.0  # seconds that a writer lives, at most; opening the store is a part of it


def forked(work: Callable[[int], None]) -> tuple[int, int]:
    """Another process, and the end of a pipe from which what it writes is read."""
    read, write = os.pipe()

    def writes() -> None:
        os.close(read)
        work(write)

    process = fork(writes)
    os.close(write)
    return process, read


def write_until_killed(kind: str, folder: Path, done: int) -> Callable[[int], None]:
    """Operations from a step on; the number of each is written once it is acknowledged."""

    def work(pipe: int) -> None:
        store = stores.get(kind)(folder)
        for step, operation in enumerate(operations()):
            if step >= done:
                apply_operation(store, operation)
                os.write(pipe, f"{step}\n".encode())

    return work


def look(kind: str, folder: Path, done: int) -> Callable[[int], None]:
    """Whether the store holds what was acknowledged, and is whole."""

    def work(_: int) -> None:
        store = stores.get(kind)(folder)
        assert_holds_operations(store, done)
        assert store.verify() == [], f"{store.verify()[0]}"
        store.close()

    return work


def main() -> None:
    """Count kills, and stores that were not as they should be."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100, help="of each store")
    parser.add_argument("--store", nargs="+", default=["lance"], help="kinds of store")
    parser.add_argument("--seed", type=int, default=SEED, help="of the instants")
    options = parser.parse_args()
    warnings.filterwarnings("ignore", message="lancedb fork support is experimental")
    draw, result = random.Random(options.seed), {}
    for kind in options.store:
        if kind == "lance":
            import lancedb  # noqa: F401
        with tempfile.TemporaryDirectory() as scratch:
            folder, done, counts = Path(scratch) / "store", 0, {"kills": 0, "wrong": 0}
            assert _ended(forked(lambda _: stores.get(kind)(folder, METADATA).close())) == 0  # noqa: B023
            for _ in track(range(options.kills), kind, console=console):
                process, pipe = forked(write_until_killed(kind, folder, done))
                time.sleep(draw.uniform(0, LONGEST))
                os.kill(process, signal.SIGKILL)
                os.waitpid(process, 0)
                done = max([done, *(int(line) + 1 for line in _rest(pipe).split(b"\n")[:-1])])
                counts["kills"] += 1
                counts["wrong"] += _ended(forked(look(kind, folder, done))) != 0
            result[kind] = {**counts, "acknowledged_operations": done}
            console.print(kind, result[kind])
    write_result("store_kills", result, sys.argv, options.seed)


def _ended(other: tuple[int, int]) -> int:
    process, pipe = other
    os.close(pipe)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def _rest(pipe: int) -> bytes:
    with os.fdopen(pipe, "rb") as file:
        return file.read()


if __name__ == "__main__":
    main()
