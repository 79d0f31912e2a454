"""Evaluation: embed retrieval sets, rank, report; cache what was embedded, write results, compare them."""

from slq.evaluation.compare import Difference, Published, check_comparable, compare, published_rows, read_result
from slq.evaluation.evaluate import Evaluation, QueryResult, bidirectional_sets, evaluate, scores_over
from slq.evaluation.results import average_scores, dataset_sha256, result_record, to_dict

__all__ = [
    "Difference",
    "Evaluation",
    "Published",
    "QueryResult",
    "average_scores",
    "bidirectional_sets",
    "check_comparable",
    "compare",
    "dataset_sha256",
    "evaluate",
    "published_rows",
    "read_result",
    "result_record",
    "scores_over",
    "to_dict",
]
