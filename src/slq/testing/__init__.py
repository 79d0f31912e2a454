"""Contracts of the seams, for authors of plugins and for our own tests: each check raises AssertionError that says what does not hold.

check_loss(Loss)            a loss class, made with its defaults
check_pooling(Pooling)      a pooling class
check_benchmark(benchmark)  a benchmark, over a local copy or what it makes itself
check_store(factory)        a store class, or a function of a module that can be imported: other processes make stores too
check_family(family)        a row of families
MemoryStore                 a store that remembers nothing; what is not durable can build on it
"""

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
