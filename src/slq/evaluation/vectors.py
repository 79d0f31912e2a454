"""The items of several sets embedded once, and cached in a folder where a run may be stopped.

Shapes: N different items, D dimensions of a vector (with late interaction G x D, several vectors).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save_file

from slq.cache.records import Codec, RecordStore
from slq.data import RetrievalSet
from slq.encoders.base import Encoder
from slq.errors import InputError
from slq.types import Embeddings, Item

ITEMS_PER_RECORD = 512  # embedded between two writes
_UNREADABLE = "unreadable"

Encoded = Item | tuple[Item, Item]
"""An item, or two whose states are added before they are brought to length 1."""


@dataclass(frozen=True)
class Vectors:
    """Vectors of items by their content.

    Attributes:
        vectors_ND: one row for each different item.
        row_of: content -> row, of items that could be embedded.
        failures: content -> reason, of those that could not.
        truncated: the contents of whose text only the beginning was read.
    """

    vectors_ND: np.ndarray
    row_of: Mapping[str, int]
    failures: Mapping[str, str]
    truncated: frozenset[str] = frozenset()

    def of(self, items: Iterable[Encoded | None]) -> np.ndarray:
        """The items' vectors, NaN for those that failed; a view where they stand in a row, so that a large corpus is not copied.

        Args:
            items: that were embedded.

        Returns:
            (items, D) or (items, G, D) float32.
        """
        rows = np.array([-1 if item is None else self.row_of.get(content_of(item), -1) for item in items], dtype=np.int64)
        if len(rows) and rows[0] >= 0 and np.array_equal(rows, np.arange(rows[0], rows[0] + len(rows))):
            return self.vectors_ND[rows[0] : rows[0] + len(rows)]
        found = np.full((len(rows), *self.vectors_ND.shape[1:]), np.nan, dtype=np.float32)
        found[rows >= 0] = self.vectors_ND[rows[rows >= 0]]
        return found

    def failure(self, item: Encoded) -> str | None:
        """Why an item could not be embedded; None if it could.

        Args:
            item: that was to be embedded.
        """
        return self.failures.get(content_of(item))


def content_of(item: Encoded) -> str:
    """The item's content hash; for an item whose image cannot be read, which fails where it is embedded, what it names.

    Args:
        item: what is encoded.
    """
    if isinstance(item, tuple):
        parts = [content_of(each) for each in item]
        unreadable = [part for part in parts if not is_readable(part)]
        return unreadable[0] if unreadable else hashlib.sha256(f"added {' '.join(parts)}".encode()).hexdigest()
    try:
        return item.content_hash
    except InputError:
        return f"{_UNREADABLE} {(str(item.image), item.text)!r}"


def is_readable(content: str) -> bool:
    """Whether `content_of` could read what it names.

    Args:
        content: what it gave.
    """
    return not content.startswith(_UNREADABLE)


def encode_once(
    encoder: Encoder,
    sets: Sequence[RetrievalSet],
    batch_size: int,
    progress: Callable[[int], None],
    cache_dir: Path | None = None,
    workers: int | None = None,
) -> Vectors:
    """Embed all items of the sets, equal ones once.

    Args:
        encoder: gives the vectors.
        sets: whose queries and corpora are embedded.
        batch_size: images embedded at once.
        progress: called with the number of items just done, of all that the sets hold.
        cache_dir: folder for vectors; those that it lacks are embedded and written as they are made.
        workers: see `Encoder.encode`.

    Returns:
        The vectors, and reasons of failure.
    """
    listed: list[Encoded] = [item for one in sets for item in (*one.encoded_queries.values(), *one.corpus.values())]
    contents = [content_of(item) for item in listed]
    items = dict(zip(contents, listed, strict=True))
    truncated = _truncated(encoder, items)
    first_of = _read_alike(encoder, items, truncated)
    items = {content: item for content, item in items.items() if first_of.get(content, content) == content}
    row_of = {content: row for row, content in enumerate(items)}
    vectors_ND = np.zeros((len(items), *encoder.vector_shape), dtype=np.float32)
    store, cached = None, set[str]()
    if cache_dir is not None:
        # The encoder's fingerprint leaves out what changes only rounding, and weights that have no revision; the model's does not.
        store = RecordStore(cache_dir / f"{encoder.fingerprint}-{encoder.model.fingerprint}", _CODEC)
        cached = _read_into(vectors_ND, row_of, store)
    progress(len(contents) - sum(content not in cached for content in items))
    failures: dict[str, str] = {}
    # Cut before the cache is asked: after a kill, items are embedded in the company in which they would have been.
    step, listed_once = (len(items) if store is None else ITEMS_PER_RECORD) or 1, list(items)
    for begin in range(0, len(items), step):
        part = [content for content in listed_once[begin : begin + step] if content not in cached]
        if not part:
            continue
        embedded = _encode(encoder, {content: items[content] for content in part}, batch_size, progress, workers)
        vectors_ND[[row_of[content] for content in embedded.ids]] = embedded.vectors
        failures |= {failure.item: failure.reason for failure in embedded.failures}
        if store is not None:
            # What could not be read at first and could be a moment later has no content to be cached under.
            readable = [position for position, content in enumerate(embedded.ids) if is_readable(content)]
            _write([embedded.ids[position] for position in readable], embedded.vectors[readable], store)
    row_of |= {content: row_of[first] for content, first in first_of.items()}
    failures |= {content: failures[first] for content, first in first_of.items() if first in failures}
    return Vectors(vectors_ND, {content: row for content, row in row_of.items() if content not in failures}, failures, truncated)


def _truncated(encoder: Encoder, items: Mapping[str, Encoded]) -> frozenset[str]:
    """The contents of whose text only the beginning is read."""
    wordings = [(content, each) for content, item in items.items() for each in (item if isinstance(item, tuple) else (item,))]
    cut = encoder.model.item_processor.truncated(encoder.prompted(item) for _, item in wordings)
    return frozenset(content for (content, _), is_cut in zip(wordings, cut, strict=True) if is_cut)


def _read_alike(encoder: Encoder, items: Mapping[str, Encoded], truncated: frozenset[str]) -> dict[str, str]:
    """Each truncated content to the first of which the very same is read: texts that differ further on are equal input, and tie."""
    first_of: dict[str, str] = {}
    firsts: dict[str, str] = {}
    for content in (content for content in items if content in truncated):
        item = items[content]
        read = [encoder.model.item_processor.as_read(encoder.prompted(each)) for each in (item if isinstance(item, tuple) else (item,))]
        key = " ".join(map(content_of, read))
        first_of[content] = key if key in items else firsts.setdefault(key, content)
    return first_of


def _encode(
    encoder: Encoder, items: Mapping[str, Encoded], batch_size: int, progress: Callable[[int], None], workers: int | None
) -> Embeddings:
    """Embed items by content, first those that stand alone."""
    alone = {content: item for content, item in items.items() if isinstance(item, Item)}
    added = {content: item for content, item in items.items() if isinstance(item, tuple)}
    embedded = encoder.encode(list(alone.values()), list(alone), batch_size, on_error="skip", progress=progress, workers=workers)
    if not added:
        return embedded
    sums = encoder.encode_added(list(added.values()), list(added), max(1, batch_size // 2), progress)
    return Embeddings(
        embedded.ids + sums.ids,
        np.concatenate([embedded.vectors, sums.vectors]),
        encoder.fingerprint,
        failures=embedded.failures + sums.failures,
    )


def _read_into(vectors_ND: np.ndarray, row_of: Mapping[str, int], store: RecordStore[tuple[list[str], np.ndarray]]) -> set[str]:
    """Copy cached vectors to their rows; returns what was found."""
    found: set[str] = set()
    for key in list(store.keys()):
        record = store.get(key)
        if record is None or record[1].shape != (len(record[0]), *vectors_ND.shape[1:]):
            continue
        contents, vectors = record
        wanted = [position for position, content in enumerate(contents) if content in row_of]
        vectors_ND[[row_of[contents[position]] for position in wanted]] = vectors[wanted]
        found.update(contents[position] for position in wanted)
    return found


def _write(contents: list[str], vectors: np.ndarray, store: RecordStore[tuple[list[str], np.ndarray]]) -> None:
    if contents:
        store.put(hashlib.sha256(json.dumps(contents).encode()).hexdigest()[:32], (contents, vectors))


def _save(path: Path, record: tuple[list[str], np.ndarray]) -> None:
    contents, vectors = record
    save_file({"vectors": np.ascontiguousarray(vectors)}, path, {"contents": json.dumps(contents)})


def _load(path: Path) -> tuple[list[str], np.ndarray]:
    with safe_open(path, framework="numpy") as file:
        return json.loads(file.metadata()["contents"]), file.get_tensor("vectors")


_CODEC = Codec(".safetensors", _save, _load)
