"""Ctrl-C in a training: it ends after the step in hand, so that a checkpoint of that step can be saved."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from slq import console


@contextmanager
def stop_after_step(enabled: bool = True) -> Iterator[Callable[[], bool]]:
    """Let Ctrl-C wait for the end of a step; pressed a second time it interrupts at once.

    Args:
        enabled: False where several processes train together, which would stop at different steps.

    Yields:
        Whether Ctrl-C was pressed.
    """
    pressed = False

    def note(number: int, frame: FrameType | None) -> None:
        nonlocal pressed
        if pressed:
            raise KeyboardInterrupt
        pressed = True
        console.note("\nStopping after this step, once its checkpoint is saved; Ctrl-C again stops at once.")

    # Whoever has a handler of their own, or ignores the signal, keeps that; only the main thread may set one.
    if not enabled or threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGINT) is not _pythons_own:
        yield lambda: False
        return
    signal.signal(signal.SIGINT, note)
    try:
        yield lambda: pressed
    finally:
        signal.signal(signal.SIGINT, _pythons_own)


_pythons_own = signal.default_int_handler
