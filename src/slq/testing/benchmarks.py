"""The contract of a benchmark of `slq.benchmarks`: what it says of itself, and that what it loads can be scored."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from slq.benchmarks.base import Benchmark, BenchmarkData, fault_of_benchmark
from slq.data.retrieval import RetrievalSet
from slq.errors import Failure, InputError
from slq.testing.subject import Subject, shown
from slq.types import Item


def check_benchmark(benchmark: Benchmark, data: Path | None, variant: str | None = None, *, name: str | None = None) -> BenchmarkData:
    """Hold a benchmark to what the evaluation asks of it; a tiny local copy will do.

    Args:
        benchmark: what is tried.
        data: folder of a local copy; None where it needs none.
        variant: one of its variants; None for the first.
        name: that its entry point gives it; None for what `info.name` says. The two must be equal.

    Returns:
        What was loaded, for further checks of your own.

    Raises:
        AssertionError: naming the benchmark, the first promise that does not hold, and what it did.
    """
    told = name or getattr(getattr(benchmark, "info", None), "name", None)
    subject = Subject("benchmark", benchmark, repr(told) if isinstance(told, str) else None)
    subject.must("be given as an object", not isinstance(benchmark, type), "is a class")
    subject.has(benchmark, "info", "load")
    subject.is_free_of(fault_of_benchmark(name or str(told), benchmark))
    info = benchmark.info
    subject.must("name each variant once", len(set(info.variants)) == len(info.variants), f"names {', '.join(info.variants)}")
    odd = [line for line in info.layout.splitlines() if not line.startswith("    DIR/")]
    subject.must("show in info.layout a local copy line by line, each as '    DIR/...'", not odd, f"has {', '.join(map(repr, odd[:2]))}")
    chosen = info.variants[0] if variant is None else variant
    subject.must(f"have the variant that is asked for, {chosen!r}", chosen in info.variants, f"has {', '.join(info.variants)}")
    found = _load(subject, benchmark, data, chosen)
    with subject.trying("load data that can be compared"):
        same = found == _load(subject, benchmark, data, chosen)
    subject.must(
        "load the same data each time (what is random needs a fixed seed)", same, "gave other data: loading twice gives other data"
    )
    _check_data(subject, found)
    _check_prompts(subject, benchmark, data, chosen, found)
    names = [one.name for one in found.sets]
    for average, members in found.averages.items():
        strangers = sorted(set(members) - set(names)) if isinstance(members, tuple) else []
        good = isinstance(members, tuple) and members and not strangers
        subject.must(f"give the average {average!r} as a tuple of names of its sets", good, f"gave {shown(members)}")
    hidden = not any(one.qrels.get(query_id) for one in found.sets for query_id in one.queries)
    for one in found.sets:
        with subject.trying("give sets whose parts are of the types that RetrievalSet says"):
            _check_set(_Checked(subject, one), hidden)
    measured = {f"{metric}@{k}" for one in found.sets for k in one.depths for metric in ("hit", "recall", "map")}
    missing = sorted(set(info.headline) - measured - {"map@r", "mrr", "ndcg@5", "ndcg@10"})
    subject.must("be scored by the metrics of info.headline", not missing, f"names metrics that no set is scored by: {', '.join(missing)}")
    return found


def _load(subject: Subject, benchmark: Benchmark, data: Path | None, variant: str) -> BenchmarkData:
    with subject.trying(f"load its data by load(data, {variant!r}, False, None)"):
        found = benchmark.load(data, variant, False, None)
    subject.must("load BenchmarkData", isinstance(found, BenchmarkData), f"gave {shown(found)}")
    return found


def _check_data(subject: Subject, found: BenchmarkData) -> None:
    """Whether every part is of its type, and the sets have names of their own."""
    revision, protocol = found.revision, found.protocol
    subject.must("name the revision: a commit, or a hash of the annotations", _is_text(revision), f"gave {shown(revision)}")
    subject.must("give the protocol as a sentence", _is_text(protocol) and protocol.endswith("."), f"gave {shown(protocol)}")
    subject.must("put no prompts around items unless asked for", found.prompts == {}, f"gave {shown(found.prompts)}")
    subject.must("give averages as a mapping", isinstance(found.averages, Mapping), f"gave {shown(found.averages)}")
    are_sets = isinstance(found.sets, tuple) and found.sets and all(isinstance(one, RetrievalSet) for one in found.sets)
    subject.must("give its sets as a tuple of RetrievalSet, one at least", are_sets, f"gave {shown(found.sets)}")
    names = [one.name for one in found.sets]
    subject.must("give its sets names of their own", all(map(_is_text, names)) and len(set(names)) == len(names), f"named them {names}")


def _check_prompts(subject: Subject, benchmark: Benchmark, data: Path | None, variant: str, plain: BenchmarkData) -> None:
    """Whether prompts that are asked for are refused, or given as text by role."""
    with subject.trying("put prompts around its items when asked for, or raise InputError where it has none"):
        try:
            found = benchmark.load(data, variant, True, None)
        except InputError:
            return
    templates = isinstance(found.prompts, Mapping) and all(map(_is_text, (*found.prompts, *found.prompts.values())))
    subject.must("give its prompts as a mapping of role -> text", templates, f"gave {shown(found.prompts)}")
    names, others = ([one.name for one in each.sets] for each in (plain, found))
    subject.must("have the same sets with prompts", names == others, f"has {others} instead of {names}")


class _Checked:
    """One set of a benchmark.

    Args:
        subject: the benchmark.
        one: the set.
    """

    def __init__(self, subject: Subject, one: RetrievalSet):
        self.subject, self.one = subject, one

    def must(self, asked: str, wrong: Collection[Any], did: str) -> None:
        """Ask for something of each query, item or value; `wrong` are those that are not so."""
        shown_few = ", ".join(f"{each!r:.80}" for each in list(wrong)[:3])
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        self.subject.must(f"{asked} in the set {self.one.name!r}", not wrong, f"{did}: {shown_few}{more}")


def _check_set(checked: _Checked, hidden: bool) -> None:
    """Every id that a set names is known, and every query has an answer, unless judgements are hidden."""
    one, must = checked.one, checked.must
    for role, items in (("queries", one.queries), ("corpus", one.corpus)):
        checked.subject.must(f"have {role} in the set {one.name!r}", items, f"has no {role}")
        must(f"have texts as ids of the {role}", [id_ for id_ in items if not _is_text(id_)], "has others")
        must(
            f"have an Item with a text or an image for each of the {role}",
            [id_ for id_, item in items.items() if _is_empty(item)],
            "lacks it for",
        )
        must(f"have the image file of each of the {role}, or list it among the failures", _without_file(items), "has no file for")
    depths = one.depths
    rising = isinstance(depths, tuple) and depths and all(isinstance(k, int) and k >= 1 for k in depths) and sorted({*depths}) == [*depths]
    checked.subject.must(f"have rising depths of at least 1 in the set {one.name!r}", rising, f"has depths {depths!r}")
    must("list Failure objects as failures", [each for each in one.failures if not isinstance(each, Failure)], "lists others")
    for role in ("qrels", "categories", "excluded", "candidates", "clusters", "added"):
        must(
            f"name its own queries alone as keys of {role}",
            [id_ for id_ in getattr(one, role) if id_ not in one.queries],
            f"{role} names queries that are not there",
        )
    _check_judgements(checked, hidden)
    _check_candidates(checked)


def _check_judgements(checked: _Checked, hidden: bool) -> None:
    """Qrels cover the queries, and name what is in the corpus or was skipped."""
    one, must = checked.one, checked.must
    known = one.corpus.keys() | {failure.item for failure in one.failures}
    if not hidden:
        must("judge every query in qrels", [id_ for id_ in one.queries if not _answers(one, id_)], "has a query without an answer")
    gains = [gain for judged in one.qrels.values() for gain in judged.values()]
    odd = [gain for gain in gains if isinstance(gain, bool) or not isinstance(gain, int | float) or not 0 <= gain < math.inf]
    must("give relevance as numbers of at least 0", odd, "gave")
    unknown = {query_id: strangers for query_id, judged in one.qrels.items() if (strangers := sorted(judged.keys() - known))}
    must("judge what is in the corpus or among the failures", list(unknown.items()), "judges ids that are in neither (query, ids)")
    for role in ("categories", "clusters"):
        named = getattr(one, role)
        must(f"name {role} by texts", [id_ for id_, value in named.items() if not _is_text(value)], "does not for")


def _check_candidates(checked: _Checked) -> None:
    """What a query is ranked against is in the corpus, with an answer among it."""
    one, must = checked.one, checked.must
    known = one.corpus.keys() | {failure.item for failure in one.failures}
    lists = one.candidates.items()
    must("have candidates that are in the corpus", [id_ for id_, ids in lists if not set(ids) <= one.corpus.keys()], "has others for")
    must("name a candidate once", [id_ for id_, ids in lists if len(set(ids)) < len(ids)], "has one that comes twice for")
    lost = [id_ for id_, ids in lists if (answers := _answers(one, id_) & one.corpus.keys()) and not answers & set(ids)]
    must("have an answer among a query's candidates", lost, "has none for")
    left = one.excluded.items()
    must("exclude sets of ids", [id_ for id_, ids in left if not isinstance(ids, frozenset | set)], "excludes something else for")
    must("exclude what is in the corpus", [id_ for id_, ids in left if not ids <= known], "excludes something else for")
    must("exclude no answer", [id_ for id_, ids in left if ids & _answers(one, id_)], "excludes an answer of")


def _answers(one: RetrievalSet, query_id: str) -> set[str]:
    return {id_ for id_, gain in one.qrels.get(query_id, {}).items() if gain > 0}


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _is_empty(item: object) -> bool:
    return not isinstance(item, Item) or (item.image is None and not _is_text(item.text))


def _without_file(items: Mapping[str, Item]) -> list[str]:
    return [id_ for id_, item in items.items() if isinstance(item.image, Path) and not item.image.is_file()]
