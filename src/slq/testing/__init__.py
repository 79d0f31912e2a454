"""Contracts of the seams, for authors of plugins and for our own tests: each check raises AssertionError that says what does not hold."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from slq.testing.benchmarks import check_benchmark
    from slq.testing.families import check_family
    from slq.testing.stores import MemoryStore, check_store, contract_of_stores
    from slq.testing.training import check_loss, check_pooling

__all__ = ["MemoryStore", "check_benchmark", "check_family", "check_loss", "check_pooling", "check_store", "contract_of_stores"]
_HOMES = {"check_benchmark": "benchmarks", "check_family": "families", "check_loss": "training", "check_pooling": "training"}


def __getattr__(name: str) -> Any:
    """Import a contract when it is asked for: some need torch, and the processes that stores are tried with do not."""
    from importlib import import_module

    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES.get(name, 'stores')}"), name)
