"""One run over all sources of a collection: what they hold is compared with the journal, and the rows are brought up to date."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from slq import console
from slq.config import IndexConfig
from slq.errors import ConfigError, DataError, Failure, SlqError, shorten
from slq.index.head import Head, Layout, open_rows
from slq.index.ids import printable
from slq.index.journal import Journal, Source
from slq.index.recovery import recover
from slq.index.scan import Scan
from slq.index.sources import TABLE, Look, Places, add_source, holds, look_at, named_source
from slq.index.store import Store
from slq.index.updating import SETTLED_NS, Counts, Updater

if TYPE_CHECKING:
    from slq.encoders.base import Encoder


@dataclass(frozen=True)
class UpdateReport:
    """What a run of indexing has done.

    Attributes:
        counts: what has become of inputs.
        rows: how many the collection has now.
        skipped: files and folders that were passed over, by what they are.
        not_looked_at: sources that are missing, empty or cannot be read, and folders in them, with the reason; their rows are as before.
        notes: what is good to know, as sentences.
        seconds: that the run took.
    """

    counts: Counts
    rows: int
    skipped: Mapping[str, int]
    not_looked_at: tuple[Failure, ...]
    notes: tuple[str, ...]
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        counts = {name: value for name, value in vars(self.counts).items() if name != "failures"}
        told = [{"item": each.item, "reason": each.reason} for each in self.not_looked_at]
        return {**counts, "rows": self.rows, "skipped": dict(self.skipped), "not_looked_at": told, "seconds": round(self.seconds, 3)}


class Run:
    """One run over the sources of a generation."""

    def __init__(
        self,
        layout: Layout,
        head: Head,
        config: IndexConfig,
        sources: Sequence[Source] = (),
        other: tuple[Journal, Store] | None = None,
    ):
        """Prepare it.

        Args:
            layout: of the collection.
            head: of the generation.
            config: what is indexed, and how.
            sources: those of the generation that is to be replaced, all of which must be there; empty for no other.
            other: see `Updater`.
        """
        self.layout, self.head, self.config, self.replaces, self.other = layout, head, config, sources, other
        self.places = Places.of(layout.folder)
        self.notes: list[str] = []
        self.not_looked_at: list[Failure] = []
        self.looks: list[Look] = []
        self.ending: set[int] = set()
        self.forgotten: set[int] = set()

    def update(self, encoder: Callable[[], Encoder]) -> UpdateReport:
        """Bring the generation up to date.

        Args:
            encoder: gives the model.
        """
        begin = time.perf_counter()
        with (
            closing(Journal(self.layout.journal(self.head.generation), writes=True)) as journal,
            closing(open_rows(self.layout, self.head)) as store,
        ):
            added = self._add_sources(journal)
            self._recover(journal, store)
            scan = Scan(journal)
            with console.waiting("looking for images"):
                self._look(journal, scan, added)
            scan.compare(self.config.retry_failed)
            updater = Updater(
                scan,
                store,
                self.places,
                encoder,
                batch_size=self.config.batch_size,
                workers=self.config.num_workers,
                max_skipped=self.config.max_skipped,
                retry_failed=self.config.retry_failed,
                other=self.other,
            )
            with console.progress_bar("indexing", scan.num_todo) as advance:
                counts = updater.update(advance)
            self._note_sources(journal)
            skipped = sum((look.skipped for look in self.looks), Counter[str]())
            seconds = time.perf_counter() - begin
            report = UpdateReport(counts, len(store), skipped, tuple(self.not_looked_at), tuple(self.notes), seconds)
            journal.note("last_run", {"at": datetime.now(UTC).isoformat(timespec="seconds"), **report.to_dict()})
        return report

    def _add_sources(self, journal: Journal) -> set[int]:
        """Remember the paths that are named; returns the numbers of new sources."""
        known = {source.id for source in journal.sources()}
        for source in self.replaces:
            if source.id not in known:
                journal.save_source(replace(source, stamp=None))
        known |= {source.id for source in self.replaces}
        for path in self.config.paths:
            source, is_own = add_source(journal, self.places, path, self.config.said)
            if not is_own:
                self.notes.append(f"{shorten(path)} is part of {source.label}, which is indexed already.")
        sources = journal.sources()
        if not sources:
            raise ConfigError(f"{shorten(self.layout.folder)} has no sources: name what is to be indexed.")
        self.forgotten = {named_source(sources, self.places, path).id for path in self.config.forget}
        if len(self.forgotten) == len(sources):
            raise ConfigError(f"{shorten(self.layout.folder)} has no other sources: remove all of it with slq collection delete.")
        return {source.id for source in sources} - known

    def _recover(self, journal: Journal, store: Store) -> None:
        if not (unknown := recover(journal, store, self.config.repair)):
            return
        if self.config.prune_missing:
            store.delete(unknown)
        else:
            count = f"{len(unknown):,} row(s), such as {shorten(unknown[0])},"
            self.notes.append(f"{count} belong to no source: name the source again, or remove them with --prune-missing.")

    def _look(self, journal: Journal, scan: Scan, added: set[int]) -> None:
        """Look at every source but those that are forgotten; those that others hold come last, and end when these were looked at."""
        for source in journal.sources():
            if source.id in self.forgotten:
                scan.complete(source)  # with nothing in it
                self.ending.add(source.id)
        sources = [source for source in journal.sources() if source.id not in self.forgotten]
        holders = {
            inner.id: [outer for outer in sources if inner.kind != TABLE and holds(self.places, outer, self.places.located(inner.path))]
            for inner in sources
        }
        for source in sorted(sources, key=lambda each: len(holders[each.id])):
            looks = {look.source.id: look for look in self.looks}
            if held := [looks[outer.id] for outer in holders[source.id] if outer.id in looks]:
                path = self.places.located(source.path)
                if all(look.is_known(os.path.relpath(path, self.places.located(look.source.path))) for look in held):
                    scan.complete(source)
                    self.ending.add(source.id)
                continue
            try:
                self.looks.append(look_at(source, scan, self.places, self.config.prune_missing))
            except SlqError as error:
                if source.id in added:
                    journal.remove_source(source)
                if self.replaces or len(sources) == 1:
                    raise
                self.not_looked_at.append(Failure(source.label, str(error)))
        self._note_looks()
        if not self.looks:
            raise DataError(f"None of {len(sources)} sources can be read; the first is {shorten(self.not_looked_at[0], 400)}")

    def _note_looks(self) -> None:
        for look in self.looks:
            self.ending |= {look.source.id} if look.is_missing else set()
            reasons = {f"{look.source.label}/{printable(name)}": reason for name, reason in look.unreadable.items()}
            self.not_looked_at += [Failure(name, f"the folder cannot be listed ({reason})") for name, reason in reasons.items()]
        if self.replaces and self.not_looked_at:
            raise DataError(f"{self.not_looked_at[0]}; what was in it would be lost in a rebuild: correct that, or leave out --rebuild")

    def _note_sources(self, journal: Journal) -> None:
        """Forget sources that have ended, and note when tables were read through."""
        now = time.time_ns()
        for look in self.looks:
            source, stamp = look.source, look.stamp
            if stamp is not None and stamp != source.stamp and abs(now - stamp.mtime_ns) > SETTLED_NS:
                journal.save_source(replace(source, stamp=stamp))
        for source in journal.sources():
            if source.id in self.ending:
                journal.remove_source(source)
