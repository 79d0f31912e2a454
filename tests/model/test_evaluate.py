"""Evaluation by category, with masks and candidates, on directions in a plane, so that every rank is known beforehand.

Mistakes in the data itself (lost images, broken rows) are in test_bad_input.py.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor

from slq.data import RetrievalSet
from slq.encoders.base import Encoder
from slq.evaluation import Evaluation, evaluate, first_positions, to_dict
from slq.models import FrozenModel, PreparedBatch
from slq.pooling import MeanPooling
from slq.training.mining import mine
from slq.types import Item, Pair

CORPUS = tuple(str(degrees) for degrees in range(0, 120, 10))
QUERY = "-1"  # ranks the corpus in its order: "0" first, "110" last
AVERAGED = ("hit@1", "hit@5", "hit@10", "recall@5", "mrr", "ndcg@10")


class Compass(Encoder):
    """Embeds a text, a number of degrees, as that direction; the image of an item is only checked."""

    fingerprint, pooling = "compass", MeanPooling()

    def __init__(self, model: FrozenModel):
        self.model = model

    def describe(self) -> dict[str, str]:
        return {"kind": self.fingerprint}

    def states_of(self, prepared: PreparedBatch) -> Tensor:
        vectors_BD = torch.zeros(len(prepared), self.model.dim)
        for row, words in enumerate(self.model.processor.tokenizer.batch_decode(prepared.inputs["input_ids"])):
            angle = math.radians(float("".join(re.findall(r"[-\d]", words))))
            vectors_BD[row, :2] = torch.tensor([math.cos(angle), math.sin(angle)])
        return vectors_BD[:, None]


@pytest.fixture(scope="module")
def compass(model: FrozenModel) -> Compass:
    return Compass(model)


def asked(
    answers: Mapping[str, str], categories: Mapping[str, str] | None = None, excluded: Mapping[str, Sequence[str]] | None = None
) -> RetrievalSet:
    """A set of queries that each rank `CORPUS` in its order, and have one answer."""
    return RetrievalSet(
        name="degrees",
        queries={query_id: Item(QUERY) for query_id in answers},
        corpus={degrees: Item(degrees) for degrees in CORPUS},
        qrels={query_id: {answer: 1} for query_id, answer in answers.items()},
        failures=(),
        categories=categories or {},
        excluded={query_id: frozenset(ids) for query_id, ids in (excluded or {}).items()},
    )


def score(encoder: Encoder, one: RetrievalSet) -> Evaluation:
    (result,) = evaluate(encoder, [one], top_k=1000)  # all that are ranked
    return result


def unranked(result: Evaluation) -> dict[str, list[str]]:
    return {query.id: [id_ for id_ in CORPUS if id_ not in dict(query.top_k)] for query in result.queries}


# Ranks: cat 1, dog 4, saw 2, axe 8, awl 12, and 1 for the one without a category.
ANSWERS = {"saw": "10", "cat": "0", "dog": "30", "odd": "0", "axe": "70", "awl": "110"}
CATEGORIES = {"saw": "tools", "cat": "animals", "dog": "animals", "axe": "tools", "awl": "tools"}


def test_each_category_has_the_scores_of_its_queries(compass):
    result = score(compass, asked(ANSWERS, CATEGORIES))
    assert list(result.by_category) == ["animals", "tools"]
    animals, tools = result.by_category.values()
    assert [animals[name] for name in ("hit@1", "hit@5", "hit@10", "mrr")] == pytest.approx([1 / 2, 1, 1, (1 + 1 / 4) / 2])
    assert [tools[name] for name in ("hit@1", "hit@5", "hit@10", "mrr")] == pytest.approx([0, 1 / 3, 2 / 3, (1 / 2 + 1 / 8 + 1 / 12) / 3])
    assert (animals["queries"], tools["queries"], result.metrics["queries"]) == (2, 3, 6)
    assert animals["num_candidates"] == tools["num_candidates"] == 12
    assert animals.keys() == tools.keys() == result.metrics.keys()
    assert result.metrics["hit@1"] == pytest.approx(2 / 6), "a query without a category counts in the whole"


def test_results_files_hold_the_categories_where_there_are_any(compass):
    result = score(compass, asked(ANSWERS, CATEGORIES))
    sure = {"ci95": {name: list(ends) for name, ends in result.ci95.items()}, "clusters": 6, "truncated": 0}
    by_category = {
        name: {**metrics, "ci95": {metric: list(ends) for metric, ends in result.ci95_by_category[name].items()}}
        for name, metrics in result.by_category.items()
    }
    low, high = by_category["tools"]["ci95"]["hit@5"]
    assert low < by_category["tools"]["hit@5"] < high and by_category["animals"]["ci95"]["hit@10"][1] == 1
    assert to_dict([result])["degrees"] == {**result.metrics, **sure, "by_category": by_category, "failures": []}
    plain = score(compass, asked(ANSWERS))
    assert plain.by_category == {}
    assert to_dict([plain])["degrees"] == {**result.metrics, **sure, "failures": []}


def test_a_category_without_any_answer_has_no_scores(compass):
    one = asked({"a": "0", "b": "0"}, {"a": "near", "b": "nowhere"})
    found = score(compass, replace(one, qrels={"a": {"0": 1}, "b": {"0": 0}}))
    assert set(found.by_category) == {"near"}


def test_categories_belong_to_their_set(compass):
    first, second = asked({"cat": "0"}, {"cat": "animals"}), asked({"cat": "10"}, {"cat": "pets"})
    results = evaluate(compass, [first, second])
    assert [{name: found["mrr"] for name, found in result.by_category.items()} for result in results] == [{"animals": 1}, {"pets": 0.5}]


@pytest.mark.parametrize(
    "excluded", [{}, {"dog": ["0", "10"], "axe": ["70"]}, {key: ["20"] for key in ANSWERS}], ids=["none", "some", "all"]
)
def test_the_whole_is_the_mean_of_the_categories_weighted_by_their_queries(compass, excluded):
    result = score(compass, asked(ANSWERS, {**CATEGORIES, "odd": "none of them"}, excluded))
    parts = result.by_category.values()
    assert len(parts) == 3 and sum(part["queries"] for part in parts) == result.metrics["queries"] == 6
    for name in AVERAGED:
        assert result.metrics[name] == pytest.approx(sum(part[name] * part["queries"] for part in parts) / 6), name


def test_what_is_excluded_is_not_ranked(compass):
    plain = score(compass, asked({"q": "20"}))
    assert (plain.metrics["hit@1"], plain.metrics["mrr"]) == (0, pytest.approx(1 / 3))
    first = score(compass, asked({"q": "20"}, excluded={"q": ["0"]}))
    assert (first.metrics["hit@1"], first.metrics["mrr"]) == (0, pytest.approx(1 / 2))
    both = score(compass, asked({"q": "20"}, {"q": "only"}, {"q": ["0", "10", "110"]}))
    assert (both.metrics["hit@1"], both.metrics["mrr"]) == (1, 1)
    assert both.by_category["only"] == both.metrics
    assert unranked(both) == {"q": ["0", "10", "110"]}
    scores = dict(plain.queries[0].top_k)
    assert all(scores.get(id_, score_) == score_ for id_, score_ in both.queries[0].top_k)


def test_masks_leave_other_queries_alone(compass):
    plain = score(compass, asked(ANSWERS, CATEGORIES))
    excluded = score(compass, asked(ANSWERS, CATEGORIES, {"dog": ["0", "10", "20"], "cat": ["110"]}))
    assert excluded.by_category["tools"] == plain.by_category["tools"]
    assert excluded.by_category["animals"]["mrr"] == 1 > plain.by_category["animals"]["mrr"]
    others = [excluded.query_ids.index(query_id) for query_id in ("saw", "odd", "axe", "awl")]
    assert [excluded.queries[row] for row in others] == [plain.queries[row] for row in others]
    assert [query.gains for query in excluded.queries] == [query.gains for query in plain.queries]
    assert excluded.metrics["mrr"] == pytest.approx((1 + 1 + 1 / 2 + 1 + 1 / 8 + 1 / 12) / 6)


@pytest.mark.parametrize("ids", [["0"], CORPUS], ids=["the answer", "everything"])
def test_a_excluded_answer_counts_as_missed(compass, ids):
    result = score(compass, asked({"q": "0", "other": "0"}, {"q": "excluded", "other": "found"}, {"q": ids}))
    missed, found = result.by_category["excluded"], result.by_category["found"]
    assert [missed[name] for name in AVERAGED] == [0] * len(AVERAGED) and missed["queries"] == 1
    assert [found[name] for name in AVERAGED] == [1] * len(AVERAGED)
    assert result.metrics["hit@10"] == result.metrics["mrr"] == 0.5
    assert (missed["num_candidates"], result.queries[0].ranks) == (12, {"0": math.inf})


def test_masks_and_failed_items_together(compass):
    """Without "0" (failed) and "10" (excluded), "20" is first; what failed may be excluded too, in the corpus or lost while reading."""
    lost = Path("no such image.png")
    one = asked(
        {"q": "20", "failed answer": "0", "failed query": "20", "plain": "20"},
        {"q": "fine", "failed answer": "broken", "failed query": "broken"},
        {"q": ["10", "0", "lost while reading"], "failed query": ["10"]},
    )
    one = replace(one, queries={**one.queries, "failed query": Item(QUERY, image=lost)}, corpus={**one.corpus, "0": Item("0", image=lost)})
    result = score(compass, one)
    assert sorted(failure.item for failure in result.failures) == ["0", "failed query"]
    assert unranked(result) == {"q": ["0", "10"], "failed answer": ["0"], "failed query": list(CORPUS), "plain": ["0"]}
    assert result.queries[1].ranks == {"0": math.inf} and result.queries[2].ranks == {"20": math.inf}
    assert (result.by_category["fine"]["hit@1"], result.by_category["fine"]["mrr"]) == (1, 1)
    assert (result.by_category["broken"]["hit@10"], result.by_category["broken"]["queries"]) == (0, 2)
    assert result.metrics["mrr"] == pytest.approx((1 + 0 + 0 + 1 / 2) / 4)


# --- each query's own candidates, and its own depths -----------------------------------------------------------------------


def test_a_query_is_ranked_against_its_own_candidates(compass):
    listed = {"axe": ("70", "10", "90"), "awl": ("110", "0", "10", "110"), "dog": ("0", "gone")}
    result = score(compass, replace(asked(ANSWERS, CATEGORIES), candidates=listed))
    ranks = {query.id: query.first_hit for query in result.queries}
    assert ranks == {"saw": 2, "cat": 1, "dog": math.inf, "odd": 1, "axe": 2, "awl": 3}
    # Lists as long as they say, with the answer that one of them lacks; the others have the whole corpus.
    assert {query.id: query.num_candidates for query in result.queries} == {"saw": 12, "cat": 12, "dog": 3, "odd": 12, "axe": 3, "awl": 3}
    assert result.metrics["num_candidates"] == round((3 * 12 + 3 * 3) / 6)
    assert result.metrics["random_hit@1"] == pytest.approx((3 / 12 + 3 / 3) / 6)
    excluded = score(compass, replace(asked(ANSWERS, excluded={"axe": ["10"]}), candidates=listed))
    assert excluded.queries[4].first_hit == 1


def test_depths_are_those_of_the_set(compass):
    result = score(compass, replace(asked(ANSWERS, CATEGORIES), depths=(2, 4)))
    assert [name for name in result.metrics if name.startswith("hit@")] == ["hit@2", "hit@4"]
    assert (result.metrics["hit@2"], result.metrics["hit@4"]) == (3 / 6, 4 / 6)
    assert result.by_category["tools"].keys() == result.metrics.keys() and set(result.ci95) == set(result.values)


def test_queries_of_one_cluster_are_resampled_together(compass):
    plain = score(compass, asked(ANSWERS, CATEGORIES))
    together = replace(asked(ANSWERS, CATEGORIES), clusters=dict.fromkeys(("saw", "dog", "axe", "awl"), "one image"))
    result = score(compass, together)
    assert result.metrics == plain.metrics and plain.clusters is None and len(set(result.clusters)) == 3
    low, high = result.ci95["hit@1"]
    assert (low, high) != plain.ci95["hit@1"] and 0 <= low < result.metrics["hit@1"] < high <= 1
    assert result.ci95_by_category["tools"]["hit@5"] == (0, 1), "its three queries are one cluster, which says nothing of others"
    written = to_dict([result], per_query=True)["degrees"]
    assert written["clusters"] == 3 and written["cluster_of"]["axe"] == written["cluster_of"]["saw"] != written["cluster_of"]["cat"]
    assert "cluster_of" not in to_dict([plain], per_query=True)["degrees"] and to_dict([plain])["degrees"]["clusters"] == 6


def test_sets_without_judgements_are_ranked(compass):
    one = replace(asked({"saw": "10", "cat": "0"}, excluded={"cat": ["0"]}), qrels={"saw": {}, "cat": {}})
    assert first_positions(compass, [one], top_k=2) == {"degrees": {"saw": ["0", "10"], "cat": ["10", "20"]}}


def test_images_are_prepared_by_as_many_processes_as_asked(model):
    class Counting(Compass):
        asked: ClassVar[list[int | None]] = []

        def encode(self, *given, workers=None, **more):
            self.asked.append(workers)
            return super().encode(*given, workers=0, **more)

    one, counting = asked({"saw": "10"}), Counting(model)
    evaluate(counting, [one], workers=3)
    first_positions(counting, [one], top_k=2, workers=2)
    pairs = [Pair(Item(QUERY), (Item("10"),)), Pair(Item("90"), (Item("80"),))]
    mine(counting, pairs, absolute_margin=-2, workers=1)
    assert counting.asked == [3, 2, 1]


def test_results_files_hold_ranks_where_asked(compass):
    one = replace(asked({"a": "20", "b": "0", "none": "0"}), qrels={"a": {"20": 1, "lost": 2, "0": 0}, "b": {"0": 1}, "none": {"0": 0}})
    written = to_dict([score(compass, one)], per_query=True)["degrees"]
    assert written["ranks"] == {"a": {"20": 3, "lost": None}, "b": {"0": 1}} and written["gains"] == {"a": {"20": 1, "lost": 2}}
    assert written["num_candidates"] == 13 and written["queries"] == 2


# --- what the scores of perfect, random and constant embeddings must be ------------------------------------------------------


class Fixed(Encoder):
    """Embeds the text `<number>` as that row of a table."""

    fingerprint, pooling = "fixed", MeanPooling()

    def __init__(self, model: FrozenModel, vectors: np.ndarray):
        self.model, self.vectors = model, vectors

    def describe(self) -> dict[str, str]:
        return {"kind": self.fingerprint}

    def states_of(self, prepared: PreparedBatch) -> Tensor:
        words = self.model.processor.tokenizer.batch_decode(prepared.inputs["input_ids"])
        rows = [int("".join(re.findall(r"\d", each))) for each in words]
        return torch.from_numpy(self.vectors[rows]).float()[:, None]


SIZE = 150


def numbered() -> RetrievalSet:
    """Query i asks for corpus item i; the items are the numbers up to twice SIZE."""
    return RetrievalSet(
        name="numbers",
        queries={f"q{i}": Item(str(i)) for i in range(SIZE)},
        corpus={f"c{i}": Item(str(SIZE + i)) for i in range(SIZE)},
        qrels={f"q{i}": {f"c{i}": 1} for i in range(SIZE)},
        failures=(),
        depths=(1, 5, 10, 50),
    )


def test_perfect_embeddings_find_everything(model):
    vectors = np.random.default_rng(0).standard_normal((SIZE, model.dim))
    result = score(Fixed(model, np.concatenate([vectors, vectors])), numbered())
    assert all(result.metrics[name] == 1 for name in result.values), result.metrics
    assert {high for _, high in result.ci95.values()} == {1.0} and all(0.97 < low < 1 for low, _ in result.ci95.values())


def test_random_embeddings_find_what_chance_finds(model):
    metrics = score(Fixed(model, np.random.default_rng(0).standard_normal((2 * SIZE, model.dim))), numbered()).metrics
    for k in (5, 10, 50):
        chance = metrics[f"random_hit@{k}"]
        assert chance == pytest.approx(k / SIZE)
        assert metrics[f"hit@{k}"] == pytest.approx(chance, abs=4 * math.sqrt(chance * (1 - chance) / SIZE))


def test_constant_embeddings_find_nothing(model):
    same = np.tile(np.random.default_rng(0).standard_normal(model.dim), (2 * SIZE, 1))
    result = score(Fixed(model, same), numbered())
    assert {query.first_hit for query in result.queries} == {SIZE}
    assert all(result.metrics[f"hit@{k}"] == 0 <= result.metrics[f"random_hit@{k}"] for k in (1, 5, 10, 50))
    few = {f"q{i}": tuple(f"c{j % SIZE}" for j in range(i, i + 5)) for i in range(SIZE)}  # the answer first, as MMEB lists it
    listed = score(Fixed(model, same), replace(numbered(), candidates=few)).metrics
    assert listed["hit@1"] == 0 and listed["hit@5"] == 1 and listed["random_hit@1"] == pytest.approx(1 / 5)


def test_leading_numbers_alone_can_be_scored(model):
    """Perfect in the first 8 numbers, random behind them."""
    random = np.random.default_rng(0).standard_normal((2 * SIZE, model.dim))
    random[SIZE:, :8] = random[:SIZE, :8]
    (whole,) = evaluate(Fixed(model, random), [numbered()])
    (leading,) = evaluate(Fixed(model, random), [numbered()], truncate_dim=8)
    assert leading.metrics["hit@1"] == 1 > whole.metrics["hit@1"]
