"""The items of several sets embedded once, and kept in a folder where a run may be stopped.

Shapes: N items, D numbers of a vector (with late interaction G x D, several vectors).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from slq.data import RetrievalSet
from slq.encoders.base import Encoder
from slq.io.files import map_os_errors, write_atomic
from slq.types import Item

SHARD = 512  # items embedded between two writes
UNREADABLE = "unreadable"


@dataclass(frozen=True)
class Vectors:
    """Vectors by the identity of the item object, and reasons of failure."""

    vectors_ND: np.ndarray
    row_of: Mapping[int, int]
    faults: Mapping[int, str]

    def of(self, items: Iterable[Item | None]) -> np.ndarray:
        """The items' vectors, NaN for those that failed; a view where they stand in a row, so that a large corpus is not copied."""
        rows = np.array([self.row_of.get(id(item), -1) for item in items], dtype=np.int64)
        if len(rows) and rows[0] >= 0 and np.array_equal(rows, np.arange(rows[0], rows[0] + len(rows))):
            return self.vectors_ND[rows[0] : rows[0] + len(rows)]
        found = np.full((len(rows), *self.vectors_ND.shape[1:]), np.nan, dtype=np.float32)
        found[rows >= 0] = self.vectors_ND[rows[rows >= 0]]
        return found


def encode_once(
    encoder: Encoder, sets: Sequence[RetrievalSet], batch_size: int, progress: Callable[[int], None], keep: Path | None = None
) -> Vectors:
    """Vectors of all items of the sets, each item embedded once; with `keep` those that the folder lacks, written as they are made."""
    items = list({id(item): item for one in sets for item in (*one.queries.values(), *one.corpus.values())}.values())
    if keep is None:
        embedded = encoder.encode(items, None, batch_size, skip_bad=True, progress=progress)
        rows = {id(items[int(place)]): row for row, place in enumerate(embedded.ids)}
        return Vectors(embedded.vectors, rows, {id(items[int(each.item)]): each.reason for each in embedded.failures})
    # The readout's fingerprint leaves out what changes only rounding, and the weights where they have no revision; the model's does not.
    kept = CachedVectors(keep / f"{encoder.fingerprint}-{encoder.model.fingerprint}", encoder.vector_shape)
    keys = [_key(item, place) for place, item in enumerate(items)]
    first = {key: place for place, key in reversed(list(enumerate(keys)))}  # equal items are embedded once
    order = sorted(first, key=first.__getitem__)
    row_of_key = {key: row for row, key in enumerate(order)}
    vectors_ND = np.zeros((len(order), *encoder.vector_shape), dtype=np.float32)
    known = kept.read_into(vectors_ND, row_of_key)
    missing = [key for key in order if key not in known]
    progress(len(items) - len(missing))
    faults: dict[str, str] = {}
    for begin in range(0, len(missing), SHARD):
        part = missing[begin : begin + SHARD]
        embedded = encoder.encode([items[first[key]] for key in part], part, batch_size, skip_bad=True, progress=progress)
        vectors_ND[[row_of_key[key] for key in embedded.ids]] = embedded.vectors
        faults |= {failure.item: failure.reason for failure in embedded.failures}
        # What could not be read for its key and could be a moment later has no name to be kept under.
        named = [place for place, key in enumerate(embedded.ids) if not key.startswith(UNREADABLE)]
        kept.add([embedded.ids[place] for place in named], embedded.vectors[named])
    rows = {id(item): row_of_key[key] for item, key in zip(items, keys, strict=True) if key not in faults}
    return Vectors(vectors_ND, rows, {id(item): faults[key] for item, key in zip(items, keys, strict=True) if key in faults})


def _key(item: Item, place: int) -> str:
    """The item's key; one of its own for an item whose image cannot be read, which then fails where it is embedded."""
    try:
        return item.content_hash
    except OSError:
        return f"{UNREADABLE} {place}"


class CachedVectors:
    """Vectors by item key in a folder of shards, each a safetensors file written whole or not at all.

    There is no index that could disagree with the shards: each holds its own keys, and a checksum. One that is damaged is removed, and its
    items embedded again.
    """

    def __init__(self, folder: Path, vector_shape: tuple[int, ...]):
        self.folder, self.vector_shape = folder, vector_shape
        with map_os_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)

    def read_into(self, vectors_ND: np.ndarray, row_of_key: Mapping[str, int]) -> Collection[str]:
        """Copy the kept vectors of these keys to their rows; returns the keys found."""
        found: set[str] = set()
        for path in sorted(self.folder.glob("*.safetensors")):
            try:
                keys, vectors = self._read(path)
            except (OSError, ValueError, KeyError, TypeError, SafetensorError):
                path.unlink(missing_ok=True)
                continue
            wanted = [place for place, key in enumerate(keys) if key in row_of_key]
            vectors_ND[[row_of_key[keys[place]] for place in wanted]] = vectors[wanted]
            found.update(keys[place] for place in wanted)
        return found

    def add(self, keys: Sequence[str], vectors: np.ndarray) -> None:
        """Write one shard."""
        if not keys:
            return
        listed = json.dumps(list(keys))
        about = {"keys": listed, "checksum": _checksum(listed, vectors)}
        name = hashlib.sha256(listed.encode()).hexdigest()[:32]
        write_atomic(self.folder / f"{name}.safetensors", lambda path: save_file({"vectors": np.ascontiguousarray(vectors)}, path, about))

    def _read(self, path: Path) -> tuple[list[str], np.ndarray]:
        with safe_open(path, framework="numpy") as file:
            about, vectors = file.metadata(), file.get_tensor("vectors")
        keys = json.loads(about["keys"])
        if vectors.shape != (len(keys), *self.vector_shape) or about["checksum"] != _checksum(about["keys"], vectors):
            raise ValueError("damaged")
        return keys, vectors


def _checksum(keys: str, vectors: np.ndarray) -> str:
    return hashlib.sha256(keys.encode() + vectors.tobytes()).hexdigest()
