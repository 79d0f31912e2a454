"""What of an item never changes, kept between steps, epochs and runs: its prefix states, or at least its image's features."""

from slq.cache.kv_cache import LEVELS, KVCache, default_budget
from slq.cache.tiers import DiskTier, MemoryTier

__all__ = ["LEVELS", "DiskTier", "KVCache", "MemoryTier", "default_budget"]
