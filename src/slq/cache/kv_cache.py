"""Kept prefix states and image features, in tiers, each under a byte budget.

A prefix never depends on the latent queries, so it is computed once and used in every epoch, by every caption of an image and by every
adapter of the same model.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from torch import Tensor

from slq.cache.int8 import pack, unpack
from slq.cache.tiers import DiskTier, MemoryTier, Tensors
from slq.io.device import free_memory
from slq.models import FrozenModel, ItemKV, VisionFeatures

FORMAT = 2  # of an entry; raised when its tensors change
LEVELS = ("states", "features", "none")
NAMES = {"states": "prefixes", "features": "features of images"}


def default_budget() -> int:
    """A quarter of the memory that is free now, in bytes."""
    return free_memory() // 4


class KVCache:
    """Prefix states by item, and where no tier has room for them the features of its image; past that, nothing: slower, never wrong.

    budget: bytes of host memory (None: a quarter of what is free). device_budget: bytes on `device`, looked at first. folder, disk_budget:
    a folder on disk, looked at last, which later runs find again. level: `states` keeps what fits, `features` no keys and values, `none`
    nothing. eight_bit: keys and values in 8 bits; rounds, so the weights of a run differ a little.
    """

    def __init__(
        self,
        budget: int | None = None,
        *,
        device_budget: int = 0,
        device: str = "cpu",
        folder: Path | None = None,
        disk_budget: int | None = None,
        level: str = "states",
        eight_bit: bool = False,
    ):
        if level not in LEVELS:
            raise ValueError(f"Unknown level {level!r}: choose one of {', '.join(LEVELS)}.")
        self.level, self.eight_bit, self.closed = level, eight_bit, False
        self.tiers: list[MemoryTier | DiskTier] = [MemoryTier(device_budget, device)] if device_budget else []
        self.tiers.append(MemoryTier(default_budget() if budget is None else budget))
        if folder is not None:
            self.tiers.append(DiskTier(folder, disk_budget))

    def __len__(self) -> int:
        return sum(len(tier) for tier in self.tiers)

    @property
    def num_bytes(self) -> int:
        """Bytes that all tiers hold."""
        return sum(tier.num_bytes for tier in self.tiers)

    @property
    def full(self) -> bool:
        """Whether it takes nothing more, or next to nothing."""
        return self.closed or self.level == "none" or all(tier.full for tier in self.tiers)

    def cache_key(self, model: FrozenModel, item_key: str, generation_prompt: bool) -> str:
        """The name of an item's entries: a hash of everything its states depend on."""
        parts = (FORMAT, model.fingerprint, generation_prompt, self.eight_bit, item_key)
        return hashlib.sha256(repr(parts).encode()).hexdigest()

    def where(self, key: str) -> str:
        """What of an item is kept and where, as one reads it; empty for nothing."""
        return next((what for what, level, tier in self._shelves() if tier.has(f"{key}-{level}")), "")

    def _shelves(self) -> Iterator[tuple[str, str, MemoryTier | DiskTier]]:
        """Every level in every tier, in the order in which they are looked at, with its name."""
        for level in LEVELS[LEVELS.index(self.level) : LEVELS.index("none")]:
            for tier in self.tiers:
                yield f"{NAMES[level]} {tier.place}", level, tier

    def get(self, key: str) -> ItemKV | None:
        """An item's prefix states, from the first tier that has them."""
        found = self._find(f"{key}-states") if self.level == "states" else None
        return None if found is None else _to_prefix(found)

    def get_features(self, key: str) -> VisionFeatures | None:
        """Features of the item's image, where they are kept."""
        found = self._find(f"{key}-features") if self.level != "none" else None
        return None if found is None else VisionFeatures.from_tensors(found)

    def put(self, key: str, prefix: ItemKV, features: VisionFeatures | None = None) -> str:
        """Keep the states, or else the image's features; returns the level that was kept."""
        if self.closed or self.level == "none":
            return "none"
        if self.level == "states" and self._keep(f"{key}-states", _to_tensors(prefix, self.eight_bit)):
            return "states"
        if features is not None and self._keep(f"{key}-features", features.to_tensors()):
            return "features"
        return "none"

    def _find(self, name: str) -> Tensors | None:
        return next((found for tier in self.tiers if (found := tier.get(name)) is not None), None)

    def _keep(self, name: str, tensors: Tensors) -> bool:
        return any(tier.put(name, tensors) for tier in self.tiers)

    def describe(self, keys: Sequence[str]) -> str:
        """What of these items is kept where, what is not, and why: one line to read."""
        found = Counter(self.where(key) for key in keys)
        left = found[""]
        parts = [f"{found[what]} {what}" for what, _, _ in self._shelves() if found[what]]
        used = [
            f"{tier.num_bytes / 2**20:.0f} of {tier.budget / 2**20:.0f} MB {tier.place}" for tier in self.tiers if tier.budget is not None
        ]
        if left:
            asked = self.level != "states" and " (as was asked for)"
            parts.append(f"nothing of {left}{asked or ': no room, so they are read anew in every epoch'}")
        return ", ".join(parts) + (f"; used {', '.join(used)}" if used and self.level != "none" else "")


def _to_tensors(prefix: ItemKV, eight_bit: bool) -> dict[str, Tensor]:
    tensors = {"next_position": prefix.next_position}
    for name, values in (("keys", prefix.keys), ("values", prefix.values)):
        if eight_bit:
            tensors[name], tensors[f"{name}_scale"] = pack(values)
            tensors["as"] = values.new_zeros(())  # remembers the dtype
        else:
            tensors[name] = values
    return tensors


def _to_prefix(tensors: Tensors) -> ItemKV:
    keys, values = tensors["keys"], tensors["values"]
    if "as" in tensors:
        keys, values = (unpack(tensors[name], tensors[f"{name}_scale"], tensors["as"].dtype) for name in ("keys", "values"))
    return ItemKV(keys, values, tensors["next_position"])
