"""One's own data in BEIR layout as a benchmark."""

from __future__ import annotations

from pathlib import Path

from slq.benchmarks.base import Benchmark, BenchmarkData, BenchmarkInfo
from slq.benchmarks.files import digest, refuse
from slq.data.beir import beir_files, read_beir
from slq.errors import DataError


def load_beir(data: Path | None, variant: str, prompts: bool, revision: str | None) -> BenchmarkData:
    """One's own data in BEIR layout; the variant is the split; see `Load`."""
    refuse("beir", prompts, revision)
    if data is None:
        raise DataError("'beir' is for data of your own; give the folder that holds corpus.jsonl, queries.jsonl and qrels/")
    one = read_beir(data, variant)
    protocol = f"BEIR layout, {data.resolve().name}, split {variant}, {len(one.queries):,} queries over {len(one.corpus):,} items."
    protocol = " ".join([protocol, *[f"{note}." for note in one.notes]])
    return BenchmarkData((one,), {}, digest(beir_files(data, variant)), {}, protocol)


BEIR = Benchmark(
    BenchmarkInfo(
        name="beir",
        title="Your own data",
        shows="what matters to you",
        protocol="every judged query over the whole corpus; the variant is the split; `category`, `cluster`, `excluded` and `candidates` "
        "are kept to, and a query does not find itself.",
        source="your own folder in BEIR layout",
        licence="yours",
        size="any",
        headline=("hit@1", "hit@5", "hit@10"),
        variants=("test", "dev", "train"),
        layout=(
            "    DIR/corpus.jsonl          _id, text, title, image (a path relative to DIR); or .parquet, with images in it\n"
            "    DIR/queries.jsonl         _id, text, image, category, cluster, excluded and candidates (lists of corpus ids)\n"
            "    DIR/qrels/test.tsv        query-id, corpus-id, score; or TREC's four columns, or .json, .jsonl, .parquet"
        ),
    ),
    load=load_beir,
)
