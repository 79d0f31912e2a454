"""What every store must do, whether on disk or not; see `slq.testing.stores`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from slq.errors import InputError
from slq.index.filters import And, Eq, Filter, In, Not, Range
from slq.index.store import OpenStore, Row, StoreMetadata
from slq.testing.stores import DIM, METADATA, Check, assert_finds, assert_holds, assert_raises, assert_same, make_queries, make_rows

CHECKS: list[Check] = []


def check(function: Check) -> Check:
    """Add a check.

    Args:
        function: is named as what must hold.
    """
    CHECKS.append(function)
    return function


# --- rows -------------------------------------------------------------------------------------------------------------------


@check
def a_new_store_is_empty(factory: OpenStore, folder: Path) -> None:
    """Nothing is found in it, and nothing is wrong with it."""
    store = factory(folder / "store", METADATA)
    assert_holds(store, [])
    found = store.search(make_queries(3), 5)
    assert found == [[], [], []], f"search() of three queries gives {found!r:.80}"
    assert store.get(["row 1"]) == [], "get() gives a row that was never stored"
    count = store.delete(["row 1"])
    assert count == 0, f"delete() of a row that was never stored gives {count!r}, not 0"
    assert store.verify() == [], f"verify() finds damage: {store.verify()!r:.80}"
    assert store.metadata == METADATA, f"its metadata are {store.metadata}, not {METADATA}"
    store.upsert([])
    store.optimize()
    assert_holds(store, [])
    store.close()


@check
def rows_come_back_whole(factory: OpenStore, folder: Path) -> None:
    """Every part of a row, of its own type, also words of any script and nothing at all."""
    store, rows = factory(folder / "store", METADATA), make_rows(10)
    rows.append(Row("日本語 'id' \"%_\\ \n", rows[0].vector, "größer\n猫\t\u2028", None, {"näme": "' OR 1=1 --", "n": -(2**53), "f": 0.1}))
    rows.append(Row("bare", rows[1].vector))
    store.upsert(rows)
    assert_holds(store, rows)
    store.close()


@check
def a_row_replaces_the_one_with_its_id(factory: OpenStore, folder: Path) -> None:
    """An id is never stored twice, neither by two calls nor in one."""
    store, new = factory(folder / "store", METADATA), make_rows(5, salt=1)
    store.upsert(make_rows(10))
    store.upsert(new)
    rows = [*new, *make_rows(5, start=5)]
    assert_holds(store, rows)
    newest = make_rows(1, salt=3)
    store.upsert([*make_rows(1, salt=2), *newest])
    assert_holds(store, [*newest, *rows[1:]])
    assert_finds(store, [*newest, *rows[1:]])
    store.close()


@check
def a_row_without_metadata_replaces_one_that_has_some(factory: OpenStore, folder: Path) -> None:
    """What the new row lacks does not shine through."""
    store = factory(folder / "store", METADATA)
    store.upsert(make_rows(3))
    bare = Row("row 1", make_rows(1, 1)[0].vector)
    store.upsert([bare])
    assert_same(store.get(["row 1"])[0], bare)
    store.close()


@check
def rows_are_got_in_the_order_of_the_ids(factory: OpenStore, folder: Path) -> None:
    """Those that are not there are passed over."""
    store = factory(folder / "store", METADATA)
    store.upsert(make_rows(5))
    found = store.get(["row 3", "none", "row 0", "row 4"])
    assert [row.id for row in found] == ["row 3", "row 0", "row 4"], f"got {[row.id for row in found]}"
    assert store.get([]) == [], "get() of no ids gives something"
    store.close()


@check
def deleted_rows_are_gone(factory: OpenStore, folder: Path) -> None:
    """From every way of asking, and they can be stored again."""
    store, rows = factory(folder / "store", METADATA), make_rows(10)
    store.upsert(rows)
    count = store.delete(["row 0", "row 7", "none", "row 0"])
    assert count == 2, f"delete() of two rows that are there, one of them named twice, gives {count!r}, not 2"
    left = [row for row in rows if row.id not in ("row 0", "row 7")]
    assert_holds(store, left)
    assert_finds(store, left, k=20)
    assert store.get(["row 0"]) == [], "get() gives a row that was deleted"
    assert store.delete([]) == 0, "delete() of no ids does not give 0"
    store.upsert(rows[:1])
    assert_holds(store, [rows[0], *left])
    store.close()


@check
def scanning_comes_in_batches(factory: OpenStore, folder: Path) -> None:
    """None of them larger than asked for, and none empty."""
    store = factory(folder / "store", METADATA)
    store.upsert(make_rows(10))
    sizes = [len(batch) for batch in store.scan(batch_size=4)]
    assert sum(sizes) == 10 and min(sizes) > 0 and max(sizes) <= 4, f"batches of {sizes}"
    store.close()


@check
def rows_that_are_wrong_are_refused_before_any_is_written(factory: OpenStore, folder: Path) -> None:
    """Vectors of another width or with NaN, ids that are no text, metadata that are no scalars."""
    store, good = factory(folder / "store", METADATA), make_rows(3)
    store.upsert(good)
    vector = good[0].vector
    wrong = [
        Row("x", vector[:-1]),
        Row("x", np.append(vector[1:], np.float32(np.nan))),
        Row("", vector),
        Row("x", vector, metadata={"tags": ["a"]}),  # type: ignore[dict-item]
        Row("x", vector, metadata={"id": "y"}),
        Row("x", vector, metadata={"weight": float("inf")}),
    ]
    for row in wrong:
        assert_raises(InputError, store.upsert, [*make_rows(1, salt=9), row])
    assert_holds(store, good)
    store.close()


# --- searching --------------------------------------------------------------------------------------------------------------


@check
def the_best_rows_are_found(factory: OpenStore, folder: Path) -> None:
    """For every k, and no more than there are."""
    store, rows = factory(folder / "store", METADATA), make_rows(300)
    store.upsert(rows)
    for k in (1, 5, 299, 1000):
        assert_finds(store, rows, k=k)
    store.close()


@check
def equal_rows_come_by_id(factory: OpenStore, folder: Path) -> None:
    """So that results do not depend on the order of storing."""
    store, vector = factory(folder / "store", METADATA), make_rows(1)[0].vector
    rows = [Row(f"id {number:02d}", vector) for number in range(20)]
    store.upsert(rows[::-1])
    found = [hit.id for hit in store.search(vector[None], 5, exact=True)[0]]
    assert found == [row.id for row in rows[:5]], f"found {found}"
    store.close()


@check
def queries_that_are_wrong_are_refused(factory: OpenStore, folder: Path) -> None:
    """Another width, one vector without its axis, NaN, k below 1."""
    store = factory(folder / "store", METADATA)
    store.upsert(make_rows(3))
    good = make_queries(1)
    for vectors, k in ((good[:, :-1], 5), (good[0], 5), (np.full((1, DIM), np.nan), 5), (good, 0), (good, -1)):
        assert_raises(InputError, store.search, vectors, k)
    assert store.search(np.zeros((0, DIM)), 5) == [], "search() of no queries gives something"
    assert len(store.search(good.astype(np.float64), 5)[0]) == 3, "search() finds other rows by queries in float64"
    store.close()


FILTERS: tuple[Filter, ...] = (
    Eq("animal", "cat"),
    Eq("year", 2003),
    Eq("year", 2003.0),
    Eq("weight", 1.25),
    Eq("tame", True),
    Eq("tame", 1),
    Eq("year", "2003"),
    Eq("none", "x"),
    Eq("id", "row 4"),
    Eq("text", "text 4 0"),
    Eq("image", "images/3.png"),
    Eq("content_hash", "5-0"),
    In("animal", ("cat", "owl")),
    In("year", ()),
    In("id", ("row 1", "row 2", "none")),
    Range("year", 2002, 2004),
    Range("weight", low=3.5),
    Range("weight", high=2),
    Range("animal", "d", "e"),
    Range("year"),
    Range("image", low="images/5"),
    Range("tame", 0, 1),
    Not(Eq("animal", "cat")),
    Not(Eq("none", 1)),
    And(()),
    And((Eq("animal", "dog"), Range("year", 2001, 2005))),
    Not(And((Not(Eq("animal", "dog")), Not(Eq("tame", True))))),
    And((In("animal", ("dog", "owl")), Not(Range("weight", 2, 6)), Not(Not(Eq("tame", False))))),
)


@check
def filters_let_through_what_they_should(factory: OpenStore, folder: Path) -> None:
    """Each kind over each type, and trees of them."""
    store, rows = factory(folder / "store", METADATA), [*make_rows(40), Row("bare", make_rows(1, 77)[0].vector)]
    store.upsert(rows)
    for filter in FILTERS:
        assert_finds(store, rows, filter, k=50)
    store.close()


@check
def filters_come_before_the_best_are_chosen(factory: OpenStore, folder: Path) -> None:
    """A rare row is found however many better ones the filter keeps out."""
    store, rows = factory(folder / "store", METADATA), make_rows(300)
    query = make_queries(1)[0]
    worst = min(rows, key=lambda row: float(row.vector @ query))
    store.upsert(rows)
    found = [hit.id for hit in store.search(query[None], 1, filter=Eq("id", worst.id))[0]]
    assert found == [worst.id], f"found {found}"
    store.close()


@check
def values_of_filters_are_never_read_as_a_language(factory: OpenStore, folder: Path) -> None:
    """Quotes, comments and operators are text like any other, in values and in names."""
    store, texts = factory(folder / "store", METADATA), ["' OR 1=1 --", 'a"b', "x'; DROP TABLE rows; --", "100%_", "a\\'b", "null", "日本"]
    rows = [Row(f"r{number}", make_rows(1, number)[0].vector, metadata={"t": text, text: 1}) for number, text in enumerate(texts)]
    store.upsert(rows)
    for number, text in enumerate(texts):
        for filter in (Eq("t", text), In("t", (text,)), Eq(text, 1), Range("t", text, text)):
            found = [hit.id for hit in store.search(make_queries(1), 50, filter=filter)[0]]
            assert found == [f"r{number}"], f"{filter} finds {found}"
    store.close()


@check
def what_is_no_filter_is_refused(factory: OpenStore, folder: Path) -> None:
    """Text in a query language above all."""
    store = factory(folder / "store", METADATA)
    store.upsert(make_rows(3))
    wrong: list[Any] = ["year > 2000", ("year", 2000), {"year": 2000}]
    wrong += [kind("year", value) for kind in (Eq, In) for value in (None, [2000], {"low": 1})]  # type: ignore[arg-type]
    wrong += [And("x"), And((None,)), Not(None), Range("tame", low=True), Range("year", high=[1])]  # type: ignore[arg-type]
    for filter in wrong:
        assert_raises(InputError, store.search, make_queries(1), 5, filter=filter)
    store.close()


@check
def optimizing_keeps_results(factory: OpenStore, folder: Path) -> None:
    """After upserts, replacements and deletions, and writing goes on afterwards."""
    store, rows = factory(folder / "store", METADATA), make_rows(200)
    for start in range(0, 200, 50):
        store.upsert(rows[start : start + 50])
    store.upsert(make_rows(20, salt=1))
    store.delete([row.id for row in rows[150:]])
    left = [*make_rows(20, salt=1), *rows[20:150]]
    for _ in range(2):
        store.optimize()
        assert_holds(store, left)
        assert_finds(store, left)
    more = make_rows(5, start=500)
    store.upsert(more)
    assert_holds(store, [*left, *more])
    assert store.verify() == [], f"verify() finds damage: {store.verify()!r:.80}"
    store.close()


@check
def approximate_search_finds_nearly_all(factory: OpenStore, folder: Path) -> None:
    """At least nine in ten of the true first ten, after optimising."""
    store, rows = factory(folder / "store", METADATA), make_rows(2000)
    store.upsert(rows)
    store.optimize()
    exact, fast = (store.search(make_queries(20), 10, exact=exact) for exact in (True, False))
    common = sum(len({hit.id for hit in one} & {hit.id for hit in other}) for one, other in zip(exact, fast, strict=True))
    assert common >= 180, f"finds {common} of the 200 best"
    store.close()


@check
def another_encoder_is_told_by_its_metadata(factory: OpenStore, folder: Path) -> None:
    """What the store was made with is what it says."""
    other = StoreMetadata("other", "other fingerprint", 3)
    store = factory(folder / "store", other)
    assert store.metadata == other, f"its metadata are {store.metadata}, not {other}"
    assert_raises(InputError, store.upsert, make_rows(1))
    store.close()
