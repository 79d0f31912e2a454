"""Every store keeps the contract of slq.index.store; what the contract itself must catch is in test_store_contract.py."""

from __future__ import annotations

import sys
from importlib.util import find_spec

import numpy as np
import pytest

from slq.errors import InputError, MissingExtraError, StoreError
from slq.index.exact import ExactStore
from slq.index.lance import LanceStore
from slq.index.store import Row, StoreMetadata, open_store, stores
from slq.testing import MemoryStore, contract_of_stores

PROCESS, LIGHT = pytest.mark.process, contract_of_stores(durable=False)
NAMES = [pytest.param(name, marks=() if name in LIGHT else PROCESS) for name in contract_of_stores()]
needs_lancedb = pytest.mark.skipif(find_spec("lancedb") is None, reason='LanceDB is not installed: pip install "slq[lance]"')


@pytest.mark.parametrize("name", NAMES)
def test_exact(name, tmp_path):
    contract_of_stores()[name](ExactStore, tmp_path)


@needs_lancedb
@pytest.mark.parametrize("name", NAMES)
def test_lance(name, tmp_path):
    from lance_at_once import LanceStoreAtOnce

    contract_of_stores()[name](LanceStoreAtOnce, tmp_path)


@pytest.mark.parametrize("name", LIGHT)
def test_memory(name, tmp_path):
    LIGHT[name](MemoryStore, tmp_path)


@pytest.mark.parametrize("kind", ["exact", pytest.param("lance", marks=needs_lancedb)])
def test_a_kind_of_store_is_found_by_its_name(kind, tmp_path):
    store = open_store(f"{kind}:{tmp_path / 'index'}", StoreMetadata("adapter", "f", 2))
    store.upsert([Row("a", np.array([1, 0], np.float32))])
    assert len(open_store(f"{kind}:{tmp_path / 'index'}")) == 1 and kind in stores.names()
    store.close()


def test_without_lancedb_the_extra_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "lancedb", None)
    assert "lance" in stores.names() and stores.get("lance") is LanceStore
    with pytest.raises(MissingExtraError, match=r'needs LanceDB; run: pip install "slq\[lance\]"'):
        open_store(f"lance:{tmp_path / 's'}", StoreMetadata("adapter", "f", 2))
    assert not list(tmp_path.iterdir())


def test_a_store_is_opened_by_its_address(tmp_path):
    metadata = StoreMetadata("adapter", "f", 2)
    open_store(f"exact:{tmp_path / 'index'}", metadata).upsert([Row("a", np.array([1, 0], np.float32))])
    assert len(open_store(f"exact:{tmp_path / 'index'}")) == 1 and "exact" in stores.names()
    for address in ("index", "exact:", ""):
        with pytest.raises(InputError, match="is not the address of a store; write its kind and its folder, such as exact:my-index"):
            open_store(address)
    with pytest.raises(InputError, match=r"Unknown name 'exat' in slq\.stores: .* Did you mean 'exact'\?"):
        open_store("exat:index")
    with pytest.raises(StoreError, match=r"There is no store in \S+none"):
        open_store(f"exact:{tmp_path / 'none'}")
