"""Losses and poolings that were tried and are not part of slq, added to it as any other distribution adds its own.

`slq_research.dist-info` beside this file names them to slq once `add_to_path` was called.
"""

from __future__ import annotations

import sys
from pathlib import Path

SHELF = Path(__file__).parent


def add_to_path() -> None:
    """Let slq find the entry points that stand beside this file."""
    if str(SHELF) not in sys.path:
        sys.path.append(str(SHELF))
