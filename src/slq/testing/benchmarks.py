"""The contract of a benchmark of `slq.benchmarks`: what it says of itself, and that what it loads can be scored."""

from __future__ import annotations

from pathlib import Path

from slq.benchmarks.base import Benchmark, BenchmarkData
from slq.data.retrieval import RetrievalSet


def check_benchmark(benchmark: Benchmark, data: Path | None, variant: str | None = None) -> BenchmarkData:
    """Hold a benchmark to what the evaluation asks of it; a tiny local copy will do.

    Args:
        benchmark: what is tried.
        data: folder of a local copy; None where it needs none.
        variant: one of its variants; None for the first.

    Returns:
        What was loaded, for further checks of your own.

    Raises:
        AssertionError: naming the first promise that does not hold.
    """
    info = benchmark.info
    for name in ("name", "title", "shows", "protocol", "source", "licence", "size", "headline", "variants", "layout"):
        assert getattr(info, name), f"info.{name} is empty"
    assert len(set(info.variants)) == len(info.variants), f"a variant comes twice: {info.variants}"
    variant = info.variants[0] if variant is None else variant
    found = benchmark.load(data, variant, False, None)
    assert found == benchmark.load(data, variant, False, None), "loading twice gives other data: what is random needs a fixed seed"
    assert found.revision, "the revision is empty: name the commit, or a hash of the annotations"
    assert found.protocol.endswith("."), f"the protocol is not a sentence: {found.protocol!r}"
    assert not found.prompts, "prompts are put around items though none were asked for"
    names = [one.name for one in found.sets]
    assert names and len(set(names)) == len(names), f"sets need names of their own: {names}"
    for average, members in found.averages.items():
        assert members and set(members) <= set(names), f"the average {average!r} is of sets that are not there: {members}"
    hidden = not any(one.qrels.get(query_id) for one in found.sets for query_id in one.queries)
    for one in found.sets:
        _check_set(one, hidden)
    measured = {f"hit@{k}" for one in found.sets for k in one.depths} | {f"recall@{k}" for one in found.sets for k in one.depths}
    missing = set(info.headline) - measured - {"mrr", "ndcg@10"}
    assert not missing, f"info.headline names metrics that no set is scored by: {', '.join(sorted(missing))}"
    return found


def _check_set(one: RetrievalSet, hidden: bool) -> None:
    """Every id that a set names is known, and every query has an answer, unless judgements are hidden."""
    assert one.queries and one.corpus, f"{one.name!r} has no queries or no corpus"
    assert one.depths and min(one.depths) >= 1 and sorted(set(one.depths)) == list(one.depths), f"{one.name!r}: depths {one.depths}"
    lost = {failure.item for failure in one.failures}
    known = one.corpus.keys() | lost
    for query_id in one.queries:
        answers = [id_ for id_, gain in one.qrels.get(query_id, {}).items() if gain > 0]
        assert hidden or answers, f"{one.name!r}: the query {query_id!r} has no answer"
        unknown = set(answers) - known
        assert not unknown, (
            f"{one.name!r}: the query {query_id!r} is answered by {sorted(unknown)}, neither in the corpus nor among the failures"
        )
    for role in ("qrels", "categories", "excluded", "candidates", "clusters"):
        strangers = getattr(one, role).keys() - one.queries.keys()
        assert not strangers, f"{one.name!r}: {role} names queries that are not there: {sorted(strangers)[:3]}"
    for query_id, ids in one.candidates.items():
        assert set(ids) <= one.corpus.keys(), f"{one.name!r}: candidates of {query_id!r} are not in the corpus"
        assert len(set(ids)) == len(ids), f"{one.name!r}: a candidate of {query_id!r} comes twice"
    for query_id, left in one.excluded.items():
        assert left <= known, f"{one.name!r}: what is excluded for {query_id!r} is not in the corpus"
        assert not left & {id_ for id_, gain in one.qrels.get(query_id, {}).items() if gain > 0}, (
            f"{one.name!r}: an answer of {query_id!r} is excluded"
        )
