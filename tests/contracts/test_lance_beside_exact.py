"""LanceStore and ExactStore side by side, through any sequence of calls: the same rows, the same hits in the same order."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from slq.index.exact import ExactStore
from slq.index.filters import And, Eq, In, Not, Range
from slq.index.lance import LanceStore
from slq.index.store import Row, StoreMetadata
from slq.testing.stores import assert_same

DIM = 4
METADATA = StoreMetadata("adapter", "fingerprint", DIM)
IDS = ["a", "b", "a'b", 'x" or 1=1 --', "日本", "\udcff.png", "\x00", "z\\"]
NAMES = ["price", "kind", "it's", "a.b"]
TEXTS = ["cat", "dog", "' OR 1=1 --", "\ud800", "é"]
NUMBERS = [0, -0.0, 1, 1.0, 2.5, -3, 2**53 + 1, float(2**53), -(2**63), 1e-300]
scalars = st.sampled_from([*TEXTS, *NUMBERS, True, False])
# Few directions, so that many scores are equal.
vectors = st.lists(st.sampled_from([-1.0, 0.0, 0.5, 1.0]), min_size=DIM, max_size=DIM).map(lambda values: np.array(values, np.float32))
rows = st.builds(
    Row,
    st.sampled_from(IDS),
    vectors,
    st.none() | st.sampled_from(TEXTS),
    st.none() | st.sampled_from(IDS),
    st.dictionaries(st.sampled_from(NAMES), scalars, max_size=3),
    st.sampled_from(["", "1", "2"]),
)
fields = st.sampled_from([*NAMES, "id", "text", "image", "content_hash"])
bounds = st.none() | st.sampled_from([*TEXTS, *NUMBERS])
filters = st.recursive(
    st.builds(Eq, fields, scalars)
    | st.builds(In, fields, st.lists(scalars, max_size=3).map(tuple))
    | st.builds(Range, fields, bounds, bounds),
    lambda inner: st.builds(Not, inner) | st.builds(And, st.lists(inner, max_size=3).map(tuple)),
    max_leaves=5,
)
some_ids = st.lists(st.sampled_from(IDS), max_size=4)


class Indexed(LanceStore):
    """Uses its index from the first rows on."""

    exact_rows = 2


class SideBySide(RuleBasedStateMachine):
    """Every call on both stores, and a third that only reads."""

    kind: type[LanceStore] = LanceStore

    def __init__(self):
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.exact = ExactStore(self.folder / "exact", METADATA)
        self.lance = self.kind(self.folder / "lance", METADATA)
        self.reader = self.kind(self.folder / "lance")

    @rule(rows=st.lists(rows, max_size=6))
    def upsert(self, rows):
        self.exact.upsert(rows)
        self.lance.upsert(rows)

    @rule(ids=some_ids)
    def delete(self, ids):
        assert self.lance.delete(ids) == self.exact.delete(ids)

    @rule(ids=some_ids)
    def get(self, ids):
        found, wanted = self.reader.get(ids), self.exact.get(ids)
        assert [row.id for row in found] == [row.id for row in wanted]
        for one, other in zip(found, wanted, strict=True):
            assert_same(one, other)

    @rule(query=vectors, k=st.integers(1, 9), filter=st.none() | filters, exact=st.booleans())
    def search(self, query, k, filter, exact):
        wanted = self.exact.search(query[None], k, filter=filter)
        assert self.lance.search(query[None], k, filter=filter, exact=exact) == wanted
        assert self.reader.search(query[None], k, filter=filter, exact=exact) == wanted

    @rule()
    def optimize(self):
        self.lance.optimize()

    @rule()
    def open_again(self):
        self.lance.close()
        self.lance = self.kind(self.folder / "lance", METADATA)

    @invariant()
    def as_many_rows(self):
        assert len(self.lance) == len(self.reader) == len(self.exact)

    def teardown(self):
        wanted = {row.id: row for batch in self.exact.scan() for row in batch}
        found = {row.id: row for batch in self.reader.scan(3) for row in batch}
        assert found.keys() == wanted.keys()
        for id_, row in found.items():
            assert_same(row, wanted[id_])
        assert self.lance.verify() == []
        for store in (self.exact, self.lance, self.reader):
            store.close()
        shutil.rmtree(self.folder)


class SideBySideIndexed(SideBySide):
    """The same with an index."""

    kind = Indexed


@pytest.mark.slow
@pytest.mark.parametrize("machine", [SideBySide, SideBySideIndexed])
@pytest.mark.parametrize("examples", [6, pytest.param(50, marks=pytest.mark.research)])
def test_any_sequence_of_calls(examples, machine):
    chosen = settings(max_examples=examples, stateful_step_count=20, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    run_state_machine_as_test(machine, settings=chosen)


@pytest.mark.parametrize("machine", [SideBySide, SideBySideIndexed])
def test_one_short_sequence_of_calls(machine):
    both = machine()
    both.upsert([Row(id_, np.eye(DIM, dtype=np.float32)[place % DIM], "cat", None, {"price": place}) for place, id_ in enumerate(IDS)])
    both.optimize()
    assert both.lance._table.is_indexed == (machine is SideBySideIndexed)
    both.upsert([Row("a", np.ones(DIM, np.float32), metadata={"price": 2**53 + 1}), Row("b", np.ones(DIM, np.float32))])
    both.delete(["z\\", "nobody"])
    for filter in (
        None,
        Range("price", 1, 4),
        Eq("id", "a'b"),
        Not(Range("price", high=2)),
        Range("price", high=2**53),
        Not(Range("price", 0, 2**53)),
    ):
        both.search(np.array([1, 0.5, 0, 0], np.float32), 5, filter, False)
    both.open_again()
    both.get(["\udcff.png", "a", "z\\"])
    both.as_many_rows()
    both.teardown()
