"""Evaluation: embed retrieval sets, rank, report; keep what was embedded, write results, compare them."""

from slq.evaluate.compare import Difference, Published, check_comparable, compare, published_rows, read_result
from slq.evaluate.results import as_json, data_hash, group_scores, whole_result
from slq.evaluate.run import Evaluation, QueryResult, both_ways, evaluate, scores_over

__all__ = [
    "Difference",
    "Evaluation",
    "Published",
    "QueryResult",
    "as_json",
    "both_ways",
    "check_comparable",
    "compare",
    "data_hash",
    "evaluate",
    "group_scores",
    "published_rows",
    "read_result",
    "scores_over",
    "whole_result",
]
