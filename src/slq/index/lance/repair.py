"""What is done about damaged files: told by `verify`, and repaired by the process that writes."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterable, Mapping
from contextlib import closing
from pathlib import Path

from slq.errors import Failure, StoreCorruptError, StoreError
from slq.index.lance.journal import Journal
from slq.index.lance.lines import Commit, FileRecord, State
from slq.index.lance.manifest import manifest_name
from slq.index.lance.rows import ids
from slq.index.lance.table import Table, addresses
from slq.index.lance.versions import Damage, Files, damage_of, remove_uncounted, settle

_STORED = "was stored in a version that is damaged, and may be lost; store the item again"
_REMOVED = "was removed in a version that is damaged, and may be there again; remove it again"
_IN_FILE = "is lost with a damaged file; store the item again"


def verify(location: Path) -> list[Failure]:
    """What is damaged, read anew from the disk.

    Args:
        location: the store's folder.
    """
    try:
        with closing(Journal(location)) as journal:
            journal.check()
            while True:
                state = journal.state()
                failures = _damaged(location, journal, state)
                if not failures or journal.state() == state:
                    return [*journal.lost(), *failures]
                # another process has replaced files meanwhile
    except StoreError as error:
        return [Failure(str(location), str(error))]


def _damaged(location: Path, journal: Journal, state: State) -> list[Failure]:
    """Files of the newest version that are not what was written, by the ids of their rows."""
    damage = damage_of(state.head, Files(location, journal.files(), by_checksum=True))
    if damage.manifest:
        return [Failure(manifest_name(state.head.version), damage.manifest)]
    failures = [Failure("index", f"{damage.index}; call repair(), then optimize()")] if damage.index else []
    try:
        table = Table(location, state.metadata.dim, state.head.version)
        lost = _missing(journal, table, damage.fragments)
    except StoreCorruptError as error:
        return [*failures, Failure(str(location), str(error))]
    faults = "; ".join(damage.fragments.values())
    return [*failures, *(Failure(id_, f"its file is damaged ({faults}); call repair(), then store the item again") for id_ in lost)]


def recover(location: Path, journal: Journal, *, by_checksum: bool = False) -> None:
    """Make the newest version that counts the newest one there is, and whole. The lock must be held.

    Args:
        location: the store's folder.
        journal: of the store.
        by_checksum: whether every file is read; else sizes are compared.

    Raises:
        StoreCorruptError: if no version can be read.
        OutputError: if the disk refuses.
    """
    state, known = journal.state(), journal.files()
    head, files = state.head, Files(location, known, by_checksum=by_checksum)
    damage = damage_of(head, files)
    if damage:
        head = _choose(journal, files, damage)
        if head != state.head:
            journal.roll_back(head, _undone(journal, head))
    remove_uncounted(location, head, known)
    if damage and (damage := damage_of(head, files)):
        _take_out(location, journal, head, known, damage, state.metadata.dim)
    journal.begin_writer()
    if damage.index:
        warnings.warn(f"The index of {location} was damaged and is gone ({damage.index}): optimize() makes it anew.", stacklevel=3)


def _choose(journal: Journal, files: Files, damage: Damage) -> Commit:
    """The commit to go on from: the newest that is whole, or the newest without its damaged fragments, whichever loses fewer rows."""
    readable: tuple[Commit, Damage] | None = None
    for commit in journal.commits():
        found = damage_of(commit, files)
        if found.manifest:
            continue
        readable = readable or (commit, found)
        if not found.fragments:
            undone = sum(1 for _ in _undone(journal, commit))
            cut_out = readable[1].rows + sum(1 for _ in _undone(journal, readable[0]))
            return commit if undone <= cut_out else readable[0]
    if readable is None:
        raise StoreCorruptError(f"No version of {files.folder} can be read ({damage}): encode the items again into another store.")
    return readable[0]


def _undone(journal: Journal, head: Commit) -> Iterable[Failure]:
    """What is lost by giving up the commits behind one, as far as their ids tell it."""
    reasons: dict[str, str] = {}
    for commit, changed in journal.changes(after=head.number):
        if commit.kind in ("upsert", "delete"):
            reasons |= dict.fromkeys(changed, _STORED if commit.kind == "upsert" else _REMOVED)
    return [Failure(id_, reason) for id_, reason in reasons.items()]


def _take_out(location: Path, journal: Journal, head: Commit, known: Mapping[str, FileRecord], damage: Damage, dim: int) -> None:
    """Go on without the damaged fragments, and without a damaged index."""
    table = Table(location, dim)
    if damage.index:
        table.drop_index()
    lost = _missing(journal, table, damage.fragments)
    table.delete_fragments(list(damage.fragments))
    commit, files = settle(location, table.version, head.number + 1, len(table), "repair", known)
    journal.add(commit, lost, files, lost=[Failure(id_, _IN_FILE) for id_ in lost])


def _missing(journal: Journal, table: Table, fragments: Collection[int]) -> list[str]:
    """The ids of fragments, without reading those: what the journal has ids of, and the other fragments have not."""
    expected: dict[str, None] = {}
    for commit, changed in journal.changes():
        if commit.kind in ("create", "optimize"):
            expected = dict.fromkeys(changed)
        elif commit.kind == "upsert":
            expected |= dict.fromkeys(changed)
        else:
            for id_ in changed:
                expected.pop(id_, None)
    if not fragments:
        return []
    elsewhere = " and ".join(f"not ({addresses(number)})" for number in fragments)
    for batch in table.batches(["id"], elsewhere):
        for id_ in ids(batch):
            expected.pop(id_, None)
    return list(expected)
