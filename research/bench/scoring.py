"""Ranking and searching among many vectors of 896 numbers: time, and how much memory that takes.

    python -m research.bench.scoring

Writes research/results/scoring.json. The vectors are random and of length 1.

ranking: 1,000 queries against 1,000,000 vectors on disk, each query's answer drawn. The corpus (3.6 GB) is written to --scratch in blocks
and mapped, as a large index would be. The matrix of all scores alone would take 4 GB. hit@k must be that of chance.

search: the 10 best of 100,000 vectors in memory, for one query and for 32 together, as `slq search` and `ExactStore` find them, beside a
plain sort of all scores, whose results they must have. The ways take turns.
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from research.bench.measuring import console, statistics_of, timed_in_turns, write_result
from slq.evaluation.metrics import RelevantRanks, from_ranks
from slq.evaluation.ranking import BLOCK_BYTES, rank
from slq.index import Row, StoreMetadata, search
from slq.index.exact import ExactStore
from slq.types import Embeddings

WRITTEN_AT_ONCE = 20_000
K, TOGETHER = 10, 32


def main() -> None:
    """Measure both, or one of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--queries", type=int, default=1000)
    parser.add_argument("--corpus", type=int, default=1_000_000)
    parser.add_argument("--dim", type=int, default=896)
    parser.add_argument("--block-mb", type=int, default=BLOCK_BYTES >> 20)
    parser.add_argument("--scratch", type=Path, help="folder for the corpus; default: the system's")
    parser.add_argument("--rows", type=int, default=100_000, help="that are searched")
    parser.add_argument("--repeats", type=int, default=15, help="of each way to search")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    import slq.models  # noqa: F401  lets torch and torchvision of different builds meet, before sentence-transformers says its version

    result = {"ranking": ranked(options), "search": searched(options)}
    write_result("scoring", result, sys.argv, options.seed)


def ranked(options: argparse.Namespace) -> dict:
    """Ranking a corpus on disk."""
    generator = np.random.default_rng(options.seed)
    with tempfile.TemporaryDirectory(dir=options.scratch) as scratch:
        console.print("writing the corpus")
        corpus = written(Path(scratch) / "corpus.npy", options.corpus, options.dim, generator)
        queries = unit(options.queries, options.dim, generator)
        relevant = [{int(place): 1} for place in generator.integers(0, options.corpus, options.queries)]
        before = peak_mb()
        console.print("ranking")
        clock = time.perf_counter()
        rankings = rank(queries, corpus, relevant, block_bytes=options.block_mb << 20)
        seconds = time.perf_counter() - clock
    metrics = from_ranks([RelevantRanks(one.ranks_R, np.ones(1)) for one in rankings], (1, 10, 1000), [options.corpus] * options.queries)
    return {
        "seconds": round(seconds, 1),
        "peak_rss_mb": {"before": before, "after": peak_mb()},
        "block_mb": options.block_mb,
        "matrix_of_scores_mb": options.queries * options.corpus * 4 >> 20,
        "corpus_mb": corpus.nbytes >> 20,
        "queries": options.queries,
        "corpus": options.corpus,
        "dim": options.dim,
        "median_rank_over_corpus": round(float(np.median([one.ranks_R[0] for one in rankings])) / options.corpus, 4),
        "hit@1000": metrics["hit@1000"],
        "random_hit@1000": metrics["random_hit@1000"],
    }


def searched(options: argparse.Namespace) -> dict:
    """Searching a corpus in memory, in every way that finds the same."""
    generator = np.random.default_rng(options.seed)
    vectors, queries = unit(options.rows, options.dim, generator), unit(TOGETHER, options.dim, generator)
    ids = tuple(f"{number:07d}" for number in range(options.rows))
    corpus = Embeddings(ids, vectors)
    with tempfile.TemporaryDirectory(dir=options.scratch) as scratch:
        store = ExactStore(Path(scratch) / "store", StoreMetadata("random", "none", options.dim))
        for begin in range(0, options.rows, WRITTEN_AT_ONCE):
            part = slice(begin, begin + WRITTEN_AT_ONCE)
            store.upsert([Row(id_, vector) for id_, vector in zip(ids[part], vectors[part], strict=True)])
        ways: dict[str, Callable[[], list[list[str]]]] = {
            "plain sort": lambda: [sorted_plainly(query, vectors, ids) for query in queries[:1]],
            "search": lambda: found(search(corpus, Embeddings(ids[:1], queries[:1]), K)),
            "search, float64 query": lambda: found(search(corpus, Embeddings(ids[:1], queries[:1].astype(np.float64)), K)),
            "ExactStore": lambda: found(store.search(queries[:1], K)),
            f"plain sort, {TOGETHER} queries": lambda: [sorted_plainly(query, vectors, ids) for query in queries],
            f"search, {TOGETHER} queries": lambda: found(search(corpus, Embeddings(ids[:TOGETHER], queries), K)),
            f"ExactStore, {TOGETHER} queries": lambda: found(store.search(queries, K)),
        }
        results = {way: run() for way, run in ways.items()}
        wanted = results[f"plain sort, {TOGETHER} queries"]
        assert all(result == wanted[: len(result)] for result in results.values()), "the ways find different rows"
        seconds = timed_in_turns(ways, torch.device("cpu"), options.repeats)
        megabytes = {way: allocated_mb(run) for way, run in ways.items()}
        store.close()
    milliseconds = {way: statistics_of([1000 * one for one in each]) for way, each in seconds.items()}
    return {"rows": options.rows, "dim": options.dim, "k": K, "milliseconds": milliseconds, "memory_in_addition_mb": megabytes}


def found(results: list) -> list[list[str]]:
    return [[hit.id for hit in hits] for hits in results]


def sorted_plainly(query: np.ndarray, vectors: np.ndarray, ids: tuple[str, ...]) -> list[str]:
    """All scores, the larger first, equal ones in the order of the ids, which is that of the vectors."""
    return [ids[place] for place in np.argsort(-(vectors @ query), kind="stable")[:K]]


def allocated_mb(run: Callable[[], object]) -> float:
    """The most memory that a call holds in addition to what was there."""
    tracemalloc.start()
    run()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return round(peak / 2**20, 1)


def written(path: Path, count: int, dim: int, generator: np.random.Generator) -> np.ndarray:
    """A file of vectors of length 1, written block by block, mapped."""
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": (count, dim)})
        for begin in range(0, count, WRITTEN_AT_ONCE):
            file.write(unit(min(WRITTEN_AT_ONCE, count - begin), dim, generator).tobytes())
    return np.load(path, mmap_mode="r")


def unit(count: int, dim: int, generator: np.random.Generator) -> np.ndarray:
    vectors = generator.standard_normal((count, dim), dtype=np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def peak_mb() -> int:
    """The most memory this process has held so far, libraries included."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10


if __name__ == "__main__":
    main()
