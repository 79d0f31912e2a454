"""A collection brought up to date with its sources: made where there is none, or built again beside what is there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from slq.config import IndexConfig
from slq.errors import ConfigError, InputError, StoreError
from slq.index.encoders import CheckedEncoder, NamedEncoder
from slq.index.head import Head, Layout, open_rows, read_head, remove_file, write_head
from slq.index.journal import Journal, Source
from slq.index.lock import LOCK_FILE, take_lock
from slq.index.run import Run, UpdateReport
from slq.index.sources import kind_of
from slq.index.store import Store
from slq.io.files import crash_point

DEFAULT_STORE = "exact"


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
        encoder = CheckedEncoder(model, head, folder)
        if model.is_asked_for and (model.name, model.options) != (head.model, head.options):
            encoder()
            if model.name is not None:  # the same model at another place
                head = replace(head, model=model.name, options=dict(model.options))
                write_head(layout.head_file, head)
        return Run(layout, head, config).update(encoder)


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
    with closing(Journal(layout.journal(0), writes=True)), closing(open_rows(layout, head, make=True)):
        crash_point("index.making")
    write_head(layout.head_file, head)
    remove_file(layout.building_file)
    try:
        return Run(layout, head, config).update(lambda: encoder)
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
    open_rows(layout, wanted, make=True).close()
    with ExitStack() as opened:
        sources, other = _before(layout, head, opened)
        is_same = (head.fingerprint, head.dim) == (wanted.fingerprint, wanted.dim)
        report = Run(layout, wanted, config, sources, other if is_same else None).update(lambda: encoder)
    crash_point("index.built")
    write_head(layout.head_file, wanted)
    crash_point("index.switched")
    _tidy(layout, wanted)
    return report


def _before(layout: Layout, head: Head, opened: ExitStack) -> tuple[list[Source], tuple[Journal, Store] | None]:
    """The sources of the generation that counts, as far as they can be read, and its journal and rows if they are whole."""
    sources: list[Source] = []
    try:
        journal = opened.enter_context(closing(Journal(layout.journal(head.generation))))
        sources = journal.sources()
        store = opened.enter_context(closing(open_rows(layout, head)))
        return sources, None if store.verify() else (journal, store)
    except StoreError:
        return sources, None
