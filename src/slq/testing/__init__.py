"""Contracts of the seams, for authors of plugins and for our own tests.

Each check raises an AssertionError that names the plugin, what is asked of it, and what it did.

check_loss(Loss)             a loss class, made with its defaults
check_pooling(Pooling)       a pooling class
check_method(method, model)  a training method, on a small model
check_family(model)          a row of families, by a model that was loaded with it
check_benchmark(benchmark, data)  a benchmark, over a local copy or what it makes itself
check_store(Store)           a store class, or a function of a module that can be imported: other processes make stores too
MemoryStore                  a store that remembers nothing; what is not durable can build on it
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from slq.testing.benchmarks import check_benchmark
    from slq.testing.families import check_family
    from slq.testing.methods import check_method
    from slq.testing.stores import MemoryStore, check_store, contract_of_stores
    from slq.testing.training import check_loss, check_pooling

__all__ = [
    "MemoryStore",
    "check_benchmark",
    "check_family",
    "check_loss",
    "check_method",
    "check_pooling",
    "check_store",
    "contract_of_stores",
]
_HOMES = {
    "check_benchmark": "benchmarks",
    "check_family": "families",
    "check_loss": "training",
    "check_method": "methods",
    "check_pooling": "training",
}


def __getattr__(name: str) -> Any:
    """Import a contract when it is asked for: some need torch, and the processes that stores are tried with do not."""
    from importlib import import_module

    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES.get(name, 'stores')}"), name)
