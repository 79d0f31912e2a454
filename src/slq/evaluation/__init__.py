"""Evaluation: embed retrieval sets, rank, report; keep what was embedded, write results, compare them."""

from slq.evaluation.compare import Difference, Published, check_comparable, compare, published_rows, read_result
from slq.evaluation.evaluate import Evaluation, QueryResult, bidirectional_sets, evaluate, scores_over
from slq.evaluation.results import as_json, dataset_sha256, group_scores, result_record

__all__ = [
    "Difference",
    "Evaluation",
    "Published",
    "QueryResult",
    "as_json",
    "bidirectional_sets",
    "check_comparable",
    "compare",
    "dataset_sha256",
    "evaluate",
    "group_scores",
    "published_rows",
    "read_result",
    "result_record",
    "scores_over",
]
