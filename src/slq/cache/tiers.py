"""Where cached tensors are: on a device, in host memory, or in a folder that several processes may share.

Every tier is first come, first stored under a byte budget: nothing is ever evicted, so what is cached does not depend on timing.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from threading import Lock

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from slq.cache.records import NEARLY_FULL, Codec, RecordStore

Tensors = Mapping[str, Tensor]


def _write(path: Path, tensors: Tensors) -> None:
    save_file({name: value.contiguous().cpu() for name, value in tensors.items()}, path)


TENSORS: Codec[Tensors] = Codec(".safetensors", _write, load_file)


class MemoryTier:
    """Entries on one device (`cpu`: host memory); threads may share it.

    Attributes:
        location: where it is, as a person reads it.
        budget: bytes that entries may take.
        device: where they are.
        num_bytes: bytes that they take.
    """

    def __init__(self, budget: int, device: str = "cpu"):
        """Make an empty tier of `budget` bytes on a device."""
        self.location = "in memory" if device == "cpu" else f"on {device}"
        self.budget, self.device, self.num_bytes = budget, torch.device(device), 0
        self._entries: dict[str, Tensors] = {}
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def full(self) -> bool:
        """Whether there is hardly any room left."""
        return self.num_bytes >= NEARLY_FULL * self.budget

    def has(self, key: str) -> bool:
        """Whether there is an entry.

        Args:
            key: names the entry.
        """
        return key in self._entries

    def get(self, key: str) -> Tensors | None:
        """An entry, or None.

        Args:
            key: names the entry.
        """
        return self._entries.get(key)

    def put(self, key: str, tensors: Tensors) -> bool:
        """Store an entry, unless it is there; False if there is no room.

        Args:
            key: names the entry.
            tensors: by name, of any shape.
        """
        size = num_bytes(tensors)
        with self._lock:
            if key in self._entries:
                return True
            if self.num_bytes + size > self.budget:
                return False
            self._entries[key] = {name: value.to(self.device) for name, value in tensors.items()}
            self.num_bytes += size
        return True


class DiskTier:
    """A folder with one safetensors file an entry, mapped into memory when read; see `RecordStore` for what it survives.

    Attributes:
        location: where it is, as a person reads it.
        records: the files.
    """

    def __init__(self, folder: Path, budget: int | None = None):
        """Open a folder, or make one, of at most `budget` bytes; None for as many as the disk holds."""
        self.location = "on disk"
        self.records = RecordStore(folder, TENSORS, budget)

    def __len__(self) -> int:
        return len(self.records)

    @property
    def budget(self) -> int | None:
        """Bytes that it may hold; None for no bound."""
        return self.records.budget

    @property
    def num_bytes(self) -> int:
        """Bytes that it holds."""
        return self.records.num_bytes

    @property
    def full(self) -> bool:
        """Whether there is hardly any room left."""
        return self.records.full

    def has(self, key: str) -> bool:
        """Whether there is a file; it may still prove corrupt.

        Args:
            key: names the entry.
        """
        return key in self.records

    def get(self, key: str) -> Tensors | None:
        """An entry, or None.

        Args:
            key: names the entry.
        """
        return self.records.get(key)

    def put(self, key: str, tensors: Tensors) -> bool:
        """Store an entry, unless it is there; False if there is no room, or the folder cannot be written.

        Args:
            key: names the entry.
            tensors: by name, of any shape.
        """
        return self.records.put(key, tensors, num_bytes(tensors)) is not None


def num_bytes(tensors: Tensors) -> int:
    """Bytes of the tensors' values.

    Args:
        tensors: of any shape and type.
    """
    return sum(value.nbytes for value in tensors.values())
