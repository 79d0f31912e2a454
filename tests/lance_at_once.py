"""LanceStore in a module that imports LanceDB at once: processes that are forked from one with this module do not import it anew."""

import lancedb  # noqa: F401

from slq.index.lance import LanceStore


class LanceStoreAtOnce(LanceStore):
    """The same store."""
