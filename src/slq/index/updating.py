"""Inputs that are new or may have changed, one batch after the other: read, encoded where nothing has their content, stored, noted.

First the rows of a batch are on the disk, then their lines in the journal. Whenever a process is killed, the next one finds rows without
lines by what was `pending`, and takes their vectors; see `slq.index.recovery`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from slq import console
from slq.data.walk import Stamp
from slq.errors import Failure, InputError
from slq.index.ids import printable, row_id
from slq.index.journal import Input, Journal, Source
from slq.index.scan import Found, Scan
from slq.index.sources import FOLDER, NO_IMAGE, Places, item_of, stamp_of
from slq.index.store import Row, Store, check_rows
from slq.index.words import words_of
from slq.io.files import crash_point
from slq.types import Item

if TYPE_CHECKING:
    from slq.encoders.base import Encoder

MOST_INPUTS, MOST_SECONDS = 512, 10.0  # of one batch
SETTLED_NS = 2_000_000_000  # two changes of a file that are closer may have one time: FAT notes times in steps of two seconds
CHANGED = "it has changed while it was read; index again"
MOST_LISTED = 20  # failures of a run that are shown; all of them are in the journal


@dataclass
class Counts:
    """What has become of inputs.

    Attributes:
        new: indexed for the first time.
        changed: have another content, or a table's row has other columns.
        moved: have another name, while the one before is gone.
        duplicates: new, with a content that another input has too.
        deleted: gone, and their rows with them.
        unchanged: as before.
        failed: could not be indexed, in this run or before.
        encoded: contents that the model was asked for.
        failures: of this run, the first ones.
    """

    new: int = 0
    changed: int = 0
    moved: int = 0
    duplicates: int = 0
    deleted: int = 0
    unchanged: int = 0
    failed: int = 0
    encoded: int = 0
    failures: list[Failure] = field(default_factory=list)


@dataclass(eq=False)
class _Work:
    """An input on its way: what there is, what the journal knows, and what was found out since.

    `content_hash` is None where it cannot be read; `reason` says why, or why it cannot be indexed although it is read.
    """

    source: Source
    found: Found
    known: Input | None
    item: Item = field(default_factory=Item)
    image: bytes | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    stamp: Stamp | None = None
    is_settled: bool = True
    content_hash: str | None = None
    vector: np.ndarray | None = None
    reason: str | None = None

    @property
    def id(self) -> str:
        return row_id(self.source.label, self.found.name)

    @property
    def row(self) -> str | None:
        """Of what it was before."""
        return None if self.known is None else self.known.row

    @property
    def is_same(self) -> bool:
        """Whether it has the content and the columns that the journal knows."""
        known = self.known
        return known is not None and None is not self.content_hash == known.content_hash and known.details == self.found.details

    @property
    def is_adopted(self) -> bool:
        """Whether the journal knows of its row alone, which a process that was killed has left."""
        known, has_columns = self.known, self.found.details is not None
        return known is not None and None is not self.content_hash == known.content_hash and has_columns and known.details is None

    @property
    def is_replaced(self) -> bool:
        """Whether its row is known to have a content that is no more."""
        known = self.known
        return known is not None and known.row is not None and self.content_hash not in (None, known.content_hash)

    def line(self) -> Input:
        """What the journal is to know of it."""
        if self.content_hash is None and self.known is not None and self.known.row is not None:
            return replace(self.known, stamp=None, reason=self.reason)  # the row stays, of the content before
        stamp = self.stamp if self.is_settled and self.content_hash is not None else None
        row = self.row if self.is_same and self.vector is None else self.id if self.vector is not None else None
        return Input(self.source.id, self.found.name, self.found.image, stamp, self.found.details, self.content_hash, row, self.reason)


class Updater:
    """Brings a store and a journal up to what a scan has found.

    Args:
        scan: compared with the journal.
        store: of the collection.
        places: of the collection.
        encoder: loads the model when it is first needed.
        batch_size: items that are encoded at once.
        workers: processes that prepare items, as `Encoder.encode` has it.
        max_skipped: the fraction of inputs that may fail.
        retry_failed: whether what has failed before is tried again.
        other: a journal and a store of the same model, whose vectors are taken too.
    """

    def __init__(
        self,
        scan: Scan,
        store: Store,
        places: Places,
        encoder: Callable[[], Encoder],
        *,
        batch_size: int,
        workers: int | None,
        max_skipped: float,
        retry_failed: bool,
        other: tuple[Journal, Store] | None = None,
    ):
        self.scan, self.store, self.places, self.encoder = scan, store, places, encoder
        self.batch_size, self.workers, self.max_skipped, self.retry_failed = batch_size, workers, max_skipped, retry_failed
        self.other, self.journal = other, scan.journal
        self.sources = {source.id: source for source in self.journal.sources()}
        known_failures = scan.num_known_failures
        self.counts = Counts(failed=known_failures, unchanged=scan.num_found - scan.num_todo - known_failures)

    def update(self, advance: Callable[[int], None]) -> Counts:
        """Read what is to be read, then remove the rows of what is gone.

        Args:
            advance: called with the number of inputs just done.

        Returns:
            What has become of them.

        Raises:
            DataError: if more inputs fail than may.
            OutputError: if the disk refuses; what was done before stays.
        """
        after, most = 0, min(self.batch_size, MOST_INPUTS)
        while entries := self.scan.todo(after, most):
            begin, after = time.perf_counter(), entries[-1][0]
            self._update_batch([_Work(self.sources[source], found, known) for _, source, found, known in entries], advance)
            if self.counts.failed > self.max_skipped * self.scan.num_found:
                self._check_failures()  # before anything is removed: what is moved may not have been looked at yet
            seconds = max(time.perf_counter() - begin, 1e-3)
            most = min(MOST_INPUTS, max(self.batch_size, int(len(entries) * MOST_SECONDS / seconds)))
        self._remove_gone()
        self._check_failures()
        return self.counts

    def _check_failures(self) -> None:
        first = self.counts.failures[0] if self.counts.failures else "listed by --failed"
        console.check_skipped_count(self.counts.failed, first, self.scan.num_found, self.max_skipped)

    def _update_batch(self, batch: list[_Work], advance: Callable[[int], None]) -> None:
        work = [each for each in batch if self._read(each)]
        wanted = []
        for each in work:
            if each.is_same and (each.row is not None or not self.retry_failed):
                each.reason = each.known.reason if each.known is not None and each.row is None else None
            elif each.content_hash is not None:
                wanted.append(each)
        known = self._known_vectors(list(dict.fromkeys(each.content_hash or "" for each in wanted)))
        for each in wanted:
            each.vector = known.get(each.content_hash or "")
        num_encoded = self._encode([each for each in wanted if each.vector is None], advance)
        self._check_rows(wanted)
        self._count(work, wanted, set(known))
        self._commit(work, wanted)
        advance(len(batch) - num_encoded)

    def _read(self, each: _Work) -> bool:
        """Read an input as far as its hash needs it; False if it has gone since, which the next run finds."""
        if each.found.reason is not None:
            each.reason = each.found.reason
            return True
        each.item, each.image, each.metadata = item_of(each.source, each.found, self.places)
        each.stamp = self._stamp(each)
        each.is_settled = each.stamp is not None and abs(time.time_ns() - each.stamp.mtime_ns) > SETTLED_NS
        try:
            each.content_hash = each.item.content_hash
        except InputError as error:
            each.reason = str(error)
            return each.source.kind != FOLDER or os.path.lexists(each.item.image)
        return True

    def _stamp(self, each: _Work) -> Stamp | None:
        return NO_IMAGE if each.image is None else stamp_of(self.places.located(each.image))

    # --- vectors ----------------------------------------------------------------------------------------------------------

    def _known_vectors(self, hashes: Sequence[str]) -> dict[str, np.ndarray]:
        """Of contents that the collection holds, or held when this run began."""
        found = _vectors_of(self.journal, self.store, hashes)
        found.update(self.scan.kept_vectors([each for each in hashes if each not in found]))
        return found

    def _encode(self, work: Sequence[_Work], advance: Callable[[int], None]) -> int:
        """Give each its vector, or the reason why there is none; equal contents are encoded once.

        Returns:
            How many items the progress was told of.
        """
        first: dict[str, _Work] = {}
        for each in work:
            first.setdefault(each.content_hash or "", each)
        vectors = {} if self.other is None else _vectors_of(*self.other, list(first))
        missing = {content_hash: each for content_hash, each in first.items() if content_hash not in vectors}
        reasons: dict[str, str] = {}
        if missing:
            items, hashes = [each.item for each in missing.values()], list(missing)
            encoded = self.encoder().encode(items, hashes, self.batch_size, on_error="skip", progress=advance, workers=self.workers)
            vectors |= dict(zip(encoded.ids, encoded.vectors, strict=True))
            reasons |= {failure.item: failure.reason for failure in encoded.failures}
            self.counts.encoded += len(encoded.ids)
        changed = {content_hash for content_hash, each in missing.items() if self._stamp(each) != each.stamp}
        for each in work:
            content_hash = each.content_hash or ""
            if content_hash in changed:
                each.content_hash, each.reason = None, CHANGED
            else:
                each.vector, each.reason = vectors.get(content_hash), reasons.get(content_hash)
        return len(missing)

    def _check_rows(self, wanted: Sequence[_Work]) -> None:
        """A row that no store takes fails alone."""
        for each in wanted:
            try:
                if each.vector is not None:
                    check_rows([self._row(each)], self.store.metadata.dim)
            except InputError as error:
                each.vector, each.reason = None, str(error)

    def _row(self, each: _Work) -> Row:
        assert each.vector is not None and each.content_hash is not None
        image = None if each.image is None else printable(each.image)
        return Row(each.id, each.vector, each.item.text, image, each.metadata, each.content_hash)

    # --- what has become of them ------------------------------------------------------------------------------------------

    def _count(self, work: Sequence[_Work], wanted: Sequence[_Work], known: Collection[str]) -> None:
        """Count what has become of a batch; `known` are the contents that there were before it."""
        stored, fresh = self.journal.rows_of(list(known)), set()
        self.counts.unchanged += sum(each.reason is None for each in work) - sum(each.reason is None for each in wanted)
        for each in work:
            if each.reason is not None:
                self.counts.failed += 1
                self.counts.failures += [Failure(each.id, each.reason)] if len(self.counts.failures) < MOST_LISTED else []
        for each in wanted:
            content = each.content_hash or ""
            if each.reason is not None:
                continue
            if each.is_adopted:
                self.counts.unchanged += 1
            elif each.row is not None:
                self.counts.changed += 1
            elif content in known and (self.scan.claim_moved(content) or content not in stored):
                self.counts.moved += 1
            elif content in known or content in fresh:
                self.counts.duplicates += 1
            else:
                self.counts.new += 1
                fresh.add(content)

    def _commit(self, work: Sequence[_Work], wanted: Sequence[_Work]) -> None:
        rows = [self._row(each) for each in wanted if each.vector is not None]
        # Known to have another content now, of which there is no vector.
        stale = [each.row for each in wanted if each.vector is None and each.content_hash is not None and each.row is not None]
        replaced = [each.row for each in wanted if each.is_replaced and each.row is not None]
        if replaced:
            self.scan.keep_vectors((row.content_hash, row.vector) for row in self.store.get(replaced))
        if rows or stale:
            self.journal.begin([*(row.id for row in rows), *stale])
            crash_point("index.begun")
        if rows:
            self.store.upsert(rows)
            crash_point("index.stored")
        if stale:
            self.store.delete(stale)
            crash_point("index.removed")
        self.journal.commit([each.line() for each in work], texts={**dict.fromkeys(stale, ""), **{row.id: words_of(row) for row in rows}})
        crash_point("index.committed")

    def _remove_gone(self) -> None:
        """Remove the rows of inputs that are gone, and their lines."""
        after = 0
        while entries := self.scan.gone(after, MOST_INPUTS):
            after = entries[-1][0]
            gone = [each for _, each in entries]
            rows = [each.row for each in gone if each.row is not None]
            if rows:
                self.journal.begin(rows)
                self.store.delete(rows)
                crash_point("index.deleted")
            self.journal.commit(gone=[(each.source, each.name) for each in gone], texts=dict.fromkeys(rows, ""))
            self.counts.deleted += sum(each.row is not None and not each.was_moved for each in gone)


def _vectors_of(journal: Journal, store: Store, hashes: Sequence[str]) -> dict[str, np.ndarray]:
    """The vectors that a store has of contents."""
    ids = journal.rows_of(hashes)
    return {row.content_hash: row.vector for row in store.get(list(ids.values())) if ids.get(row.content_hash) == row.id}
