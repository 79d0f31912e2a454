"""What the contract of stores must catch: stores with one fault each, told by the check that is about it."""

from __future__ import annotations

import os
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from slq.index.exact import ExactStore
from slq.index.store import Row, StoreMetadata
from slq.testing import MemoryStore, check_store, contract_of_stores


class Doubles(MemoryStore):
    """Stores an id again under another name of the same look."""

    def scan(self, batch_size=1024):
        for batch in super().scan(batch_size):
            yield batch
            if any(row.content_hash.endswith("-1") for row in batch):
                yield batch[:1]


class Halves(MemoryStore):
    """Rounds vectors to 16 bits."""

    def upsert(self, rows):
        super().upsert([replace(row, vector=row.vector.astype(np.float16).astype(np.float32)) for row in rows])


class Texts(MemoryStore):
    """Stores every number as text."""

    def upsert(self, rows):
        super().upsert([replace(row, metadata={name: str(value) for name, value in row.metadata.items()}) for row in rows])


class Merges(MemoryStore):
    """Lets metadata of the replaced row shine through."""

    def upsert(self, rows):
        for row in rows:
            before = self._rows.get(row.id)
            super().upsert([replace(row, metadata={**before.metadata, **row.metadata}) if before else row])


class WritesBeforeLooking(MemoryStore):
    """Stores the good rows in front of a bad one."""

    def upsert(self, rows):
        for row in rows:
            super().upsert([row])


class CountsIds(MemoryStore):
    """Says that it deleted what was not there."""

    def delete(self, ids):
        super().delete(ids)
        return len(ids)


class FiltersLate(MemoryStore):
    """Chooses the best before it filters."""

    def search(self, vectors_QD, k, *, filter=None, exact=False):
        hits = super().search(vectors_QD, k)
        kept = super().search(vectors_QD, len(self) or 1, filter=filter)
        return [[hit for hit in one if hit.id in {each.id for each in other}] for one, other in zip(hits, kept, strict=True)]


class TakesAnything(MemoryStore):
    """Takes a filter written as text for none."""

    def search(self, vectors_QD, k, *, filter=None, exact=False):
        return super().search(vectors_QD, k, filter=None if isinstance(filter, str) else filter)


class Forgets(MemoryStore):
    """Loses a row when it is optimised."""

    def optimize(self):
        if self._rows:
            self._rows.pop(next(iter(self._rows)))


class Shuffles(MemoryStore):
    """Gives equal rows in the order of storing."""

    def search(self, vectors_QD, k, *, filter=None, exact=False):
        everything = super().search(vectors_QD, len(self) or 1, filter=filter)
        place = {id_: number for number, id_ in enumerate(self._rows)}
        ranked = [sorted(hits, key=lambda hit: (-hit.score, place[hit.id]))[:k] for hits in everything]
        return ranked if k > 0 else super().search(vectors_QD, k)


FAULTS = {
    Doubles: "a_row_replaces_the_one_with_its_id",
    Halves: "rows_come_back_whole",
    Texts: "rows_come_back_whole",
    Merges: "a_row_without_metadata_replaces_one_that_has_some",
    WritesBeforeLooking: "rows_that_are_wrong_are_refused_before_any_is_written",
    CountsIds: "deleted_rows_are_gone",
    FiltersLate: "filters_come_before_the_best_are_chosen",
    TakesAnything: "what_is_no_filter_is_refused",
    Forgets: "optimizing_keeps_results",
    Shuffles: "equal_rows_come_by_id",
}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda kind: kind.__name__)
def test_a_fault_is_told_by_the_check_that_is_about_it(fault, tmp_path):
    with pytest.raises(AssertionError):
        contract_of_stores(durable=False)[FAULTS[fault]](fault, tmp_path)


@pytest.mark.slow
def test_the_whole_contract_names_the_check_that_failed():
    check_store(MemoryStore, durable=False)
    asked = r"must pass the check optimizing_keeps_results \(After upserts.*\); scan\(\) gives 149 rows, not the 150"
    with pytest.raises(AssertionError, match=rf"^The store \S+:Forgets {asked}"):
        check_store(Forgets, durable=False)


def inside(location, metadata=None):
    return MemoryStore(location, metadata)


class WithoutSearch(MemoryStore):
    search = None
    __getattribute__ = lambda self, name: object.__getattribute__(self, {"search": "none"}.get(name, name))  # noqa: E731


class TakesNoMetadata(MemoryStore):
    def __init__(self, location):
        super().__init__(location, None)


class GivesDictionaries(MemoryStore):
    def scan(self, batch_size=1024):
        yield from ([vars(row) for row in batch] for batch in super().scan(batch_size))


class GivesRows(MemoryStore):
    def scan(self, batch_size=1024):
        yield from self._rows.values()


