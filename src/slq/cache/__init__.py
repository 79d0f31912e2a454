"""What is computed once and read again: records on disk, and on top of them the keys and values of items."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from slq.cache.kv_cache import LEVELS, KVCache, default_budget
    from slq.cache.tiers import DiskTier, MemoryTier

__all__ = ["LEVELS", "DiskTier", "KVCache", "MemoryTier", "default_budget"]


def __getattr__(name: str) -> Any:
    """Import the cache of keys and values when it is asked for: records alone need no torch."""
    from importlib import import_module

    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{'tiers' if name.endswith('Tier') else 'kv_cache'}"), name)
