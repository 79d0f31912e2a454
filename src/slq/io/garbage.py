"""Garbage collection as a short program wants it."""

from __future__ import annotations

import atexit
import gc
from collections.abc import Iterator
from contextlib import contextmanager

SELDOM = 50_000  # new objects between two collections; Python's own is 700


@contextmanager
def seldom_collected() -> Iterator[None]:
    """Let Python look for cyclic garbage more seldom inside the `with` block, and not at all at the exit of the process.

    Importing torch and transformers makes a million objects that are no garbage. Python would walk them dozens of times, and at its exit
    once more, only to take them apart one by one; left alone, their memory goes back to the system at once. Whatever a module has asked to
    run at the exit (`atexit`, `weakref.finalize`) still does.
    """
    before = gc.get_threshold()
    gc.set_threshold(SELDOM, *before[1:])
    atexit.unregister(gc.freeze)
    atexit.register(gc.freeze)
    try:
        yield
    finally:
        gc.set_threshold(*before)
