"""One's own data in BEIR layout as a benchmark."""

from __future__ import annotations

from pathlib import Path

from slq.benchmarks.base import Benchmark, BenchmarkData, BenchmarkInfo
from slq.benchmarks.files import digest, refuse
from slq.data.beir import read_beir
from slq.errors import DataError


def load_beir(data: Path | None, variant: str, prompts: bool, revision: str | None) -> BenchmarkData:
    """One's own data in BEIR layout; the variant is the split; see `Load`."""
    refuse("beir", prompts, revision)
    if data is None:
        raise DataError("'beir' is for data of your own; give the folder that holds corpus.jsonl, queries.jsonl and qrels/")
    one = read_beir(data, variant)
    read = [data / "corpus.jsonl", data / "queries.jsonl", data / "qrels" / f"{variant}.tsv"]
    protocol = f"BEIR layout, {data.resolve().name}, split {variant}, {len(one.queries):,} queries over {len(one.corpus):,} items."
    return BenchmarkData((one,), {}, digest(read), {}, protocol)


BEIR = Benchmark(
    BenchmarkInfo(
        name="beir",
        title="Your own data",
        shows="what matters to you",
        protocol="every judged query over the whole corpus; the variant is the split; `category`, `cluster` and `excluded` are kept to.",
        source="your own folder in BEIR layout",
        licence="yours",
        size="any",
        headline=("hit@1", "hit@5", "hit@10"),
        variants=("test", "dev", "train"),
        layout=(
            "    DIR/corpus.jsonl          _id, text, title, image (a path relative to DIR)\n"
            "    DIR/queries.jsonl         _id, text, image, category, cluster, excluded (a list of corpus ids)\n"
            "    DIR/qrels/test.tsv        query-id, corpus-id, score"
        ),
    ),
    load=load_beir,
)
