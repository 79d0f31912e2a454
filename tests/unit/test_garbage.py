"""Garbage is looked for more seldom within a command, and at its exit not at all; what is to run at the exit still runs."""

from __future__ import annotations

import gc
import subprocess
import sys

import pytest

from slq.io.garbage import SELDOM, seldom_collected

SCRIPT = """
import weakref
from slq.io.garbage import seldom_collected

class Cycle:
    def __init__(self):
        self.own = self
        weakref.finalize(self, print, "finalised")

    def __del__(self):
        print("collected")

with seldom_collected():
    cycle = Cycle()
"""


def test_thresholds_are_what_they_were_after_an_error_too():
    before = gc.get_threshold()
    with pytest.raises(KeyError), seldom_collected():
        assert gc.get_threshold() == (SELDOM, *before[1:]) and gc.isenabled()
        raise KeyError
    assert gc.get_threshold() == before


def test_the_exit_takes_nothing_apart():
    ran = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=60)
    assert (ran.stdout, ran.stderr) == ("finalised\n", "")