class GivesPairs(MemoryStore):
    def search(self, *asked, **options):
        return [[(hit.id, hit.score) for hit in hits] for hits in super().search(*asked, **options)]


class CountsNothing(MemoryStore):
    def delete(self, ids):
        super().delete(ids)


class RefusesInItsOwnWords(MemoryStore):
    def upsert(self, rows):
        if any(row.vector.shape != (self.metadata.dim,) for row in rows):
            raise RuntimeError("odd shape")
        super().upsert(rows)


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        (MemoryStore(Path(), StoreMetadata("a", "f", 8)), "must be given as its class, or a function that opens one"),
        (WithoutSearch, "must have upsert, .*; it lacks search"),
        (TakesNoMetadata, r"must open a new store by factory\(location, metadata\); it raised TypeError"),
        (GivesDictionaries, r"must pass the check rows_come_back_whole .*'dict' object has no attribute 'id'"),
        (GivesRows, r"must pass the check rows_come_back_whole .*scan\(\) gives Row\(.* where a list of rows is asked for"),
        (GivesPairs, r"must pass the check .*search\(\) gives \('row \d+', .* where a Hit is asked for"),
        (CountsNothing, r"must pass the check a_new_store_is_empty .*delete\(\) of a row that was never stored gives None, not 0"),
        (
            RefusesInItsOwnWords,
            r"must pass the check rows_that_are_wrong.* must raise InputError, and raised RuntimeError: odd shape, for",
        ),
    ],
)
def test_a_raw_error_of_a_store_names_the_store_and_what_is_asked(factory, message):
    with pytest.raises(AssertionError, match=rf"^The store \S+:\w+ {message}"):
        check_store(factory, durable=False)


def test_a_factory_that_no_other_process_can_import_is_refused_at_once(monkeypatch):
    with pytest.raises(AssertionError, match=r"must be a class or a function of a module that other processes can import.*<lambda>"):
        check_store(lambda location, metadata=None: MemoryStore(location, metadata))
    with pytest.raises(AssertionError, match=r"other processes can import.*; it is functools.partial"):
        check_store(partial(MemoryStore))
    monkeypatch.setattr(inside, "__module__", "__main__")
    with pytest.raises(AssertionError, match=r"other processes can import.*; it is inside of __main__"):
        check_store(inside)


# Faults that only a disk can have


class Acknowledges(ExactStore):
    """Says that rows are stored before they are."""

    waiting: list[Row]

    def upsert(self, rows):
        waiting, self.waiting = getattr(self, "waiting", []), list(rows)
        if waiting:
            super().upsert(waiting)


class Trusts(ExactStore):
    """Does not look for damage."""

    def verify(self):
        return []


class TakesAnyEncoder(ExactStore):
    """Opens a store of another encoder."""

    def __init__(self, location: Path, metadata=None):
        super().__init__(location, None if (location / "store.json").exists() else metadata)


class NeverLooksAgain(ExactStore):
    """Reads its files once."""

    def _refresh(self):
        if not hasattr(self, "_entries"):
            super()._refresh()


@pytest.mark.parametrize(
    ("fault", "check"),
    [
        (Acknowledges, "rows_are_there_when_it_is_opened_again"),
        (Trusts, "damage_does_not_go_unnoticed"),
        (TakesAnyEncoder, "another_encoder_is_refused"),
        (NeverLooksAgain, "a_reader_sees_what_is_written_later"),
    ],
    ids=lambda each: getattr(each, "__name__", each),
)
def test_a_fault_of_a_store_on_disk_is_told(fault, check, tmp_path):
    with pytest.raises(AssertionError):
        contract_of_stores()[check](fault, tmp_path)


class FailsElsewhere(ExactStore):
    """Can neither write nor read in another process than that of the test."""

    def upsert(self, rows):
        self._fail()
        super().upsert(rows)

    def scan(self, batch_size=1024):
        self._fail()
        return super().scan(batch_size)

    def _fail(self):
        if os.environ["PROCESS_OF_THE_TEST"] != str(os.getpid()):
            raise RuntimeError("not here")


@pytest.mark.process
@pytest.mark.parametrize(
    ("fault", "check", "message"),
    [
        (FailsElsewhere, "what_was_acknowledged_survives_a_kill", "the writer failed: RuntimeError: not here"),
        (FailsElsewhere, "readers_beside_a_writer_see_whole_rows", "a reader ended before it had read anything: RuntimeError: not here"),
        (Acknowledges, "what_was_acknowledged_survives_a_kill", "acknowledged rows are lost|is of another write"),
    ],
)
def test_a_fault_in_another_process_is_told(fault, check, message, tmp_path, monkeypatch):
    monkeypatch.setenv("PROCESS_OF_THE_TEST", str(os.getpid()))
    with pytest.raises(AssertionError, match=message):
        contract_of_stores()[check](fault, tmp_path)
