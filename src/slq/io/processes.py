"""Processes that Python spawns: each runs the main script anew, so one without a guard would start processes without end."""

from __future__ import annotations

import sys
from multiprocessing.context import get_spawning_popen
from pathlib import Path

from slq.errors import InputError

_GUARDS = ("__name__", "parent_process")


def check_spawned() -> None:
    """Refuse, while an object is pickled for a process that is being spawned, a main script that cannot be run anew.

    Python itself raises in the new process, and the old one waits forever for it to read what it was sent.

    Raises:
        InputError: that says what to do.
    """
    script = getattr(sys.modules.get("__main__"), "__file__", None)
    if get_spawning_popen() is None or script is None or not Path(script).is_file():
        return
    source = Path(script).read_text(encoding="utf-8", errors="replace")
    if not any(guard in source for guard in _GUARDS):
        raise InputError(
            f'{Path(script).name} starts processes that run it anew: put its work under `if __name__ == "__main__":`, or use no workers.'
        )
