"""Keys and values of items' prefixes, and vision features, in tiers, each under a byte budget.

A prefix never depends on the latent queries, so it is computed once and used in every epoch, by every caption of an image and by every
adapter of the same model.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from slq.cache.int8 import pack, unpack
from slq.cache.tiers import DiskTier, MemoryTier, Tensors
from slq.io.device import free_memory
from slq.models import FrozenModel, ItemKV, VisionFeatures

FORMAT = 3  # of an entry; raised when its tensors or its name change
LEVELS = ("kv", "vision", "none")
NAMES = {"kv": "prefixes", "vision": "vision features"}
DTYPES = ("auto", "int8")


def default_budget() -> int:
    """A quarter of the memory that is free now, in bytes."""
    return free_memory() // 4


class KVCache:
    """Keys and values by item, and where no tier has room for them its vision features; past that, nothing: slower, never wrong.

    Threads may share one.

    Attributes:
        level: what is cached at most.
        closed: whether it takes nothing more.
        tiers: in the order in which they are looked at.
    """

    def __init__(
        self,
        budget: int | None = None,
        *,
        device_budget: int = 0,
        device: str = "cpu",
        folder: Path | None = None,
        disk_budget: int | None = None,
        level: str = "kv",
        kv_cache_dtype: str = "auto",
    ):
        """Make a cache, or open a folder of one.

        Args:
            budget: bytes of host memory; None for a quarter of what is free.
            device_budget: bytes on `device`, which is looked at first.
            device: where these are.
            folder: a folder on disk, looked at last, which later runs find again.
            disk_budget: bytes in it; None for as many as the disk holds.
            level: `kv` caches keys and values where they fit, `vision` vision features alone, `none` nothing.
            kv_cache_dtype: `auto` for the model's own; `int8` takes a quarter of float32's room and rounds, so the weights of a run differ
                a little.

        Raises:
            ValueError: for another level or dtype.
        """
        for name, given, choices in (("level", level, LEVELS), ("kv_cache_dtype", kv_cache_dtype, DTYPES)):
            if given not in choices:
                raise ValueError(f"Unknown {name} {given!r}: choose one of {', '.join(choices)}.")
        self.level, self.kv_cache_dtype, self.closed = level, kv_cache_dtype, False
        self.tiers: list[MemoryTier | DiskTier] = [MemoryTier(device_budget, device)] if device_budget else []
        self.tiers.append(MemoryTier(default_budget() if budget is None else budget))
        if folder is not None:
            self.tiers.append(DiskTier(folder, disk_budget))

    def __len__(self) -> int:
        return sum(len(tier) for tier in self.tiers)

    @property
    def num_bytes(self) -> int:
        """Bytes of all entries."""
        return sum(tier.num_bytes for tier in self.tiers)

    @property
    def full(self) -> bool:
        """Whether it takes nothing more, or next to nothing."""
        return self.closed or self.level == "none" or all(tier.full for tier in self.tiers)

    def cache_key(self, model: FrozenModel, content_hash: str, generation_prompt: bool) -> str:
        """The name of an item's entries: a hash of everything that they depend on.

        Args:
            model: that computes the entries.
            content_hash: `Item.content_hash`.
            generation_prompt: whether the item ends with the generation prompt.
        """
        parts = (FORMAT, model.fingerprint, generation_prompt, self.kv_cache_dtype, content_hash)
        return hashlib.sha256(repr(parts).encode()).hexdigest()

    def location(self, key: str) -> str:
        """What of an item is cached and where, as a person reads it; empty for nothing.

        Args:
            key: see `cache_key`.
        """
        return next((name for name, level, tier in self._places() if tier.has(f"{key}-{level}")), "")

    def get(self, key: str) -> ItemKV | None:
        """An item's keys and values, from the first tier that has them.

        Args:
            key: see `cache_key`.

        Returns:
            None if no tier has them.
        """
        found = self._find(f"{key}-kv") if self.level == "kv" else None
        return None if found is None else _to_kv(found)

    def get_features(self, key: str) -> VisionFeatures | None:
        """The vision features of an item, where they are cached.

        Args:
            key: see `cache_key`.
        """
        found = self._find(f"{key}-vision") if self.level != "none" else None
        return None if found is None else VisionFeatures.from_tensors(found)

    def put(self, key: str, prefix: ItemKV, features: VisionFeatures | None = None) -> str:
        """Store the keys and values, or where there is no room for them the vision features.

        Args:
            key: from `cache_key`.
            prefix: the item's keys and values.
            features: its vision features, None for an item without an image.

        Returns:
            The level that was stored, `none` where there was no room, or where values are not finite: in 8 bits they would look as if.
        """
        if self.closed or self.level == "none" or not (_is_finite(prefix.keys) and _is_finite(prefix.values)):
            return "none"
        if self.level == "kv" and self._store(f"{key}-kv", _to_tensors(prefix, self.kv_cache_dtype)):
            return "kv"
        if features is not None and self._store(f"{key}-vision", features.to_tensors()):
            return "vision"
        return "none"

    def describe(self, keys: Sequence[str]) -> str:
        """What of these items is cached where, what is not, and why: one line to read.

        Args:
            keys: see `cache_key`.
        """
        found = Counter(self.location(key) for key in keys)
        missing = found[""]
        parts = [f"{found[name]} {name}" for name, _, _ in self._places() if found[name]]
        used = [
            f"{tier.num_bytes / 2**20:.0f} of {tier.budget / 2**20:.0f} MB {tier.location}"
            for tier in self.tiers
            if tier.budget is not None
        ]
        if missing:
            asked = self.level != "kv" and " (as was asked for)"
            parts.append(f"nothing of {missing}{asked or ': no room, so they are computed again in every epoch'}")
        return ", ".join(parts) + (f"; used {', '.join(used)}" if used and self.level != "none" else "")

    def _places(self) -> Iterator[tuple[str, str, MemoryTier | DiskTier]]:
        """Every level in every tier, in the order in which they are looked at, with what a person reads."""
        for level in LEVELS[LEVELS.index(self.level) : LEVELS.index("none")]:
            for tier in self.tiers:
                yield f"{NAMES[level]} {tier.location}", level, tier

    def _find(self, name: str) -> Tensors | None:
        return next((found for tier in self.tiers if (found := tier.get(name)) is not None), None)

    def _store(self, name: str, tensors: Tensors) -> bool:
        return any(tier.put(name, tensors) for tier in self.tiers)


def _is_finite(values: Tensor) -> bool:
    return bool(torch.isfinite(values).all())


def _to_tensors(prefix: ItemKV, dtype: str) -> dict[str, Tensor]:
    tensors = {"next_position": prefix.next_position}
    for name, values in (("keys", prefix.keys), ("values", prefix.values)):
        if dtype == "int8":
            tensors[name], tensors[f"{name}_scale"] = pack(values)
            tensors["as"] = values.new_zeros(())  # remembers the dtype
        else:
            tensors[name] = values
    return tensors


def _to_kv(tensors: Tensors) -> ItemKV:
    keys, values = tensors["keys"], tensors["values"]
    if "as" in tensors:
        keys, values = (unpack(tensors[name], tensors[f"{name}_scale"], tensors["as"].dtype) for name in ("keys", "values"))
    return ItemKV(keys, values, tensors["next_position"])
