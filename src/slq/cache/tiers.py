"""Where kept tensors live: on a device, in host memory, or in a folder that several processes may share.

Every tier is first come, first kept under a byte budget: nothing is ever evicted, so what is kept does not depend on timing.
"""

from __future__ import annotations

import os
import socket
import time
import warnings
import zlib
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from threading import Lock

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

Tensors = Mapping[str, Tensor]
SUFFIX, PARTIAL = ".safetensors", ".partial"
# What backup programs know a cache by (bford.info/cachedir).
TAG = "Signature: 8a477f597d28d172789f06886806bc55\n# Kept prefix states of slq; safe to remove.\n"
UNBOUNDED = 1 << 62  # bytes: as many as the disk holds
FULL = 0.99  # share of a budget past which hardly an entry fits
STALE = 24 * 3600  # seconds after which a partial file of another machine has no writer any more


class MemoryTier:
    """Entries on one device (`cpu`: host memory); threads may share it."""

    def __init__(self, budget: int, device: str = "cpu"):
        self.place = "in memory" if device == "cpu" else f"on {device}"
        self.budget, self.device, self.num_bytes = budget, torch.device(device), 0
        self._entries: dict[str, Tensors] = {}
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def full(self) -> bool:
        return self.num_bytes >= FULL * self.budget

    def has(self, key: str) -> bool:
        return key in self._entries

    def get(self, key: str) -> Tensors | None:
        return self._entries.get(key)

    def put(self, key: str, tensors: Tensors) -> bool:
        """Keep an entry, unless it is there; False if there is no room."""
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
    """A folder with one safetensors file an entry, mapped into memory when read.

    An entry is written under another name and renamed when it is whole. One that is damaged all the same (a power cut, a bad disk)
    fails its checksum, is removed, and counts as missing. A disk that is full or read-only ends the writing, with a warning, not the run.
    """

    def __init__(self, folder: Path, budget: int | None = None):
        self.place, self.folder = "on disk", folder
        self.budget = budget if budget is not None else UNBOUNDED
        self.damaged = 0
        self._writing, self._checked = True, set[str]()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "CACHEDIR.TAG").write_text(TAG, encoding="utf-8")
        except OSError as error:
            self._stop_writing(error)
        self._remove_abandoned()
        sizes = [path.stat().st_size for path in self.files()]
        self.num_bytes, self._count = sum(sizes), len(sizes)

    def __len__(self) -> int:
        return self._count

    @property
    def full(self) -> bool:
        return not self._writing or self.num_bytes >= FULL * self.budget

    def files(self) -> list[Path]:
        """The entries' files, in order."""
        return sorted(self.folder.glob(f"*/*{SUFFIX}"))

    def has(self, key: str) -> bool:
        """Whether there is a file; it may still prove damaged."""
        return self._path(key).exists()

    def get(self, key: str) -> Tensors | None:
        path = self._path(key)
        try:
            with safe_open(path, framework="pt") as file:
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
                if key not in self._checked and (file.metadata() or {}).get("crc32") != checksum(tensors):
                    raise SafetensorError("its checksum is wrong")
        except FileNotFoundError:
            return None
        except (SafetensorError, OSError, ValueError):
            self.damaged += 1
            with suppress(OSError):
                path.unlink()
            return None
        self._checked.add(key)  # a file that is there is never written again
        return tensors

    def put(self, key: str, tensors: Tensors) -> bool:
        """Keep an entry; False if there is no room, or the folder cannot be written."""
        path, size = self._path(key), num_bytes(tensors)
        if not self._writing or self.num_bytes + size > self.budget:
            return False
        partial = path.with_name(f"{key}.{socket.gethostname()}.{os.getpid()}{PARTIAL}")
        try:
            path.parent.mkdir(exist_ok=True)
            whole = {name: value.contiguous().cpu() for name, value in tensors.items()}
            save_file(whole, partial, metadata={"crc32": checksum(whole)})
            partial.replace(path)
        except (OSError, SafetensorError) as error:  # the Rust side reports a full disk as its own error
            with suppress(OSError):
                partial.unlink()
            self._stop_writing(error)
            return False
        self.num_bytes, self._count = self.num_bytes + size, self._count + 1
        return True

    def clear(self) -> None:
        """Remove every entry."""
        for path in self.files():
            with suppress(OSError):
                path.unlink()
        self.num_bytes = self._count = 0

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}{SUFFIX}"

    def _stop_writing(self, error: Exception) -> None:
        self._writing = False
        warnings.warn(f"The prefix cache in {self.folder} takes nothing more ({error}); the run goes on without it.", stacklevel=3)

    def _remove_abandoned(self) -> None:
        """Remove partial files whose writer is gone."""
        for path in self.folder.glob(f"*/*{PARTIAL}"):
            host, process = path.name.removesuffix(PARTIAL).split(".", 1)[1].rsplit(".", 1)
            with suppress(OSError):
                gone = not is_running(int(process)) if host == socket.gethostname() else time.time() - path.stat().st_mtime > STALE
                if gone:
                    path.unlink()


def is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def num_bytes(tensors: Tensors) -> int:
    return sum(value.nbytes for value in tensors.values())


def checksum(tensors: Tensors) -> str:
    """CRC-32 of names, shapes and bytes."""
    found = 0
    for name in sorted(tensors):
        value = tensors[name].detach().contiguous()
        found = zlib.crc32(f"{name}{tuple(value.shape)}".encode(), found)
        found = zlib.crc32(value.reshape(-1).view(torch.uint8).numpy().data, found)
    return f"{found:08x}"
