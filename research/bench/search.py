"""Searching among 100,000 vectors of 896 numbers in memory: CPU time and memory, for one query and for 32 together.

    python -m research.bench.search

As `slq search` and `ExactStore` find the 10 best, beside a plain sort of all scores, whose results they must have. The vectors are random
and of length 1. The ways take turns. Writes research/results/search.json.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
from rich.progress import track

from research.bench.measuring import console, statistics_of, write_result
from research.bench.scoring import WRITTEN_AT_ONCE, unit
from slq.index import Hit, Row, StoreMetadata, search
from slq.index.exact import ExactStore
from slq.types import Embeddings

K, TOGETHER = 10, 32
Way = Callable[[], list[list[str]]]


def main() -> None:
    """Measure every way, after a look at whether they find the same."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--dim", type=int, default=896)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--scratch", type=Path, help="folder for the store; default: the system's")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    generator = np.random.default_rng(options.seed)
    vectors, queries = unit(options.rows, options.dim, generator), unit(TOGETHER, options.dim, generator)
    ids = tuple(f"{number:07d}" for number in range(options.rows))
    with tempfile.TemporaryDirectory(dir=options.scratch) as scratch:
        console.print("storing the vectors")
        store = ExactStore(Path(scratch) / "store", StoreMetadata("random", "none", options.dim))
        for begin in range(0, options.rows, WRITTEN_AT_ONCE):
            part = slice(begin, begin + WRITTEN_AT_ONCE)
            store.upsert([Row(id_, vector) for id_, vector in zip(ids[part], vectors[part], strict=True)])
        ways = all_ways(Embeddings(ids, vectors), store, queries)
        wanted = ways[f"plain sort, {TOGETHER} queries"]()
        different = [way for way, run in ways.items() if (found := run()) != wanted[: len(found)]]
        assert not different, f"{different[0]} finds other rows than the plain sort"
        seconds: dict[str, list[float]] = {way: [] for way in ways}
        for _ in track(range(options.repeats), "turns", console=console):
            for way, run in ways.items():
                started = time.process_time()
                run()
                seconds[way].append(time.process_time() - started)
        memory = {way: allocated_mb(run) for way, run in ways.items()}
        store.close()
    result = {
        "cpu_milliseconds": {way: statistics_of([1000 * one for one in each]) for way, each in seconds.items()},
        "memory_in_addition_mb": memory,
        "vectors_mb": vectors.nbytes >> 20,
        "rows": options.rows,
        "dim": options.dim,
        "k": K,
    }
    import slq.models  # noqa: F401  lets torch and torchvision of different builds meet, before sentence-transformers says its version

    write_result("search", result, sys.argv, options.seed)


def all_ways(corpus: Embeddings, store: ExactStore, queries: np.ndarray) -> dict[str, Way]:
    """Each gives the ids of the best for its queries."""

    def sort(some: np.ndarray) -> list[list[str]]:
        """All scores, the larger first, equal ones in the order of the ids, which is that of the vectors."""
        return [[corpus.ids[place] for place in np.argsort(-(corpus.vectors @ query), kind="stable")[:K]] for query in some]

    def export(some: np.ndarray) -> list[list[str]]:
        return ids_of(search(corpus, Embeddings(corpus.ids[: len(some)], some), K))

    one, double = queries[:1], queries[:1].astype(np.float64)
    return {
        "plain sort": lambda: sort(one),
        "slq search": lambda: export(one),
        "slq search, query in float64": lambda: export(double),
        "ExactStore": lambda: ids_of(store.search(one, K)),
        f"plain sort, {TOGETHER} queries": lambda: sort(queries),
        f"slq search, {TOGETHER} queries": lambda: export(queries),
        f"ExactStore, {TOGETHER} queries": lambda: ids_of(store.search(queries, K)),
    }


def ids_of(results: list[list[Hit]]) -> list[list[str]]:
    return [[hit.id for hit in hits] for hits in results]


def allocated_mb(run: Way) -> float:
    """The most memory that a call holds in addition to what was there."""
    tracemalloc.start()
    run()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return round(peak / 2**20, 1)


if __name__ == "__main__":
    main()
