"""A collection brought up to date with its sources: made where there is none, or built again beside what is there."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slq import console
from slq.config import IndexConfig
from slq.errors import ConfigError, DataError, Failure, FingerprintMismatchError, InputError, ModelError, SlqError, StoreError, shorten
from slq.index.head import Head, Layout, read_head, remove_file, write_head
from slq.index.ids import printable
from slq.index.journal import Journal, Source
from slq.index.lock import LOCK_FILE, take_lock
from slq.index.recovery import recover
from slq.index.scan import Scan
from slq.index.sources import TABLE, Look, Places, add_source, holds, kind_of, look_at
from slq.index.store import Store, open_store
from slq.index.updating import SETTLED_NS, Counts, Updater
from slq.io.files import crash_point

if TYPE_CHECKING:
    from slq.encoders.base import Encoder

DEFAULT_STORE = "exact"


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


@dataclass(frozen=True)
class NamedEncoder:
    """A model that is loaded when it is needed.

    Attributes:
        load: loads it.
        name: as the collection is to call it; None for an object in Python.
        options: how it is loaded, beside its name.
        is_asked_for: whether somebody named it, and not the collection.
    """

    load: Callable[[], Encoder]
    name: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    is_asked_for: bool = True

    def with_loader(self, load: Callable[[], Encoder]) -> NamedEncoder:
        """The same model, loaded in another way.

        Args:
            load: loads it.
        """
        return replace(self, load=load)

    def head(self, encoder: Encoder, store: str, generation: int) -> Head:
        """What collection.json says of rows by this model.

        Args:
            encoder: the model.
            store: kind of the store.
            generation: number of the rows' files.

        Raises:
            ModelError: if it gives several vectors an item.
        """
        if len(encoder.vector_shape) != 1:
            raise ModelError("A collection has one vector an item, and this model gives several: leave out late interaction.")
        return Head(store, self.name, encoder.fingerprint, encoder.vector_shape[0], dict(self.options), generation)


def update(folder: Path, config: IndexConfig, model: NamedEncoder) -> UpdateReport:
    """Bring a collection up to date.

    Args:
        folder: of the collection; made if it is not there.
        config: what is indexed, and how.
        model: what encodes.

    Returns:
        What has been done.

    Raises:
        StoreLockedError: if another process writes to the collection.
        FingerprintMismatchError: if another model encoded what is there, unless it is to be rebuilt.
        DataError: if there is nothing to index, or more fails than may.
        OutputError: if the disk refuses; what was done before stays.
    """
    layout = Layout(folder)
    with writing(layout, make=True) as head:
        if head is None:
            return _make(layout, config, model)
        if config.rebuild:
            return _rebuild(layout, head, config, model)
        if config.store not in (None, head.store):
            raise ConfigError(f"{folder} has a store of the kind {head.store}: leave out --store, or change it with --rebuild.")
        encoder = _Checked(model, head, folder)
        if model.is_asked_for and (model.name, model.options) != (head.model, head.options):
            encoder()
            if model.name is not None:  # the same model at another place
                head = replace(head, model=model.name, options=dict(model.options))
                write_head(layout.head_file, head)
        return _Run(layout, head, config).update(encoder)


@contextmanager
def writing(layout: Layout, make: bool = False) -> Iterator[Head | None]:
    """Be the one process that writes to a collection, and remove what another one did not get to remove.

    Args:
        layout: of the collection.
        make: whether the folder may be made; nothing is left of it if no collection is.

    Yields:
        What it is; None where there is none yet.

    Raises:
        StoreLockedError: if another process writes.
        StoreError: if there is no collection, and none may be made.
    """
    if not make:
        read_head(layout.head_file)
    is_new = layout.make()
    lock = take_lock(layout.folder)
    try:
        head = read_head(layout.head_file) if layout.head_file.exists() else None
        if head is not None:
            _tidy(layout, head)
        yield head
    finally:
        if not layout.is_claimed:
            with suppress(OSError):
                (layout.folder / LOCK_FILE).unlink()
                layout.folder.rmdir() if is_new else None
        os.close(lock)


def _tidy(layout: Layout, head: Head) -> None:
    """Remove what a switch from one generation to the next has left."""
    if layout.building_file.exists() and read_head(layout.building_file).generation <= head.generation:
        remove_file(layout.building_file)
    layout.remove_generations(below=head.generation)


def _make(layout: Layout, config: IndexConfig, model: NamedEncoder) -> UpdateReport:
    """The first run: the collection can be searched from the first batch on."""
    if not config.paths:
        raise StoreError(f"{layout.folder} is no collection yet: name what is to be indexed, slq index PATH -c {layout.folder}.")
    for path in config.paths:
        kind_of(path)
    encoder = model.load()
    head = model.head(encoder, config.store or DEFAULT_STORE, 0)
    write_head(layout.building_file, head)  # from here on what lies in the folder is ours
    layout.remove_generations()
    with closing(Journal(layout.journal(0), writes=True)), closing(open_rows(layout, head)):
        crash_point("index.making")
    write_head(layout.head_file, head)
    remove_file(layout.building_file)
    try:
        return _Run(layout, head, config).update(lambda: encoder)
    except InputError:
        with closing(open_rows(layout, head)) as store:
            is_empty = not len(store)
        if is_empty:
            layout.remove_generations()
            remove_file(layout.head_file)
        raise


def _rebuild(layout: Layout, head: Head, config: IndexConfig, model: NamedEncoder) -> UpdateReport:
    """Build the next generation beside the one that counts, and switch when it is whole."""
    encoder = model.load()
    wanted = model.head(encoder, config.store or head.store, head.generation + 1)
    if not (layout.building_file.exists() and read_head(layout.building_file) == wanted):
        layout.remove_generations(keep=head.generation)
        write_head(layout.building_file, wanted)
    with closing(Journal(layout.journal(head.generation))) as journal, closing(open_rows(layout, head)) as store:
        is_same = (head.fingerprint, head.dim) == (wanted.fingerprint, wanted.dim) and not store.verify()
        run = _Run(layout, wanted, config, journal.sources(), (journal, store) if is_same else None)
        report = run.update(lambda: encoder)
    crash_point("index.built")
    write_head(layout.head_file, wanted)
    crash_point("index.switched")
    _tidy(layout, wanted)
    return report


class _Checked:
    """A model that must have encoded the rows that are there."""

    def __init__(self, model: NamedEncoder, head: Head, folder: Path):
        self._model, self._head, self._folder = model, head, folder
        self._encoder: Encoder | None = None

    def __call__(self) -> Encoder:
        if self._encoder is None:
            encoder, head = self._model.load(), self._head
            found = self._model.head(encoder, head.store, head.generation)
            if (found.fingerprint, found.dim) != (head.fingerprint, head.dim):
                raise FingerprintMismatchError(
                    f"{shorten(self._folder)} was encoded by {shorten(head.metadata.model)} ({head.fingerprint}), not by "
                    f"{shorten(found.metadata.model)} ({found.fingerprint}): name that model, or encode everything again with --rebuild."
                )
            self._encoder = encoder
        return self._encoder


class _Run:
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
        """Look at every source; those that others hold come last, and end when these were looked at."""
        sources = journal.sources()
        holders = {
            inner.id: [outer for outer in sources if inner.kind != TABLE and holds(self.places, outer, self.places.located(inner.path))]
            for inner in sources
        }
        for source in sorted(sources, key=lambda each: len(holders[each.id])):
            if {look.source.id for look in self.looks} & {outer.id for outer in holders[source.id]}:
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
            if not os.path.lexists(self.places.located(look.source.path)):  # which --prune-missing alone allows
                self.ending.add(look.source.id)
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


def open_rows(layout: Layout, head: Head) -> Store:
    """The store of a generation.

    Args:
        layout: of the collection.
        head: of the generation.
    """
    return open_store(f"{head.store}:{layout.rows(head.generation)}", head.metadata)
