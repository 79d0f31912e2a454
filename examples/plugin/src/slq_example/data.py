"""A benchmark, a store and a family of models."""

from pathlib import Path

from slq.benchmarks import Benchmark, BenchmarkData, BenchmarkInfo
from slq.benchmarks.files import refuse
from slq.data import RetrievalSet
from slq.models.families import Family
from slq.testing import MemoryStore
from slq.types import Item

PALIGEMMA = Family(verified=False)  # tried each time it is loaded, until its contract test stands
PROTOCOL = "Two queries over two texts; hit@1."


class SessionStore(MemoryStore):
    """Rows that are gone with the process."""


def load_opposites(data: Path | None, variant: str, prompts: bool, revision: str | None) -> BenchmarkData:
    """Two texts, each the opposite of one query."""
    refuse("opposites", prompts, revision)  # it has neither prompts nor revisions
    corpus, queries = {"cold": Item("cold"), "small": Item("small")}, {"1": Item("hot"), "2": Item("large")}
    one = RetrievalSet("opposites", queries, corpus, {"1": {"cold": 1}, "2": {"small": 1}}, ())
    return BenchmarkData((one,), {}, "sha256:none", {}, PROTOCOL)


OPPOSITES = Benchmark(
    BenchmarkInfo(
        name="opposites",
        title="Opposites",
        shows="whether words are near their opposites",
        protocol=PROTOCOL,
        source="the module itself",
        licence="CC0",
        size="2 queries, 2 texts",
        headline=("hit@1",),
        variants=("test",),
        layout="    DIR/        nothing: the data is in the module",
        local_copy=False,
    ),
    load_opposites,
)
