"""What of an item never changes, kept between steps, epochs and runs: its prefix states, or at least its picture's features."""

from slq.prefix_cache.cache import LEVELS, PrefixCache, default_budget
from slq.prefix_cache.tiers import DiskTier, MemoryTier

__all__ = ["LEVELS", "DiskTier", "MemoryTier", "PrefixCache", "default_budget"]
