"""1,000 queries ranked against a corpus of 1,000,000 vectors of 896 numbers on disk: seconds, and how much memory that takes.

    python -m research.bench.scoring

Writes research/results/scoring.json. The vectors are random and of length 1, each query's answer is drawn; the corpus (3.6 GB) is written
to --scratch in blocks and mapped, as a large index would be. The matrix of all scores alone would take 4 GB. hit@k must be that of chance.
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from research.bench.measuring import console, write_result
from slq.evaluation.metrics import RelevantRanks, from_ranks
from slq.evaluation.ranking import BLOCK_BYTES, rank

WRITTEN_AT_ONCE = 20_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--queries", type=int, default=1000)
    parser.add_argument("--corpus", type=int, default=1_000_000)
    parser.add_argument("--dim", type=int, default=896)
    parser.add_argument("--block-mb", type=int, default=BLOCK_BYTES >> 20)
    parser.add_argument("--scratch", type=Path, help="folder for the corpus; default: the system's")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
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
    result = {
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
    import slq.models  # noqa: F401  lets torch and torchvision of different builds meet, before sentence-transformers says its version

    write_result("scoring", result, sys.argv, options.seed)


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
