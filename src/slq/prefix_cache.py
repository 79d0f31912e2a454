"""Kept prefix states, in memory, under a byte budget.

A prefix never depends on the latent queries, so it is computed once and used in every epoch, by every caption of a picture and by every
adapter of the same backbone.
"""

from __future__ import annotations

import os

from slq.backbone import KeptPrefix


def default_budget() -> int:
    """A quarter of the memory that is free now, in bytes."""
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 4
    except (ValueError, OSError, AttributeError):  # not every system can tell
        return 2 << 30


class PrefixCache:
    """Prefix states by item key. First come, first kept: nothing is ever evicted, so what is kept does not depend on timing.

    One cache belongs to one backbone object. Past `budget` bytes nothing more is taken: later items are computed anew, never wrong,
    only slower.
    """

    def __init__(self, budget: int | None = None):
        self.budget = default_budget() if budget is None else budget
        self.num_bytes = 0
        self.closed = False
        self._kept: dict[str, KeptPrefix] = {}

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, key: str) -> KeptPrefix | None:
        return self._kept.get(key)

    def put(self, key: str, prefix: KeptPrefix) -> bool:
        """Keep a prefix; False if there is no room or the cache is closed."""
        if key in self._kept:
            return True
        if self.closed or self.num_bytes + prefix.num_bytes > self.budget:
            return False
        self._kept[key] = prefix
        self.num_bytes += prefix.num_bytes
        return True
