"""The contract of `slq.index.store.Store`, as checks that every store passes, and a store in memory that shows how little it takes.

    from slq.testing import check_store
    check_store(MyStore)            # MyStore(location, metadata) opens a store

A check is a function of the factory and a folder; it raises AssertionError, saying what is wrong. `durable=False` leaves out the checks of
what a store on disk must survive. For those, other processes import the factory: it must be a class or a function of a module that they can
import, so neither a lambda, nor one inside a function, nor in a script or notebook.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from slq.errors import Failure, StoreError
from slq.index.filters import Filter, Scalar, check_filter, matches
from slq.index.store import Hit, OpenStore, Row, Store, StoreMetadata, check_queries, check_rows
from slq.testing.subject import Subject, said

DIM = 8
METADATA = StoreMetadata("adapter", "fingerprint", DIM)
ANIMALS = ("cat", "dog", "owl")
Check = Callable[[OpenStore, Path], None]
METHODS = ("upsert", "delete", "get", "search", "scan", "__len__", "verify", "optimize", "close", "metadata")


class MemoryStore:
    """Rows in a dictionary, gone with the process; see `slq.index.store.Store`."""

    def __init__(self, location: Path, metadata: StoreMetadata | None = None):
        """Make a store.

        Args:
            location: nothing is written there.
            metadata: what is to be stored.

        Raises:
            StoreError: without metadata, since there is nothing to open.
        """
        if metadata is None:
            raise StoreError("A store in memory cannot be opened again: give the metadata of a new one.")
        self.metadata = metadata
        self._rows: dict[str, Row] = {}

    def upsert(self, rows: Sequence[Row]) -> None:
        """Store rows.

        Args:
            rows: all of them are stored, or none.

        Raises:
            InputError: if a row is not what it should be.
        """
        check_rows(rows, self.metadata.dim)
        self._rows.update({row.id: row for row in rows})

    def delete(self, ids: Sequence[str]) -> int:
        """Remove rows.

        Args:
            ids: of rows.

        Returns:
            How many there were.
        """
        return sum(self._rows.pop(id_, None) is not None for id_ in ids)

    def get(self, ids: Sequence[str]) -> list[Row]:
        """The rows of these ids that are there.

        Args:
            ids: of rows.
        """
        return [self._rows[id_] for id_ in ids if id_ in self._rows]

    def search(self, vectors_QD: np.ndarray, k: int, *, filter: Filter | None = None, exact: bool = False) -> list[list[Hit]]:
        """The k rows with the largest inner product for each query.

        Args:
            vectors_QD: (Q, D).
            k: how many results.
            filter: only rows that pass it.
            exact: nothing to this store, which is exact.

        Raises:
            InputError: for vectors of another width, NaN, k < 1, or what is no filter.
        """
        check_filter(filter)
        rows = [row for row in self._rows.values() if filter is None or matches(filter, row)]
        results = []
        for query in check_queries(vectors_QD, self.metadata.dim, k):
            scored = sorted((-float(row.vector @ query), row.id, row) for row in rows)
            results.append([Hit(row.id, -score, row.text, row.image, dict(row.metadata)) for score, _, row in scored[:k]])
        return results

    def scan(self, batch_size: int = 1024) -> Iterator[list[Row]]:
        """All rows.

        Args:
            batch_size: rows at a time.
        """
        rows = list(self._rows.values())
        for start in range(0, len(rows), batch_size):
            yield rows[start : start + batch_size]

    def __len__(self) -> int:
        return len(self._rows)

    def verify(self) -> list[Failure]:
        """Nothing is ever damaged."""
        return []

    def optimize(self) -> None:
        """There is nothing to do."""

    def close(self) -> None:
        """There is nothing to let go of."""


def check_store(factory: OpenStore, *, durable: bool = True) -> None:
    """Try a store against the whole contract.

    Args:
        factory: opens a store at a folder: `factory(location, metadata)`.
        durable: whether it is on disk; False leaves out what only those can do.

    Raises:
        AssertionError: naming the store, the check that failed, and what is wrong.
    """
    subject = Subject("store", factory)
    subject.must("be given as its class, or a function that opens one: factory(location, metadata)", callable(factory), "is neither")
    if durable:
        check_importable(factory)
    with tempfile.TemporaryDirectory() as folder:
        with subject.trying("open a new store by factory(location, metadata)"):
            store = factory(Path(folder) / "store", METADATA)
        subject.has(store, *METHODS)
        with subject.trying("close"):
            store.close()
    for name, check in contract_of_stores(durable).items():
        asked = f"pass the check {name} ({(check.__doc__ or '').strip()})"
        with tempfile.TemporaryDirectory() as folder, subject.trying(asked):
            try:
                check(factory, Path(folder))
            except AssertionError as error:
                raise AssertionError(f"{subject.name} must {asked}; {error}") from error


def check_importable(factory: OpenStore) -> None:
    """Refuse a factory that other processes cannot import, with which killing a writer cannot be tried.

    Args:
        factory: opens a store at a folder.

    Raises:
        AssertionError: if it is no class or function of a module.
    """
    module, name = getattr(factory, "__module__", ""), getattr(factory, "__qualname__", "")
    here: Any = sys.modules.get(module)
    for part in name.split("."):
        here = getattr(here, part, None)
    Subject("store", factory).must(
        "be a class or a function of a module that other processes can import, to try killing a writer (durable=False leaves that out)",
        here is factory and module != "__main__",
        f"is {name or repr(factory)} of {module or 'no module'}",
    )


def contract_of_stores(durable: bool = True) -> Mapping[str, Check]:
    """Every check by its name, to be run one by one: `check(factory, empty_folder)`.

    Args:
        durable: whether with those of stores on disk.
    """
    from slq.testing import store_checks as any_store
    from slq.testing import store_checks_on_disk as on_disk

    return {check.__name__: check for check in (*any_store.CHECKS, *(on_disk.CHECKS if durable else ()))}


def make_rows(count: int, start: int = 0, salt: int = 0) -> list[Row]:
    """Rows whose every part follows from their number.

    Args:
        count: how many.
        start: number of the first one.
        salt: another salt, other vectors and texts under the same ids.
    """
    rows = []
    for number in range(start, start + count):
        vector = np.random.default_rng([number, salt]).normal(size=DIM).astype(np.float32)
        metadata: dict[str, Scalar] = {
            "animal": ANIMALS[number % 3],
            "year": 2000 + number % 7,
            "weight": number / 4,
            "tame": number % 2 == 0,
        }
        image = f"images/{number}.png" if number % 2 else None
        rows.append(Row(f"row {number}", vector / np.linalg.norm(vector), f"text {number} {salt}", image, metadata, f"{number}-{salt}"))
    return rows


def make_queries(count: int = 5) -> np.ndarray:
    """Query vectors of length 1, the same ones every time.

    Args:
        count: how many.

    Returns:
        (count, D) float32.
    """
    vectors_QD = np.random.default_rng(99).normal(size=(count, DIM)).astype(np.float32)
    return vectors_QD / np.linalg.norm(vectors_QD, axis=1, keepdims=True)


def assert_holds(store: Store, rows: Sequence[Row]) -> None:
    """Whether a store holds these rows, whole, and no others.

    Args:
        store: what is tried.
        rows: what was stored.
    """
    wanted = {row.id: row for row in rows}
    batches = list(store.scan())
    odd = [batch for batch in batches if not isinstance(batch, list)]
    assert not odd, f"scan() gives {odd[0]!r:.80} where a list of rows is asked for"
    found = [row for batch in batches for row in batch]
    assert len(found) == len({row.id for row in found}), "scan() gives an id twice"
    assert {row.id for row in found} == set(wanted), f"scan() gives {len(found)} rows, not the {len(wanted)} that were stored"
    assert len(store) == len(wanted), f"len() is {len(store)}, not {len(wanted)}"
    for row in found:
        assert_same(row, wanted[row.id])


def assert_same(found: Row, wanted: Row) -> None:
    """Whether a row is what was stored, in every part.

    Args:
        found: what the store gave.
        wanted: what was stored.
    """
    assert isinstance(found, Row), f"gives {found!r:.80} instead of a Row"
    for name in ("id", "text", "image", "content_hash"):
        assert getattr(found, name) == getattr(wanted, name), f"{name} of {wanted.id!r} is {getattr(found, name)!r}"
    assert dict(found.metadata) == dict(wanted.metadata), f"metadata of {wanted.id!r} are {found.metadata}"
    kinds, others = ({name: type(value) for name, value in row.metadata.items()} for row in (found, wanted))
    assert kinds == others, f"metadata of {wanted.id!r} changed their types: {kinds}"
    assert np.array_equal(found.vector, wanted.vector), f"the vector of {wanted.id!r} changed"


def assert_finds(store: Store, rows: Sequence[Row], filter: Filter | None = None, k: int = 5) -> None:
    """Whether searching finds what comparing every row finds.

    Args:
        store: what is tried.
        rows: what was stored.
        filter: only rows that pass it.
        k: how many results.
    """
    oracle = MemoryStore(Path(), store.metadata)
    oracle.upsert(rows)
    wanted, found = (one.search(make_queries(), k, filter=filter, exact=True) for one in (oracle, store))
    odd = [hit for hits in found for hit in hits if not isinstance(hit, Hit)]
    assert not odd, f"search() gives {odd[0]!r:.80} where a Hit is asked for"
    assert [[hit.id for hit in hits] for hits in found] == [[hit.id for hit in hits] for hits in wanted], f"other results under {filter}"
    for hits, others in zip(found, wanted, strict=True):
        assert np.allclose([hit.score for hit in hits], [hit.score for hit in others], atol=1e-5), "other scores"
        shown = [[(hit.text, hit.image, dict(hit.metadata)) for hit in one] for one in (hits, others)]
        assert shown[0] == shown[1], "a hit lacks what its row has"


def assert_raises(kind: type[Exception], call: Callable[..., Any], *arguments: Any, **options: Any) -> None:
    """Whether a call is refused with an error of a kind.

    Args:
        kind: of error.
        call: what is called.
        *arguments: of the call.
        **options: of the call.
    """
    asked, given = f"{getattr(call, '__name__', call)} must raise {kind.__name__}", " ".join(repr(options or arguments).split())[:200]
    try:
        call(*arguments, **options)
    except kind:
        return
    except Exception as error:
        raise AssertionError(f"{asked}, and raised {said(error)}, for {given}") from error
    raise AssertionError(f"{asked}, and raised nothing, for {given}")
