"""The lock of a store's folder, by which one process writes at a time."""

from __future__ import annotations

import os
from pathlib import Path

from slq.errors import StoreLockedError
from slq.io.files import map_os_errors

LOCK_FILE = "lock"


def take_lock(location: Path) -> int:
    """Become the one process that writes, until the descriptor is closed or the process ends.

    Args:
        location: the store's folder.

    Returns:
        The descriptor of the lock's file.

    Raises:
        StoreLockedError: if another process writes.
        OutputError: if the folder cannot be written.
    """
    import fcntl

    with map_os_errors(location):
        lock = os.open(location / LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(lock)
        raise StoreLockedError(f"{location} is written by another process: wait until it has ended.") from error
    return lock
