"""Evaluation by category and with masks, on directions in a plane, so that every rank is known beforehand.

Mistakes in the data itself (lost pictures, broken rows) are in test_bad_input.py.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from slq.backbone import FrozenBackbone, Prepared
from slq.data import RetrievalSet
from slq.embedder import Embedder
from slq.evaluate import Evaluation, as_json, evaluate
from slq.types import Item

CORPUS = tuple(str(degrees) for degrees in range(0, 120, 10))
QUERY = "-1"  # ranks the corpus in its order: "0" first, "110" last
AVERAGED = ("hit@1", "hit@5", "hit@10", "recall@5", "mrr", "ndcg@10")


class Compass(Embedder):
    """Embeds a text, a number of degrees, as that direction; the picture of an item is only checked."""

    fingerprint = "compass"

    def __init__(self, backbone: FrozenBackbone):
        self.backbone = backbone

    def embed_prepared(self, prepared: Prepared) -> Tensor:
        vectors_BD = torch.zeros(len(prepared), self.backbone.dim)
        for row, words in enumerate(self.backbone.processor.tokenizer.batch_decode(prepared.inputs["input_ids"])):
            angle = math.radians(float("".join(re.findall(r"[-\d]", words))))
            vectors_BD[row, :2] = torch.tensor([math.cos(angle), math.sin(angle)])
        return vectors_BD


@pytest.fixture(scope="module")
def compass(backbone: FrozenBackbone) -> Compass:
    return Compass(backbone)


def asked(
    answers: Mapping[str, str], categories: Mapping[str, str] | None = None, masked: Mapping[str, Sequence[str]] | None = None
) -> RetrievalSet:
    """A set of queries that each rank `CORPUS` in its order, and have one answer."""
    return RetrievalSet(
        name="degrees",
        queries={query_id: Item(QUERY) for query_id in answers},
        corpus={degrees: Item(degrees) for degrees in CORPUS},
        qrels={query_id: {answer: 1} for query_id, answer in answers.items()},
        failures=(),
        categories=categories or {},
        masked={query_id: frozenset(ids) for query_id, ids in (masked or {}).items()},
    )


def score(compass: Compass, one: RetrievalSet) -> Evaluation:
    (result,) = evaluate(compass, [one])
    return result


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
    assert animals["candidates"] == tools["candidates"] == 12
    assert animals.keys() == tools.keys() == result.metrics.keys()
    assert result.metrics["hit@1"] == pytest.approx(2 / 6), "a query without a category counts in the whole"


def test_results_files_hold_the_categories_where_there_are_any(compass):
    result = score(compass, asked(ANSWERS, CATEGORIES))
    assert as_json([result])["degrees"] == {**result.metrics, "by_category": result.by_category, "failures": []}
    plain = score(compass, asked(ANSWERS))
    assert plain.by_category == {}
    assert as_json([plain])["degrees"] == {**result.metrics, "failures": []}


def test_a_category_without_any_answer_has_no_scores(compass):
    one = asked({"a": "0", "b": "0"}, {"a": "near", "b": "nowhere"})
    found = score(compass, replace(one, qrels={"a": {"0": 1}, "b": {"0": 0}}))
    assert set(found.by_category) == {"near"}


def test_categories_belong_to_their_set(compass):
    first, second = asked({"cat": "0"}, {"cat": "animals"}), asked({"cat": "10"}, {"cat": "pets"})
    results = evaluate(compass, [first, second])
    assert [{name: found["mrr"] for name, found in result.by_category.items()} for result in results] == [{"animals": 1}, {"pets": 0.5}]


@pytest.mark.parametrize("masked", [{}, {"dog": ["0", "10"], "axe": ["70"]}, {key: ["20"] for key in ANSWERS}], ids=["none", "some", "all"])
def test_the_whole_is_the_mean_of_the_categories_weighted_by_their_queries(compass, masked):
    result = score(compass, asked(ANSWERS, {**CATEGORIES, "odd": "none of them"}, masked))
    parts = result.by_category.values()
    assert len(parts) == 3 and sum(part["queries"] for part in parts) == result.metrics["queries"] == 6
    for name in AVERAGED:
        assert result.metrics[name] == pytest.approx(sum(part[name] * part["queries"] for part in parts) / 6), name


def test_what_is_masked_is_not_ranked(compass):
    plain = score(compass, asked({"q": "20"}))
    assert (plain.metrics["hit@1"], plain.metrics["mrr"]) == (0, pytest.approx(1 / 3))
    first = score(compass, asked({"q": "20"}, masked={"q": ["0"]}))
    assert (first.metrics["hit@1"], first.metrics["mrr"]) == (0, pytest.approx(1 / 2))
    both = score(compass, asked({"q": "20"}, {"q": "only"}, {"q": ["0", "10", "110"]}))
    assert (both.metrics["hit@1"], both.metrics["mrr"]) == (1, 1)
    assert both.by_category["only"] == both.metrics
    assert [id_ for id_, score_ in zip(both.corpus_ids, both.scores_QC[0], strict=True) if score_ == -np.inf] == ["0", "10", "110"]
    kept = np.isfinite(both.scores_QC)
    assert (both.scores_QC[kept] == plain.scores_QC[kept]).all()


def test_masks_leave_other_queries_alone(compass):
    plain = score(compass, asked(ANSWERS, CATEGORIES))
    masked = score(compass, asked(ANSWERS, CATEGORIES, {"dog": ["0", "10", "20"], "cat": ["110"]}))
    assert masked.by_category["tools"] == plain.by_category["tools"]
    assert masked.by_category["animals"]["mrr"] == 1 > plain.by_category["animals"]["mrr"]
    others = [masked.query_ids.index(query_id) for query_id in ("saw", "odd", "axe", "awl")]
    assert np.isfinite(plain.scores_QC).all() and (masked.scores_QC[others] == plain.scores_QC[others]).all()
    assert (masked.gains_QC == plain.gains_QC).all()
    assert masked.metrics["mrr"] == pytest.approx((1 + 1 + 1 / 2 + 1 + 1 / 8 + 1 / 12) / 6)


@pytest.mark.parametrize("ids", [["0"], CORPUS], ids=["the answer", "everything"])
def test_a_masked_answer_counts_as_missed(compass, ids):
    result = score(compass, asked({"q": "0", "other": "0"}, {"q": "masked", "other": "found"}, {"q": ids}))
    missed, found = result.by_category["masked"], result.by_category["found"]
    assert [missed[name] for name in AVERAGED] == [0] * len(AVERAGED) and missed["queries"] == 1
    assert [found[name] for name in AVERAGED] == [1] * len(AVERAGED)
    assert result.metrics["hit@10"] == result.metrics["mrr"] == 0.5
    assert (missed["candidates"], result.gains_QC[0, 0]) == (12, 1)


def test_masks_and_failed_items_together(compass):
    """Without "0" (failed) and "10" (masked), "20" is first; what failed may be masked too, in the corpus or lost while reading."""
    lost = Path("no such picture.png")
    one = asked(
        {"q": "20", "failed answer": "0", "failed query": "20", "plain": "20"},
        {"q": "fine", "failed answer": "broken", "failed query": "broken"},
        {"q": ["10", "0", "lost while reading"], "failed query": ["10"]},
    )
    one = replace(one, queries={**one.queries, "failed query": Item(QUERY, image=lost)}, corpus={**one.corpus, "0": Item("0", image=lost)})
    result = score(compass, one)
    assert sorted(failure.item for failure in result.failures) == ["0", "failed query"]
    unranked = {
        query_id: [id_ for id_, score_ in zip(result.corpus_ids, scores_C, strict=True) if score_ == -np.inf]
        for query_id, scores_C in zip(result.query_ids, result.scores_QC, strict=True)
    }
    assert unranked == {"q": ["0", "10"], "failed answer": ["0"], "failed query": list(CORPUS), "plain": ["0"]}
    assert not np.isnan(result.scores_QC).any()
    assert (result.by_category["fine"]["hit@1"], result.by_category["fine"]["mrr"]) == (1, 1)
    assert (result.by_category["broken"]["hit@10"], result.by_category["broken"]["queries"]) == (0, 2)
    assert result.metrics["mrr"] == pytest.approx((1 + 0 + 0 + 1 / 2) / 4)
